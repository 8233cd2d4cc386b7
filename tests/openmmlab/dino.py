"""Small DINO detectors of mmdetection for the reference vectors, by our configs."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmdet be imported)
import mmdet.models  # noqa: F401
import pytest
import torch
from mmdet.models.layers.transformer import dino_layers
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from focalnet_backbone.openmmlab.runners import load_config
from tests.openmmlab.conftest import ROOT


def small_config(golden: dict[str, Any], classes: int | None = None) -> ConfigDict:
    """The config's model in the size of a reference vector, whose origin's config it is."""
    kwargs = golden["kwargs"]
    recipe = "detrex_12e" if kwargs["origin"] == "detrex" else "12e"
    model = copy.deepcopy(load_config(ROOT / f"configs/mmdet/dino-4scale_focalnet_large_fl3_{recipe}_coco.py").model)
    width, backbone = kwargs["hidden_dim"], kwargs["backbone"]
    renamed = {"use_postln": "use_post_layernorm", "use_postln_in_modulation": "use_post_layernorm_in_modulation"}
    model.backbone = ConfigDict(type="FocalNet", **{renamed.get(k, k): v for k, v in backbone.items()})
    model.num_queries = kwargs["num_queries"]
    model.neck.in_channels = [backbone["embed_dim"] * 2**i for i in backbone["out_indices"]]
    model.neck.update(out_channels=width, norm_cfg={"type": "GN", "num_groups": kwargs["neck_groups"]})
    for part in ("encoder", "decoder"):
        model[part].num_layers = kwargs[f"{part[:3]}_layers"]
        layer = model[part].layer_cfg
        for attention in {"self_attn_cfg", "cross_attn_cfg"} & layer.keys():
            layer[attention].update(embed_dims=width, num_heads=kwargs["nheads"])
        layer.ffn_cfg.update(embed_dims=width, feedforward_channels=kwargs["dim_feedforward"])
    model.positional_encoding.num_feats = width // 2
    model.bbox_head.update(embed_dims=width, num_classes=classes or kwargs["num_classes"])
    return model


def build_small(golden: dict[str, Any], classes: int | None = None) -> nn.Module:
    """A detector by `small_config`, with random weights."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MODELS.build(small_config(golden, classes))
    # mmdetection leaves it as memory happens to be until `init_weights`, which would overwrite the rest too.
    nn.init.normal_(detector.level_embed)
    return detector


@contextmanager
def encodings_of_width(width: int) -> Iterator[None]:
    """Let mmdetection's decoder encode boxes for another width than 256, which its code has written in."""
    with pytest.MonkeyPatch.context() as patch:
        encode = functools.partial(dino_layers.coordinate_to_encoding, num_feats=width // 2)
        patch.setattr(dino_layers, "coordinate_to_encoding", encode)
        yield


def answer(detector: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Logits and boxes of every decoder layer, layers first, and of the chosen proposals."""
    detector = copy.deepcopy(detector).to(image.dtype).eval()
    shape = tuple(image.shape[-2:])
    sample = DetDataSample(metainfo={"batch_input_shape": shape, "img_shape": shape})
    proposals = {}
    pre_decoder = detector.pre_decoder

    def keep(*args: Any, **kwargs: Any) -> tuple[dict, dict]:
        decoder_inputs, head_inputs = pre_decoder(*args, **kwargs)
        proposals["boxes"] = decoder_inputs["reference_points"]
        return decoder_inputs, head_inputs

    detector.pre_decoder = keep
    with torch.no_grad(), encodings_of_width(detector.embed_dims):
        hidden = detector.forward_transformer(detector.extract_feat(image), [sample])
        logits, boxes = detector.bbox_head(**hidden)
    return {"all_logits": logits, "all_boxes": boxes, "enc_boxes": proposals["boxes"]}
