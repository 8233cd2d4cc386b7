"""Where a whole model's time goes, and peers' FocalNets in the place of ours."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from focalnet_backbone import FocalNet, FocalNetConfig
from focalnet_backbone.benchmark.compare import find_subject
from focalnet_backbone.benchmark.compare_report import format_parts
from focalnet_backbone.benchmark.parts import PartTimes
from focalnet_backbone.benchmark.peers import make_peer
from focalnet_backbone.checkpoints import export_state_dict


class Sleep(torch.autograd.Function):
    """Takes a time in the forward pass and another in the backward pass."""

    @staticmethod
    def forward(ctx, x: Tensor, forward: float, backward: float) -> Tensor:
        ctx.backward = backward
        time.sleep(forward)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        time.sleep(ctx.backward)
        return gradient, None, None


class Sleeper(nn.Module):
    def __init__(self, forward: float, backward: float) -> None:
        super().__init__()
        self.times = forward, backward
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, maps: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maps = (maps, maps) if isinstance(maps, Tensor) else maps
        return tuple(Sleep.apply(x * self.weight, *(t / len(maps) for t in self.times)) for x in maps)


class Host(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = Sleeper(0.01, 0.04), Sleeper(0.02, 0.05), Sleeper(0.03, 0.06)

    def forward(self, x: Tensor) -> Tensor:
        return sum(self.head(self.neck(self.backbone(x)))).sum()


def test_each_part_has_its_time_of_both_passes():
    host = Host()
    times = PartTimes(host)
    with torch.no_grad():
        times.timed(lambda: host(torch.ones(3)))
    begin = time.perf_counter()
    times.timed(lambda: host(torch.ones(3)).backward())
    whole = time.perf_counter() - begin
    slept = [{"backbone": 0.01, "neck": 0.02, "heads": 0.03}, {"backbone": 0.05, "neck": 0.07, "heads": 0.09}]
    for call, least in zip(times.calls, slept, strict=True):
        # A busy machine may take longer, but no part less than it slept; and each second is of one part.
        assert all(call[part] >= 0.99 * seconds for part, seconds in least.items())
    assert sum(times.calls[1].values()) <= whole
    assert times.medians(1) == times.calls[1]


def test_parts_are_a_table():
    entry = {"parts": {"backbone": 1.5, "neck": 0.25, "heads": 0.125}}
    results = {"forward": {"a": entry, "b": {"parts": {"backbone": 1.0, "heads": 0.5}}}, "size": {"a": {}, "b": {}}}
    assert format_parts(["a", "b"], results).splitlines() == [
        "|  | forward: backbone (ms) | forward: neck (ms) | forward: heads (ms) |",
        "| --- | ---: | ---: | ---: |",
        "| a | 1,500 | 250 | 125 |",
        "| b | 1,000 | 0 | 500 |",
    ]
    assert format_parts(["a"], {"forward": {"a": {"seconds": 1.0}}}) == ""


@pytest.mark.parametrize("name", ["timm", "transformers"])
@torch.no_grad()
def test_a_peer_gives_our_maps_for_our_weights(name):
    sizes = {"embed_dim": 8, "depths": [1, 2], "focal_levels": [2, 3], "focal_windows": [3, 5]}
    ours = FocalNet(FocalNetConfig(**sizes, out_indices=[1, 2])).eval()
    peer = make_peer(name, ours).eval()
    weights = {key: value for key, value in ours.state_dict().items() if not key.startswith("norm")}
    prefix = "focalnet." if name == "transformers" else ""
    last_norm = {"norm.weight": torch.ones(16), "norm.bias": torch.zeros(16)}
    found = export_state_dict({**weights, **last_norm}, name, use_post_layernorm=False)
    found = {key.removeprefix(prefix): value for key, value in found.items()}
    missing, _ = peer.model.load_state_dict(found, strict=False)
    assert not missing
    x = torch.randn(2, 3, 32, 48)
    for one, other in zip(peer(x), ours(x).values(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_peer_is_asked_for_behind_the_name_of_a_config():
    subject = find_subject("upernet_focalnet_sample@timm")
    assert (subject.name, subject.kind, subject.published) == ("upernet_focalnet_sample@timm", "mmseg", {})
    images = torch.randn(1, 3, 64, 64)
    model = subject.build().eval()
    assert type(model.model.backbone.model).__module__ == "timm.models.focalnet"
    with torch.no_grad():
        ours = find_subject("upernet_focalnet_sample").build().eval()(images)
        assert [x.shape for x in model(images)] == [x.shape for x in ours]
    with pytest.raises(ValueError, match="takes the place of a FocalNet alone"):
        find_subject("mask_rcnn_swin_tiny_1x@timm").build()
    with pytest.raises(ValueError, match="by focalnet benchmark"):
        find_subject("focalnet_tiny_srf@timm")
