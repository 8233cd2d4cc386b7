"""What the network sees inside detectron2's models."""

from __future__ import annotations

import torch
from detectron2.modeling import build_model

from focalnet_backbone import FocalNet
from focalnet_backbone.pictures import read_kernels, watch_modulation


def test_a_detectors_backbone_shows_what_the_core_with_its_weights_shows(tiny_cfg):
    detector = build_model(tiny_cfg)
    bottom_up = detector.backbone.bottom_up
    core = FocalNet(bottom_up.config)
    core.load_state_dict(bottom_up.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    for model in (detector, detector.backbone, bottom_up):
        views = watch_modulation(model, pixels)
        assert len(views) == len(core.layers)
        for seen, expected in zip(views, watch_modulation(core, pixels), strict=True):
            assert torch.equal(seen.gates, expected.gates)
            assert torch.equal(seen.modulator, expected.modulator)
        assert torch.equal(read_kernels(model, 1)[0].levels[0], read_kernels(core, 1)[0].levels[0])
