"""Detectors and segmenters of mmdetection's own configs, with a small FocalNet and narrow heads put in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mmdet
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from tests.openmmlab.conftest import ROOT, SAMPLE_CONFIG

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"
CLASSES = ("ball", "tile", "cone")


STRIDES = (4, 8, 16)
"""Of the maps that heads read: two stages, and one that the neck adds."""


def _shrink_regions(model: ConfigDict) -> None:
    model.neck.update(in_channels=[4, 8], out_channels=8, num_outs=3)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    model.rpn_head.anchor_generator.strides = STRIDES
    model.test_cfg.rpn.update(nms_pre=200, max_per_img=60)
    model.test_cfg.rcnn.update(max_per_img=30, score_thr=0.2)
    heads = model.roi_head
    for extractor in (heads.bbox_roi_extractor, heads.get("mask_roi_extractor", {})):
        # Photos are small: so that there are regions of every map.
        extractor.update(out_channels=8, finest_scale=28, featmap_strides=STRIDES[:2])
    boxes = heads.bbox_head if isinstance(heads.bbox_head, list) else [heads.bbox_head]
    for head in boxes:
        head.update(in_channels=8, fc_out_channels=16, num_classes=len(CLASSES))
    if "mask_head" in heads:
        heads.mask_head.update(in_channels=8, conv_out_channels=8, num_convs=1, num_classes=len(CLASSES))


def _shrink_dense(model: ConfigDict) -> None:
    model.neck.update(in_channels=[4, 8], out_channels=8, start_level=0, num_outs=3)
    head = model.bbox_head
    head.update(in_channels=8, feat_channels=8, stacked_convs=1, num_classes=len(CLASSES))
    if "anchor_generator" in head:
        head.anchor_generator.strides = STRIDES
    else:
        head.strides = STRIDES
        head.regress_ranges = ((-1, 32), (32, 64), (64, 1e8))
    if head.type in ("ATSSHead", "FCOSHead"):
        head.norm_cfg = {"type": "GN", "num_groups": 4}
    model.test_cfg.update(nms_pre=100, max_per_img=30)


def _shrink_dino(model: ConfigDict) -> None:
    """Its width stays: the encoding of boxes is made for 256 channels."""
    model.update(num_queries=20, num_feature_levels=2, test_cfg={"max_per_img": 20})
    model.neck.update(in_channels=[4, 8], num_outs=2)
    for part, attention in ((model.encoder, "self_attn_cfg"), (model.decoder, "cross_attn_cfg")):
        part.num_layers = 1
        part.layer_cfg[attention].num_levels = 2
        part.layer_cfg.ffn_cfg.feedforward_channels = 16
    model.bbox_head.num_classes = len(CLASSES)


SHRINK: dict[str, Callable[[ConfigDict], None]] = {
    "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": _shrink_regions,
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py": _shrink_regions,
    "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py": _shrink_regions,
    "atss/atss_r50_fpn_1x_coco.py": _shrink_dense,
    "retinanet/retinanet_r50_fpn_1x_coco.py": _shrink_dense,
    "dino/dino-4scale_r50_8xb2-12e_coco.py": _shrink_dino,
    "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py": _shrink_dense,
}


def write_small_detector(name: str, folder: Path) -> tuple[Path, Path]:
    """A config of mmdetection made small, and weights by which its scores differ.

    Returns:
        The files of the config and of the checkpoint.
    """
    cfg = Config.fromfile(CONFIGS / name)
    cfg.custom_imports = {"imports": ["focalnet_backbone.openmmlab"], "allow_failed_imports": False}
    cfg.model.backbone = ConfigDict(
        type="FocalNet", embed_dim=4, depths=[1, 1], focal_levels=[2, 2], focal_windows=[3, 3], out_indices=(0, 1)
    )
    SHRINK[name](cfg.model)
    dataset = cfg.test_dataloader.dataset
    dataset.update(data_root=str(folder), ann_file="none.json", metainfo={"classes": CLASSES})
    dataset.pipeline[1].scale = (96, 64)
    return _write(cfg, folder)


def write_small_mask2former(kind: str, folder: Path) -> tuple[Path, Path]:
    """The sample's Mask2Former made smaller: "semantic" (mmseg), "panoptic" or "instances" (mmdet)."""
    framework = "mmseg" if kind == "semantic" else "mmdet"
    name = {"mmseg": "mask2former_focalnet_sample", "mmdet": "mask2former_focalnet_sample_panoptic"}[framework]
    cfg = Config.fromfile(ROOT / "configs" / framework / f"{name}.py")
    cfg.model.backbone.update(embed_dim=4, depths=[1, 1, 1, 1])
    head = cfg.model.decode_head if framework == "mmseg" else cfg.model.panoptic_head
    head.update(in_channels=[4, 8, 16, 32], num_queries=8)
    head.transformer_decoder.num_layers = 1
    if kind == "panoptic":
        cfg.model.test_cfg.update(object_mask_thr=0.15, iou_thr=0.3)
    elif kind == "instances":
        for part in (cfg.model.panoptic_head, cfg.model.panoptic_fusion_head):
            part.update(num_things_classes=8, num_stuff_classes=0)
        cfg.model.test_cfg.update(panoptic_on=False, instance_on=True)
    return _write(cfg, folder)


def write_small_upernet(folder: Path) -> tuple[Path, Path]:
    """The sample's UPerNet made smaller, of two stages."""
    cfg = Config.fromfile(SAMPLE_CONFIG)
    cfg.model.backbone.update(embed_dim=4, depths=[1, 1], focal_windows=[3, 3], focal_levels=[2, 2], out_indices=(0, 1))
    cfg.model.decode_head.update(in_channels=[4, 8], in_index=[0, 1], channels=4)
    cfg.model.auxiliary_head.update(in_channels=8, in_index=1)
    return _write(cfg, folder)


def _write(cfg: Config, folder: Path) -> tuple[Path, Path]:
    path = folder / "model.py"
    cfg.dump(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
    _spread_scores(model)
    torch.save({"state_dict": model.state_dict()}, path.with_suffix(".pth"))
    return path, path.with_suffix(".pth")


@torch.no_grad()
def _spread_scores(model: nn.Module) -> None:
    """Let the scores of a model with random weights differ, so that the order of its boxes is its own."""
    for name, parameter in model.named_parameters():
        kind = name.rpartition(".")[0].rpartition(".")[2]
        if kind in ("fc_cls", "rpn_cls", "atss_cls", "retina_cls", "conv_cls", "conv_logits"):
            parameter.normal_(std=0.0 if name.endswith("bias") else 0.02 if kind == "retina_cls" else 0.3)
        if kind == "conv_seg":
            parameter.normal_(std=0.0 if name.endswith("bias") else 1.0)
        if name == "level_embed":
            parameter.normal_()
        if kind == "cls_embed" or "mask_embed" in name or kind == "mask_feature":
            # Masks that are nowhere sure, so that no pixel is of all classes as good as equally.
            parameter.normal_(std=0.0 if name.endswith("bias") else 0.3 if kind == "cls_embed" else 0.15)
        if kind in ("fc_reg", "rpn_reg", "atss_reg", "retina_reg") and name.endswith("weight"):
            parameter.normal_(std=0.05)
