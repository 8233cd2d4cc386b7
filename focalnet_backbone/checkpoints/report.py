"""What loading a checkpoint did, tensor by tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from focalnet_backbone.system.command_line import printable

_DETECTOR_PARTS = r"(transformer|encoder|decoder|bbox_head|neck)\."


@dataclass(frozen=True)
class LoadReport:
    """What `load_checkpoint` did. `str()` is one line.

    Attributes:
        source: what was loaded.
        format: "native", "transformers" or "timm".
        loaded: the model's tensors that were loaded as they are, by native name.
        resized: those that were enlarged, cut or given gates to fit the model.
        ignored: the checkpoint's tensors that the model has no place for, as is normal for it.
        not_built: those of the stages that the model's network has and the model, a backbone, does not build, as none
            of the maps that it gives needs them.
        missing: the model's tensors that the checkpoint lacks; they keep the values that they had.
        unexpected: the checkpoint's tensors that the model has no place for, and that is not normal.
        differs: knobs in which the model differs from what the source says of its weights, each as
            `"knob: theirs in the source, ours in the model"`.
    """

    source: str
    format: str
    loaded: tuple[str, ...]
    resized: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    not_built: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.source} ({self.format} format): loaded {len(self.loaded)} tensors"]
        for field in ("resized", "ignored", "missing", "unexpected"):
            names = getattr(self, field)
            parts.append(f"{field} {len(names)}" + (f" ({summarise(names)})" if names else ""))
        if self.not_built:
            parts.append(f"left out {len(self.not_built)} of stages after the last map ({summarise(self.not_built)})")
        parts += [f"differs in {difference}" for difference in self.differs]
        return printable(", ".join(parts))


def summarise(names: Iterable[str], limit: int = 4) -> str:
    """The modules that the names belong to, each once, with `*` for the indices of stages, blocks and layers."""
    modules = {}
    for name in names:
        module = re.sub(r"\.(weight|bias)$", "", name)
        if re.match(_DETECTOR_PARTS, module):
            module = re.sub(r"(?<=\.)\d+(?=\.|$)", "*", module)
        modules[re.sub(r"^layers\.\d+\.blocks\.\d+", "layers.*.blocks.*", module)] = None
    listed = list(modules)
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
