"""mmdetection's models from its own configs, with a small FocalNet put in: they train and predict."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmdet be imported)
import copy
from collections.abc import Callable
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"
BACKBONE = {"type": "FocalNet", "embed_dim": 4, "depths": [1, 1, 1, 1]}
WIDTHS = [4, 8, 16, 32]


def shrink_rcnn(model: ConfigDict) -> None:
    model.neck.in_channels = WIDTHS
    model.train_cfg.rpn_proposal.max_per_img = model.test_cfg.rpn.max_per_img = 50


def shrink_sparse_rcnn(model: ConfigDict) -> None:
    model.neck.in_channels = WIDTHS
    model.rpn_head.num_proposals = 10
    model.roi_head.num_stages = 2
    for part in (model.roi_head.stage_loss_weights, model.roi_head.bbox_head, model.train_cfg.rcnn):
        del part[2:]


def shrink_atss(model: ConfigDict) -> None:
    model.neck.in_channels = WIDTHS


def shrink_dino(model: ConfigDict) -> None:
    model.backbone.out_indices = (1, 2, 3)
    model.neck.in_channels = WIDTHS[1:]
    model.num_queries = 20
    model.encoder.num_layers = model.decoder.num_layers = 1


def shrink_mask2former(model: ConfigDict) -> None:
    head = model.panoptic_head
    head.in_channels = WIDTHS
    head.num_queries = 10
    head.pixel_decoder.encoder.num_layers = 1
    head.transformer_decoder.num_layers = 1
    model.train_cfg.num_points = 500
    model.data_preprocessor.batch_augments = None  # They pad to 1024 x 1024.


DETECTORS: dict[str, Callable[[ConfigDict], None]] = {
    "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": shrink_rcnn,
    "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py": shrink_rcnn,
    "atss/atss_r50_fpn_1x_coco.py": shrink_atss,
    "sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py": shrink_sparse_rcnn,
    "mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py": shrink_mask2former,
    "dino/dino-4scale_r50_8xb2-12e_coco.py": shrink_dino,
}


@pytest.mark.parametrize("config", DETECTORS)
def test_detector_trains_and_predicts(config):
    torch.manual_seed(0)
    init_default_scope("mmdet")
    cfg = Config.fromfile(CONFIGS / config).model
    cfg.backbone = ConfigDict(copy.deepcopy(BACKBONE))
    DETECTORS[config](cfg)
    model = MODELS.build(cfg)
    model.init_weights()
    batch = demo_mm_inputs(2, [[3, 96, 80], [3, 64, 96]], num_classes=80, with_mask=True, with_semantic=True)

    model.train()
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    loss, _ = model.parse_losses(model(**data, mode="loss"))
    loss.backward()
    assert torch.isfinite(loss)
    # Norms of stages that a detector does not read have no gradient, all else has.
    reached = {name for name, p in model.backbone.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"patch_embed.proj.weight", "layers.3.blocks.0.modulation.f.weight", "norm3.weight"} <= reached

    model.eval()
    with torch.no_grad():
        results = model.test_step(batch)
    assert len(results) == 2
    for result in results:
        if "pred_panoptic_seg" in result:
            assert result.pred_panoptic_seg.sem_seg.shape[-2:] == tuple(result.ori_shape)
        else:
            assert torch.isfinite(result.pred_instances.bboxes).all()
