"""mmsegmentation's cross entropy with class weights, ignored pixels and sigmoids."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmseg.models import losses

from focalnet_backbone.openmmlab.losses import mend_cross_entropy
from tests.openmmlab.conftest import SAMPLE_CONFIG

WEIGHTS = [1.5, 0.5, 2.0]


@pytest.fixture
def scores_and_labels():
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (2, 6, 5))
    labels[:, :2] = 255
    return torch.randn(2, 3, 6, 5, requires_grad=True), labels


@pytest.mark.parametrize("avg_non_ignore", [False, True])
def test_class_weights_leave_ignored_pixels_out_as_pytorch_does(scores_and_labels, avg_non_ignore):
    mend_cross_entropy()
    scores, labels = scores_and_labels
    loss = losses.CrossEntropyLoss(class_weight=WEIGHTS, avg_non_ignore=avg_non_ignore)
    expected = F.cross_entropy(scores, labels, torch.tensor(WEIGHTS), ignore_index=255)
    torch.testing.assert_close(loss(scores, labels, ignore_index=255), expected)


def test_without_class_weights_the_loss_is_as_it_was(scores_and_labels):
    mend_cross_entropy()
    scores, labels = scores_and_labels
    total = F.cross_entropy(scores, labels, ignore_index=255, reduction="sum")
    for avg_non_ignore, count in ((False, labels.numel()), (True, (labels != 255).sum())):
        loss = losses.CrossEntropyLoss(avg_non_ignore=avg_non_ignore)
        torch.testing.assert_close(loss(scores, labels, ignore_index=255), total / count)


def test_an_image_without_a_labelled_pixel_costs_nothing(scores_and_labels):
    mend_cross_entropy()
    scores, labels = scores_and_labels
    loss = losses.CrossEntropyLoss(class_weight=WEIGHTS)(scores, torch.full_like(labels, 255), ignore_index=255)
    loss.backward()
    assert loss == 0
    assert scores.grad.abs().sum() == 0


def test_weights_of_a_sigmoid_are_those_of_its_classes(scores_and_labels):
    mend_cross_entropy()
    scores, labels = scores_and_labels
    loss = losses.CrossEntropyLoss(use_sigmoid=True, class_weight=WEIGHTS, avg_non_ignore=True)
    kept = labels != 255
    targets = F.one_hot(labels.masked_fill(~kept, 0), 3)[kept].float()
    expected = F.binary_cross_entropy_with_logits(
        scores.movedim(1, -1)[kept], targets, pos_weight=torch.tensor(WEIGHTS), reduction="mean"
    )
    torch.testing.assert_close(loss(scores, labels, ignore_index=255), expected)


def test_the_sample_configs_head_takes_a_label_with_ignored_pixels(scores_and_labels):
    from mmengine.config import Config
    from mmseg.registry import MODELS

    head = Config.fromfile(SAMPLE_CONFIG).model.decode_head
    MODELS.build({"type": "FocalNet", "embed_dim": 4, "depths": [1]})
    loss = MODELS.build(head.loss_decode)
    scores, labels = torch.randn(1, 8, 4, 4), torch.full((1, 4, 4), 255)
    labels[0, 0] = torch.tensor([0, 3, 7, 5])
    expected = F.cross_entropy(scores, labels, torch.tensor(head.loss_decode.class_weight), ignore_index=255)
    torch.testing.assert_close(loss(scores, labels, ignore_index=255), expected)
