"""What the network sees inside OpenMMLab's models."""

from __future__ import annotations

import torch
from torch import nn

import focalnet_backbone.openmmlab
from focalnet_backbone import FocalNet
from focalnet_backbone.pictures import watch_modulation


def test_the_plugins_backbone_shows_what_the_core_with_its_weights_shows():
    plugin = focalnet_backbone.openmmlab.FocalNet(embed_dim=8, depths=[1, 1], out_indices=(0, 1))
    core = FocalNet(plugin.config)
    core.load_state_dict(plugin.state_dict())
    pixels = torch.randn(1, 3, 32, 32)
    for seen, expected in zip(
        watch_modulation(nn.ModuleDict({"backbone": plugin}), pixels), watch_modulation(core, pixels), strict=True
    ):
        assert torch.equal(seen.gates, expected.gates)
        assert torch.equal(seen.modulator, expected.modulator)
