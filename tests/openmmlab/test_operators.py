"""The operators that stand in for mmcv's compiled ones, against torchvision, PyTorch formulas and gradcheck."""

from __future__ import annotations

import importlib.util
import math
import sys

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmcv.ops be imported)
import mmcv
import mmcv.ops
import pytest
import torch
import torch.nn.functional as F
import torchvision
from mmcv.ops.focal_loss import SigmoidFocalLoss
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
from torch.autograd import gradcheck


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def random_boxes(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 60
    size = torch.rand(count, 2, generator=generator) * 40 + 1
    return torch.cat([corner, corner + size], 1), torch.rand(count, generator=generator)


def iou(a: list[float], b: list[float], offset: int) -> float:
    """Overlap of two boxes, written out."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(x2 - x1 + offset) * (y2 - y1 + offset) for x1, y1, x2, y2 in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_keeps_the_boxes_that_the_greedy_rule_keeps(offset):
    boxes, scores = random_boxes(60)
    expected = []
    for i in scores.argsort(descending=True).tolist():
        if all(iou(boxes[i].tolist(), boxes[j].tolist(), offset) <= 0.4 for j in expected):
            expected.append(i)

    dets, kept = mmcv.ops.nms(boxes, scores, 0.4, offset=offset)

    assert kept.tolist() == expected
    torch.testing.assert_close(dets, torch.cat([boxes[kept], scores[kept, None]], 1))


def suppress(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return mmcv.ops.nms(boxes, scores, 0.5)[0]


def suppress_softly(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return mmcv.ops.soft_nms(boxes, scores, 0.3, method="naive")[0]


def align(features: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
    return mmcv.ops.roi_align(features, rois, (3, 2), 0.5, 0, "avg", True)


def attend(value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    shapes, starts = torch.tensor([[4, 5], [2, 3]]), torch.tensor([0, 20])
    return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)


def focal_loss(logits: torch.Tensor) -> torch.Tensor:
    return mmcv.ops.sigmoid_focal_loss(logits, torch.arange(len(logits)) % 5, 2.0, 0.25, None, "none")


INPUTS = {
    suppress: random_boxes(20),
    suppress_softly: random_boxes(20),
    align: (torch.rand(2, 3, 9, 11), torch.tensor([[0.0, 1, 2, 14, 11], [1, 0, 4, 7, 17]])),
    attend: (torch.rand(2, 26, 2, 3), torch.rand(2, 5, 2, 2, 3, 2), torch.rand(2, 5, 2, 2, 3)),
    focal_loss: (torch.rand(6, 4) * 8 - 4,),
}
DIFFERENTIABLE = (align, attend, focal_loss)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("operator", INPUTS, ids=lambda operator: operator.__name__)
def test_half_precision_gives_the_results_of_full_precision_rounded(operator, dtype, autocast):
    half = [tensor.to(dtype).requires_grad_() for tensor in INPUTS[operator]]
    full = [tensor.detach().float().requires_grad_() for tensor in half]

    with torch.autocast("cpu", dtype, enabled=autocast):
        result = operator(*half)
    expected = operator(*full)

    assert result.dtype == dtype
    torch.testing.assert_close(result, expected.to(dtype))
    if operator in DIFFERENTIABLE:
        expected.sum().backward()
        result.sum().backward()
        torch.testing.assert_close(half[0].grad, full[0].grad.to(dtype))


@pytest.mark.parametrize(
    ("operator", "inputs", "shape"),
    [
        (suppress, [(0, 4), (0,)], (0, 5)),
        (suppress_softly, [(0, 4), (0,)], (0, 5)),
        (align, [(2, 3, 9, 11), (0, 5)], (0, 3, 3, 2)),
        (attend, [(2, 26, 2, 3), (2, 0, 2, 2, 3, 2), (2, 0, 2, 2, 3)], (2, 0, 6)),
        (focal_loss, [(0, 4)], (0, 4)),
    ],
)
def test_nothing_in_gives_nothing_out_and_no_gradient(operator, inputs, shape):
    inputs = [torch.rand(size, requires_grad=operator in DIFFERENTIABLE) for size in inputs]
    result = operator(*inputs)
    assert result.shape == shape
    if operator in DIFFERENTIABLE:
        result.sum().backward()
        assert not inputs[0].grad.any()


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_decays_the_scores_of_overlapping_boxes(method, offset):
    boxes, scores = random_boxes(40)
    left = dict(enumerate(scores.tolist()))
    expected = []
    while left:
        best = max(left, key=left.get)
        expected.append((best, left.pop(best)))
        for i in list(left):
            overlap = iou(boxes[best].tolist(), boxes[i].tolist(), offset)
            if method == "gaussian":
                left[i] *= math.exp(-(overlap**2) / 0.5)
            elif overlap >= 0.3:
                left[i] *= 0 if method == "naive" else 1 - overlap
            if left[i] < 0.05:
                del left[i]

    dets, kept = mmcv.ops.soft_nms(boxes, scores, 0.3, sigma=0.5, min_score=0.05, method=method, offset=offset)

    assert kept.tolist() == [i for i, _ in expected]
    torch.testing.assert_close(dets[:, :4], boxes[kept])
    torch.testing.assert_close(dets[:, 4], torch.tensor([score for _, score in expected]))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_agrees_with_torchvision_and_has_its_gradient(aligned, sampling_ratio):
    features = torch.randn(2, 3, 9, 11, dtype=torch.double, requires_grad=True)
    rois = torch.tensor([[0, 1.3, 2.1, 14.9, 11.2], [1, 0.0, 4.4, 7.5, 17.0]], dtype=torch.double)

    expected = torchvision.ops.roi_align(features, rois, (3, 2), 0.5, sampling_ratio, aligned)
    ours = mmcv.ops.RoIAlign((3, 2), 0.5, sampling_ratio, "avg", aligned)
    torch.testing.assert_close(ours(features, rois), expected)
    assert gradcheck(lambda x: ours(x, rois), features)


def test_roi_align_with_max_pooling_is_an_error():
    with pytest.raises(NotImplementedError, match="pool_mode='max'"):
        mmcv.ops.roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2, 1.0, 0, "max", True)


def test_deformable_attention_agrees_with_its_formula_and_has_its_gradient():
    value = torch.randn(2, 26, 2, 3, dtype=torch.double, requires_grad=True)
    # Off the grid's lines, where bilinear sampling has a kink; some points outside the map.
    locations = (torch.rand(2, 5, 2, 2, 3, 2, dtype=torch.double) * 1.2 - 0.1).requires_grad_()
    weights = torch.rand(2, 5, 2, 2, 3, dtype=torch.double, requires_grad=True)

    expected = multi_scale_deformable_attn_pytorch(value, [[4, 5], [2, 3]], locations, weights)
    torch.testing.assert_close(attend(value, locations, weights), expected)
    assert gradcheck(attend, (value, locations, weights))


@pytest.mark.parametrize("gamma", [0.0, 0.7, 2.0])
def test_sigmoid_focal_loss_agrees_with_torchvision_and_has_its_gradient(gamma):
    logits = (torch.randn(6, 4, dtype=torch.double) * 4).requires_grad_()
    target = torch.tensor([0, 3, 4, 1, 4, 2])  # 4 is background.

    one_hot = F.one_hot(target, 5)[:, :4].double()
    expected = torchvision.ops.sigmoid_focal_loss(logits, one_hot, alpha=0.25, gamma=gamma, reduction="mean") * 4
    loss = SigmoidFocalLoss(gamma, 0.25)
    torch.testing.assert_close(loss(logits, target), expected)
    assert gradcheck(lambda x: loss(x, target), logits)


def test_sigmoid_focal_loss_weighs_rows_by_the_class_of_their_target():
    logits, target = torch.randn(4, 3), torch.tensor([0, 2, 3, 1])
    weight = torch.tensor([2.0, 3.0, 5.0])
    plain = mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, "none")
    weighted = mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, "none")
    torch.testing.assert_close(weighted, plain * torch.tensor([2.0, 5.0, 1.0, 3.0])[:, None])


def test_sigmoid_focal_loss_is_finite_for_extreme_logits():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = mmcv.ops.sigmoid_focal_loss(logits, torch.tensor([0, 0]), 2.0, 0.25, None, "sum")
    loss.backward()
    # The second row is wrong by 200 in both classes.
    torch.testing.assert_close(loss.detach(), torch.tensor(200 * 0.25 + 200 * 0.75))
    assert torch.isfinite(logits.grad).all()


def test_another_operator_says_its_name_and_how_to_get_it():
    with pytest.raises(NotImplementedError, match=r"'deform_conv_forward' .* mim install"):
        mmcv.ops.deform_conv2d(
            torch.zeros(1, 1, 4, 4), torch.zeros(1, 18, 2, 2), torch.zeros(1, 1, 3, 3), 1, 0, 1, 1, 1
        )


def test_mmcv_s_report_of_the_environment_still_works():
    assert "focalnet_backbone" in mmcv.utils.collect_env()["MMCV Compiler"]


def test_a_compiled_mmcv_is_found_first(monkeypatch, tmp_path):
    compiled = tmp_path / "_ext.py"
    compiled.touch()
    monkeypatch.delitem(sys.modules, "mmcv._ext")
    assert importlib.util.find_spec("mmcv._ext").origin.endswith("operators.py")

    monkeypatch.setattr(mmcv, "__path__", [*mmcv.__path__, str(tmp_path)])
    assert importlib.util.find_spec("mmcv._ext").origin == str(compiled)
