"""The operators that stand in for detectron2's compiled ones, against shapely, torchvision and plain convolution."""

from __future__ import annotations

import sys
import types

import focalnet_backbone.detectron2  # noqa: F401  # isort: skip  (provides detectron2._C)
import pytest
import torch
import torch.nn.functional as F
import torchvision
from detectron2 import _C
from detectron2.evaluation import coco_evaluation, fast_eval_api
from detectron2.layers import DeformConv, ModulatedDeformConv, ROIAlignRotated, nms_rotated
from detectron2.layers.rotated_boxes import pairwise_iou_rotated
from detectron2.modeling.backbone.resnet import DeformBottleneckBlock
from detectron2.utils.collect_env import collect_env_info
from pycocotools.cocoeval import COCOeval
from shapely import Polygon, affinity, box
from torch.autograd import gradcheck

from focalnet_backbone.detectron2.compat import provide_operators


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def random_boxes(count: int) -> torch.Tensor:
    return torch.rand(count, 5) * torch.tensor([40, 40, 30, 12, 720]) + torch.tensor([0, 0, 1, 1, -360])


def outline(rotated: torch.Tensor) -> Polygon:
    x, y, width, height, angle = rotated.double().tolist()
    # shapely's y points up, detectron2's down.
    return affinity.rotate(box(x - width / 2, y - height / 2, x + width / 2, y + height / 2), -angle)


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    first, second = outline(a), outline(b)
    return first.intersection(second).area / first.union(second).area


def test_the_iou_of_rotated_boxes_is_that_of_their_outlines():
    a, b = random_boxes(40), random_boxes(30)
    expected = torch.tensor([[iou(first, second) for second in b] for first in a])
    assert (expected > 0.05).sum() > 50
    torch.testing.assert_close(pairwise_iou_rotated(a, b), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([5, 3, 4, 2, -90], [5, 3, 4, 2, 90], 1.0),
        ([0, 0, 4, 4, 0], [0, 0, 4, 4, 45], 0.5**0.5),  # As the octagon that they share says.
        ([0, 0, 4, 2, 0], [4, 0, 4, 2, 0], 0.0),
        ([0, 0, 4, 2, 0], [1, 0, 2, 2, 0], 0.5),
        ([90000, 90000, 4, 2, 30], [90000, 90000, 2, 2, 30], 0.5),
        ([0, 0, 0, 0, 0], [0, 0, 0, 0, 0], 0.0),
        ([0, 0, 100, 1e-3, 10], [0, 0, 100, 1e-3, 10], 1.0),
    ],
)
def test_the_iou_of_boxes_that_share_sides_corners_or_nothing(a, b, expected):
    found = pairwise_iou_rotated(torch.tensor([a]).float(), torch.tensor([b]).float())
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_rotated_nms_keeps_what_the_greedy_rule_keeps():
    boxes, scores = random_boxes(60), torch.rand(60)
    expected = []
    for i in scores.argsort(descending=True).tolist():
        if all(iou(boxes[i], boxes[j]) <= 0.2 for j in expected):
            expected.append(i)
    assert nms_rotated(boxes, scores, 0.2).tolist() == expected
    assert _C.nms_rotated(boxes, scores, 0.2).tolist() == expected
    assert 10 < len(expected) < 60


def test_no_boxes_are_no_error():
    none = torch.zeros(0, 5)
    assert nms_rotated(none, torch.zeros(0), 0.5).shape == (0,)
    assert pairwise_iou_rotated(none, random_boxes(3)).shape == (0, 3)
    assert pairwise_iou_rotated(random_boxes(3), none).shape == (3, 0)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_rotated_roi_align_at_no_angle_is_torchvisions(sampling_ratio):
    features = torch.rand(2, 3, 9, 11)
    corners = torch.tensor([[0, 1.3, 2.1, 14.9, 11.2], [1, -3.0, 4.4, 7.5, 30.0]])
    expected = torchvision.ops.roi_align(features, corners, (3, 2), 0.5, sampling_ratio, aligned=True)
    center, size = (corners[:, 1:3] + corners[:, 3:]) / 2, corners[:, 3:] - corners[:, 1:3]
    rois = torch.cat([corners[:, :1], center, size, torch.zeros(2, 1)], 1)
    torch.testing.assert_close(ROIAlignRotated((3, 2), 0.5, sampling_ratio)(features, rois), expected)


