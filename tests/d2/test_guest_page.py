"""The page "In your detectron2 project": its program's lines build what its config names."""

from __future__ import annotations

import torch
from detectron2.modeling import build_backbone

from tests.d2.test_backbone import RES
from tests.readme import code_blocks


def test_the_lines_of_the_program_and_of_the_config_build_the_backbone(monkeypatch, tmp_path):
    (_, program), (_, config) = code_blocks("In your detectron2 project")
    # The address of the weights needs a network.
    config = config.replace("WEIGHTS: focalnet_tiny_lrf", 'WEIGHTS: ""')
    (tmp_path / "focalnet.yaml").write_text(config + "  MIN_SIZE_TEST: 64\n")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(program, names)
    names["cfg"].MODEL.DEVICE = "meta"
    with torch.device("meta"):
        backbone = build_backbone(names["cfg"])
    assert list(backbone.output_shape()) == RES
    assert backbone.config.focal_windows == [9, 9, 9, 9]
    assert names["_C"].nms_rotated
