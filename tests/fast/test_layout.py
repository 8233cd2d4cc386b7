"""Maps that are trained on in float32 on a CPU lie in planes, in both plugins; all others stay channels-last."""

from __future__ import annotations

import pytest
import torch

from focalnet_backbone import openmmlab
from focalnet_backbone.detectron2.backbone import FocalNetBackbone

KNOBS = {"embed_dim": 8, "depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3], "drop_path_rate": 0.0}


@pytest.fixture(params=["detectron2", "OpenMMLab"])
def maps_of(request):
    """A function that gives both of a plugin's maps of an image."""
    if request.param == "detectron2":
        model = FocalNetBackbone(**KNOBS, out_features=["stage1", "stage2"])
        return model, lambda x: list(model(x).values())
    model = openmmlab.FocalNet(**KNOBS)
    return model, lambda x: list(model(x))


def layouts(maps: list[torch.Tensor]) -> set[str]:
    assert len(maps) == 2
    return {"planes" if x.is_contiguous() else "channels-last" for x in maps}


def test_maps_to_train_on_lie_in_planes(maps_of):
    model, maps = maps_of
    x = torch.randn(1, 3, 32, 40)
    found = maps(x)
    assert layouts(found) == {"planes"}
    sum(y.square().sum() for y in found).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        plain = maps(x)
    assert layouts(plain) == {"channels-last"}
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one.detach(), other)


def test_other_types_stay_channels_last(maps_of):
    model, maps = maps_of
    model.double()
    assert layouts(maps(torch.randn(1, 3, 32, 40).double())) == {"channels-last"}