def test_rotated_roi_align_turns_with_the_image():
    features = torch.rand(1, 2, 12, 12)
    upright = ROIAlignRotated((4, 3), 1.0, 2)(features, torch.tensor([[0, 5, 6.5, 6, 8, 0.0]]))
    # Counter-clockwise by 90 degrees, (x, y) goes to (y, 12 - x), and the region with it.
    turned = ROIAlignRotated((4, 3), 1.0, 2)(features.rot90(1, (2, 3)), torch.tensor([[0, 6.5, 7, 6, 8, 90.0]]))
    torch.testing.assert_close(turned, upright)


def test_rotated_roi_align_has_its_gradient():
    features = torch.rand(1, 2, 6, 7, dtype=torch.double, requires_grad=True)
    rois = torch.tensor([[0, 3.1, 3.2, 5.3, 4.1, 33.0]], dtype=torch.double)
    assert gradcheck(lambda x: ROIAlignRotated((2, 2), 1.0, 0)(x, rois), features)


def test_deformable_convolution_with_offsets_of_whole_pixels_is_a_shifted_convolution():
    layer = DeformConv(4, 6, 3, padding=1, groups=2, deformable_groups=2)
    x = torch.rand(2, 4, 8, 9, requires_grad=True)
    offset = torch.zeros(2, 36, 8, 9)
    offset[:, 1::2] = 2.0  # Two pixels to the right.
    expected = F.conv2d(F.pad(x, (1, 3, 1, 1))[..., 2:], layer.weight, groups=2)
    result = layer(x, offset)
    torch.testing.assert_close(result, expected)
    assert torch.autograd.grad(result.sum(), layer.weight)[0].abs().sum() > 0


def test_modulated_deformable_convolution_weighs_its_samples():
    layer = ModulatedDeformConv(4, 6, 3, padding=1)
    torch.nn.init.normal_(layer.bias)
    x = torch.rand(2, 4, 8, 9)
    result = layer(x, torch.zeros(2, 18, 8, 9), torch.full((2, 9, 8, 9), 0.5))
    torch.testing.assert_close(result, F.conv2d(x, layer.weight / 2, layer.bias, padding=1))


def test_detectron2s_deformable_blocks_train():
    block = DeformBottleneckBlock(4, 4, bottleneck_channels=4, norm="", deform_modulated=True)
    block(torch.rand(1, 4, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in block.parameters())


def test_the_fast_evaluation_is_pycocotools():
    assert fast_eval_api.COCOeval_opt is COCOeval
    assert coco_evaluation.COCOeval_opt is COCOeval


def test_another_operator_says_its_name_and_how_to_get_it():
    with pytest.raises(NotImplementedError, match=r"'deform_conv_forward' .* pip install"):
        _C.deform_conv_forward(torch.zeros(1))
    assert not hasattr(_C, "__nothing__")


def test_detectron2_s_report_of_the_environment_still_works():
    assert "focalnet_backbone" in collect_env_info()


def test_a_compiled_detectron2_stays_as_it_is(monkeypatch):
    compiled = types.ModuleType("detectron2._C")
    monkeypatch.setitem(sys.modules, "detectron2._C", compiled)
    layer = DeformConv
    provide_operators()
    assert sys.modules["detectron2._C"] is compiled
    assert sys.modules["detectron2.layers"].DeformConv is layer


def test_a_compiled_part_that_cannot_be_loaded_is_replaced_with_a_word(monkeypatch, tmp_path):
    (tmp_path / "_C.py").write_text("raise ImportError('undefined symbol: of an older torch')")
    detectron2 = sys.modules["detectron2"]
    monkeypatch.delitem(sys.modules, "detectron2._C")
    monkeypatch.setattr(detectron2, "__path__", [str(tmp_path), *detectron2.__path__])
    with pytest.warns(UserWarning, match="cannot be loaded.*undefined symbol"):
        provide_operators()
    assert detectron2._C.nms_rotated is _C.nms_rotated
