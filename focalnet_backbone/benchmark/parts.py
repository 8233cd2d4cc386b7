"""Where a whole model's time goes: its backbone, its neck, and the heads after them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median

from torch import Tensor, nn

PARTS = ("backbone", "neck")


class PartTimes:
    """Times of a model's `backbone` and `neck`, taken by hooks while it runs on a CPU; what is left is the heads'.

    Autograd goes back through what was computed last first: all of the heads, then the neck, then the backbone. So a
    part begins when it takes up the first gradient of a map that it gave.

    Args:
        model: has the parts as attributes; one that is missing takes no time.
    """

    def __init__(self, model: nn.Module) -> None:
        self.calls: list[dict[str, float]] = []
        self._parts = [name for name in PARTS if isinstance(getattr(model, name, None), nn.Module)]
        self._forward: dict[str, float] = {}
        self._arrived: dict[str, float] = {}
        for name in self._parts:
            module = getattr(model, name)
            module.register_forward_pre_hook(partial(self._begin, name))
            module.register_forward_hook(partial(self._end, name))

    def timed(self, run: Callable[[], object]) -> None:
        """Call `run`, and note the seconds of each part and of the heads."""
        self._arrived = {}
        begin = time.perf_counter()
        run()
        end = time.perf_counter()
        seconds = {name: self._forward[name] for name in self._parts}
        # The backbone's backward pass is the last one; the neck's ends where it begins.
        for name in self._parts:
            if name in self._arrived:
                seconds[name] += end - self._arrived[name]
                end = self._arrived[name]
        self.calls.append({**seconds, "heads": time.perf_counter() - begin - sum(seconds.values())})

    def medians(self, calls: int) -> dict[str, float]:
        """Seconds by part over so many of the last calls."""
        return {name: median(call[name] for call in self.calls[-calls:]) for name in self.calls[-1]}

    def _begin(self, name: str, *_: object) -> None:
        self._forward[name] = -time.perf_counter()

    def _end(self, name: str, module: nn.Module, inputs: object, outputs: object) -> None:
        self._forward[name] += time.perf_counter()
        maps = outputs.values() if isinstance(outputs, dict) else outputs
        for tensor in [maps] if isinstance(maps, Tensor) else maps:
            if tensor.requires_grad:
                tensor.register_hook(partial(self._note, name))

    def _note(self, name: str, _: Tensor) -> None:
        self._arrived.setdefault(name, time.perf_counter())
