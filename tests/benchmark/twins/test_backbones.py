"""The backbones of the twins that no host has."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from focalnet_backbone.analysis import count
from focalnet_backbone.benchmark.twins.convnext import ConvNeXt
from focalnet_backbone.benchmark.twins.detectron2 import PaddedSimpleFeaturePyramid, PyramidBackbone
from focalnet_backbone.benchmark.twins.focal_transformer import FocalSelfAttention, FocalTransformer

PUBLISHED = {"tiny": 28.9, "small": 51.1, "base": 89.8}
"""Millions of parameters in the table of Focal Transformer's release, of the classifier without convolutional stems."""


@pytest.mark.parametrize("size", PUBLISHED)
def test_focal_transformers_have_the_published_parameters(size):
    with torch.device("meta"):
        model = FocalTransformer(size)
    parameters = sum(p.numel() for p in model.parameters()) + nn.Linear(model.channels[-1], 1000).weight.numel() + 1000
    assert parameters / 1e6 == pytest.approx(PUBLISHED[size], abs=0.05)


def test_a_focal_transformer_has_the_published_multiply_accumulates():
    _, macs = count(FocalTransformer("tiny"), torch.zeros(1, 3, 224, 224))
    assert macs / 1e9 == pytest.approx(4.9, abs=0.1)


@pytest.mark.parametrize(("expansion", "focal_window", "size"), [(3, 3, (14, 14)), (3, 5, (10, 17)), (0, 1, (7, 7))])
def test_focal_self_attention_is_that_of_each_token_to_near_tokens_and_far_windows(expansion, focal_window, size):
    """Against sums over pairs of places, written out for one token after another."""
    torch.manual_seed(0)
    attention = FocalSelfAttention(8, 2, expansion, focal_window).double()
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    height, width = size
    rows, columns = -(-height // 7), -(-width // 7)
    x = torch.zeros(1, rows * 7, columns * 7, 8, dtype=torch.double)
    x[:, :height, :width] = torch.randn(1, height, width, 8, dtype=torch.double)
    present = torch.zeros(1, 1, rows * 7, columns * 7, dtype=torch.double)
    present[:, :, :height, :width] = 1

    found = attention(x, present)[0]

    windows = {(r, c): x[0, 7 * r : 7 * r + 7, 7 * c : 7 * c + 7] for r in range(rows) for c in range(columns)}
    weight, bias = attention.pool.weight[0].view(7, 7, 1), attention.pool.bias
    summaries = {place: (window * weight).sum((0, 1)) + bias for place, window in windows.items()}
    for y, column in [(0, 0), (6, 3), (height - 1, width - 1)]:
        expected = _attend(attention, x[0], summaries, (y, column), (height, width))
        torch.testing.assert_close(found[y, column], expected, rtol=0, atol=1e-9)


def _attend(attention: FocalSelfAttention, x, summaries, place, size):
    (y, c), heads = place, attention.num_heads
    top, left = y // 7 * 7, c // 7 * 7
    reach, half = attention.expansion, attention.focal_window // 2
    keys = [(x[top + i, left + j], ("own", (y % 7 - i, c % 7 - j))) for i in range(7) for j in range(7)]
    around = 0
    for dy in (reach, -reach) if reach else ():
        for dx in (reach, -reach):
            for i in range(top + dy, top + dy + 7):
                for j in range(left + dx, left + dx + 7):
                    if not (top <= i < top + 7 and left <= j < left + 7):
                        if 0 <= i < size[0] and 0 <= j < size[1]:
                            keys.append((x[i, j], ("around", around)))
                        around += 1
    for i in range(attention.focal_window):
        for j in range(attention.focal_window):
            window = (y // 7 + i - half, c // 7 + j - half)
            if window in summaries:
                keys.append((summaries[window], ("far", (y % 7 - i, c % 7 - j))))
    keys = [key for key in keys if key[1][0] != "own" or (key[0] != 0).any()]

    def bias(kind, offset):
        if kind == "around":
            return attention.relative_position_bias_table_around[:, y % 7 * 7 + c % 7, offset]
        table, shift = (
            (attention.relative_position_bias_table, 6)
            if kind == "own"
            else (attention.relative_position_bias_table_far, attention.focal_window - 1)
        )
        return table[:, (offset[0] + shift) * (7 + shift) + offset[1] + shift]

    query = attention.qkv(x[y, c])[:8].view(heads, -1) / (8 / heads) ** 0.5
    projected = torch.stack([attention.qkv(token) for token, _ in keys])
    scores = torch.einsum("hd,khd->hk", query, projected[:, 8:16].view(len(keys), heads, -1))
    scores = scores + torch.stack([bias(*where) for _, where in keys], dim=1)
    values = projected[:, 16:].view(len(keys), heads, -1)
    return attention.proj(torch.einsum("hk,khd->hd", scores.softmax(1), values).flatten())


def test_a_focal_transformer_takes_images_of_any_size_and_trains():
    model = FocalTransformer(None, 0.5, embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8)).train()
    maps = model(torch.randn(2, 3, 75, 130))
    assert [tuple(m.shape) for m in maps] == [(2, 8, 19, 33), (2, 16, 10, 17), (2, 32, 5, 9), (2, 64, 3, 5)]
    sum(m.square().sum() for m in maps).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_convnext_is_torchvisions_with_a_norm_on_each_map():
    model = ConvNeXt("tiny", drop_path_rate=0.4).eval()
    theirs = torchvision.models.convnext_tiny().eval()
    assert model.state_dict().keys() >= {name for name in theirs.state_dict() if name.startswith("features.")}
    model.features.load_state_dict(theirs.features.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps, last = model(x), theirs.features(x)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 64 // s, 64 // s) for c, s in zip(model.channels, model.strides, strict=True)
    ]
    torch.testing.assert_close(maps[-1], model.norms[-1](last))
    assert model.features[-1][-1].stochastic_depth.p == 0.4


def test_a_pyramid_in_detectron2_names_its_maps():
    network = FocalTransformer(None, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
    backbone = PyramidBackbone(network)
    maps = backbone(torch.randn(1, 3, 64, 64))
    for name, shape in backbone.output_shape().items():
        assert maps[name].shape == (1, shape.channels, 64 // shape.stride, 64 // shape.stride)


def test_a_simple_feature_pyramid_asks_for_padding():
    from detectron2.modeling import ViT

    net = ViT(img_size=64, embed_dim=16, depth=1, num_heads=2, out_feature="last_feat")
    pyramid = PaddedSimpleFeaturePyramid(net, "last_feat", 8, (4.0, 2.0, 1.0, 0.5))
    assert pyramid.size_divisibility == 32
    maps = pyramid(torch.randn(1, 3, 64, 96))
    assert {name: tuple(m.shape[2:]) for name, m in maps.items()} == {
        "p2": (16, 24),
        "p3": (8, 12),
        "p4": (4, 6),
        "p5": (2, 3),
    }
