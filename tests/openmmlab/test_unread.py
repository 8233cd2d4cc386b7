"""Maps of the backbone that no neck or head reads: what leads to them alone is not trained."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.necks import FPN
from torch import nn

from focalnet_backbone.openmmlab import FocalNet
from focalnet_backbone.openmmlab.unread import freeze_unread


class Model(nn.Module):
    """A backbone, and what reads `maps` of it."""

    def __init__(self, maps: list[int], **parts: nn.Module) -> None:
        super().__init__()
        self.backbone = FocalNet(embed_dim=4, depths=[1, 1, 1, 1])
        self.maps = maps
        for name, part in parts.items():
            setattr(self, name, part)

    def loss(self) -> torch.Tensor:
        maps = self.backbone(torch.rand(1, 3, 64, 64))
        if hasattr(self, "neck"):
            return sum(features.sum() for features in self.neck(maps))
        return sum(maps[i].sum() for i in self.maps)


def head(in_index: object) -> nn.Module:
    part = nn.Module()
    part.in_index = in_index
    return part


def fpn(**levels: int) -> FPN:
    return FPN([4, 8, 16, 32], 8, **levels)


@pytest.mark.parametrize(
    ("make", "frozen"),
    [
        (lambda: Model([0, 1, 2, 3], decode_head=head([0, 1, 2, 3]), auxiliary_head=head(2)), set()),
        (lambda: Model([2, 3], decode_head=head(-1), auxiliary_head=nn.ModuleList([head(2)])), {"norm0", "norm1"}),
        (lambda: Model([1], decode_head=head(1)), {"norm0", "norm2", "norm3", "layers"}),
        (lambda: Model([], neck=fpn(num_outs=4)), set()),
        (lambda: Model([], neck=nn.Sequential(fpn(start_level=1, num_outs=4, add_extra_convs="on_input"))), {"norm0"}),
        (lambda: Model([], neck=fpn(start_level=1, end_level=2, num_outs=2)), {"norm0", "norm3", "layers"}),
    ],
)
def test_every_parameter_that_is_trained_gets_a_gradient(make, frozen):
    """For which DistributedDataParallel would wait."""
    model = make()
    freeze_unread(model)
    model.loss().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())
    untrained = {name.split(".")[0] for name, part in model.backbone.named_parameters() if not part.requires_grad}
    assert untrained == frozen


def test_what_cannot_be_told_stays_as_it_is():
    model = Model([0], neck=nn.Identity())
    freeze_unread(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
