"""What the models say to inputs that they cannot take."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from focalnet_backbone.models import FocalNetForImageClassification, FocalNetForMaskedImageModeling, FocalNetModel
from tests.models.conftest import make_config


def test_a_config_of_another_library_is_refused():
    with pytest.raises(TypeError, match=r"focalnet_backbone\.FocalNetConfig"):
        FocalNetModel(transformers.FocalNetConfig())


@pytest.mark.parametrize(
    ("problem_type", "labels", "message"),
    [
        (None, torch.tensor([0, 1, 2]), r"labels must be \(2,\) for single_label_classification, got \(3,\)"),
        (None, torch.ones(2, 4), r"labels must be \(2, 3\) for multi_label_classification, got \(2, 4\)"),
        ("multi_label_classification", torch.ones(2, 3, dtype=torch.long), "labels must be float"),
        ("single_label_classification", torch.ones(2), "labels must be class indices"),
        ("regression", torch.ones(2), r"labels must be \(2, 3\) for regression"),
    ],
)
def test_labels_that_do_not_fit_are_named(problem_type, labels, message, images):
    model = FocalNetForImageClassification(make_config(num_labels=3, problem_type=problem_type))
    with pytest.raises(ValueError, match=message):
        model(images, labels=labels)


def test_labels_and_masks_are_tensors(images):
    with pytest.raises(TypeError, match="labels must be a tensor, got list"):
        FocalNetForImageClassification(make_config())(images, labels=[0, 1])
    with pytest.raises(TypeError, match="bool_masked_pos must be a tensor, got ndarray"):
        FocalNetForMaskedImageModeling(make_config())(images, np.zeros((2, 64)))


def test_a_loss_without_a_head_is_refused(images):
    with pytest.raises(ValueError, match="num_labels is 0"):
        FocalNetForImageClassification(make_config(num_labels=0))(images, labels=torch.tensor([0, 1]))


def test_integer_targets_can_be_regressed(images):
    model = FocalNetForImageClassification(make_config(num_labels=1))
    model(images, labels=torch.tensor([1, 2])).loss.backward()


def test_a_mask_without_a_mask_token_is_refused(images, mask):
    with pytest.raises(ValueError, match="use_mask_token=True"):
        FocalNetModel(make_config())(images, bool_masked_pos=mask)


def test_a_mask_of_another_grid_is_refused_with_the_right_shape(images, mask):
    with pytest.raises(ValueError, match=r"bool_masked_pos must be \(N, L\) = \(2, 64\).*8 x 8.*got \(2, 63\)"):
        FocalNetForMaskedImageModeling(make_config())(images, bool_masked_pos=mask[:, 1:])


@pytest.mark.parametrize(("size", "stride"), [((36, 32), 32), ((32, 32), 16)])
def test_a_reconstruction_of_another_size_than_the_image_is_refused(size, stride):
    model = FocalNetForMaskedImageModeling(make_config(encoder_stride=stride))
    patches = size[0] // 4 * size[1] // 4
    with pytest.raises(ValueError, match="multiples of encoder_stride"):
        model(torch.zeros(1, 3, *size), bool_masked_pos=torch.ones(1, patches, dtype=torch.bool))


def test_a_masked_image_may_be_wider_than_high_and_only_its_masked_pixels_count():
    model = FocalNetForMaskedImageModeling(make_config()).eval()
    images = torch.randn(1, 3, 32, 96, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 8 * 24, dtype=torch.bool)
    mask[0, [1, 30]] = True
    output = model(images, bool_masked_pos=mask)
    # Patch 1 is the second of the first row of 24, patch 30 the seventh of the second.
    error = (output.reconstruction - images).abs()
    expected = torch.stack([error[0, :, :4, 4:8], error[0, :, 4:8, 24:28]]).mean()
    torch.testing.assert_close(output.loss, expected, atol=1e-5, rtol=1e-5)


def test_masked_pixels_do_not_reach_the_network(images, mask):
    model = FocalNetForMaskedImageModeling(make_config()).eval()
    hidden = mask.view(2, 1, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    changed = torch.where(hidden, torch.full_like(images, 9.0), images)
    first, second = (model(x, bool_masked_pos=mask).reconstruction for x in (images, changed))
    torch.testing.assert_close(first, second)


def test_an_empty_mask_has_no_loss(images, mask):
    output = FocalNetForMaskedImageModeling(make_config())(images, bool_masked_pos=torch.zeros_like(mask))
    assert output.loss.item() == 0


def test_recomputed_activations_give_the_same_gradients(images, mask):
    gradients = []
    for use_checkpoint in (False, True):
        torch.manual_seed(0)
        model = FocalNetForMaskedImageModeling(make_config(), use_checkpoint=use_checkpoint)
        model(images, bool_masked_pos=mask).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(*gradients)
