"""The models against transformers with the same weights: outputs, losses and gradients."""

from __future__ import annotations

import inspect

import pytest
import torch
import transformers

from focalnet_backbone import models
from focalnet_backbone.checkpoints import export_state_dict
from tests.models.conftest import FAMILIES, make_config, make_pair

CLASSES = ("FocalNetModel", "FocalNetForImageClassification", "FocalNetForMaskedImageModeling")
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def compare(ours, theirs, inputs, mode="eval"):
    """Assert equal fields, and equal gradients of the loss, or of the sum of all outputs where there is none."""
    ours, theirs = (model.train(mode == "train") for model in (ours, theirs))
    results = [model(**inputs, output_hidden_states=True) for model in (ours, theirs)]
    assert list(results[0]) == list(results[1])
    for name in results[0]:
        torch.testing.assert_close(
            results[0][name], results[1][name], **TOLERANCE, msg=lambda text, n=name: f"{n}: {text}"
        )
    for result in results:
        loss = result["loss"] if "loss" in result else result.to_tuple()[0].square().mean()
        loss.backward()
    gradients = export_state_dict(
        {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}, "transformers"
    )
    expected = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected.keys()
    torch.testing.assert_close(gradients, expected, **TOLERANCE)


def task_inputs(name, images, mask):
    """Images, with labels or a mask where the class takes them."""
    extra = {"FocalNetForImageClassification": {"labels": torch.tensor([0, 1])}}
    extra["FocalNetForMaskedImageModeling"] = {"bool_masked_pos": mask}
    return {"pixel_values": images, **extra.get(name, {})}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CLASSES)
def test_outputs_loss_and_gradients_are_those_of_transformers(name, family, mode, images, mask):
    compare(*make_pair(name, make_config(family)), task_inputs(name, images, mask), mode)


@pytest.mark.parametrize("name", CLASSES)
def test_greyscale_models_are_those_of_transformers(name, images, mask):
    compare(*make_pair(name, make_config(num_channels=1)), task_inputs(name, images[:, :1], mask))


@pytest.mark.parametrize("name", CLASSES)
def test_isotropic_models_are_those_of_transformers(name, images, mask):
    config = make_config(depths=[2], focal_levels=[3], focal_windows=[3], patch_size=4, encoder_stride=4)
    compare(*make_pair(name, config), task_inputs(name, images, mask))


@pytest.mark.parametrize("size", [(33, 47), (64, 32)])
def test_sizes_that_the_strides_do_not_divide_give_what_transformers_gives(size):
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    compare(*make_pair("FocalNetForImageClassification", make_config()), {"pixel_values": images})


def test_the_model_with_a_mask_token_is_that_of_transformers(images, mask):
    torch.manual_seed(0)
    ours = models.FocalNetModel(make_config(), add_pooling_layer=False, use_mask_token=True).eval()
    config = transformers.FocalNetConfig.from_dict(ours.config.to_dict())
    theirs = transformers.FocalNetModel(config, add_pooling_layer=False, use_mask_token=True).eval()
    state_dict = export_state_dict(ours.state_dict(), "transformers")
    theirs.load_state_dict({name.removeprefix("focalnet."): x for name, x in state_dict.items()})
    result = ours(images, bool_masked_pos=mask)
    assert result.pooler_output is None
    expected = theirs(images, bool_masked_pos=mask).last_hidden_state
    torch.testing.assert_close(result.last_hidden_state, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("knobs", "labels"),
    [
        ({"num_labels": 3}, torch.tensor([2, 0])),
        ({"num_labels": 3}, torch.tensor([[2], [0]])),
        ({"num_labels": 1}, torch.tensor([0.5, -2.0])),
        ({"num_labels": 1}, torch.tensor([[0.5], [-2.0]])),
        ({"num_labels": 3}, torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.2]])),
        ({"num_labels": 3, "problem_type": "regression"}, torch.randn(2, 3)),
    ],
)
def test_classification_loss_is_that_of_transformers(knobs, labels, images):
    ours, theirs = make_pair("FocalNetForImageClassification", make_config(**knobs))
    compare(ours, theirs, {"pixel_values": images, "labels": labels})


@pytest.mark.parametrize("hidden_states", [False, True])
@pytest.mark.parametrize("with_target", [False, True])
@pytest.mark.parametrize("name", CLASSES)
def test_tuples_are_those_of_transformers(name, with_target, hidden_states, images, mask):
    inputs = task_inputs(name, images, mask) if with_target else {"pixel_values": images}
    ours, theirs = make_pair(name, make_config())
    results = [m.eval()(**inputs, output_hidden_states=hidden_states, return_dict=False) for m in (ours, theirs)]
    assert isinstance(results[0], tuple)
    torch.testing.assert_close(*results, **TOLERANCE)


@pytest.mark.parametrize("name", CLASSES)
def test_the_config_decides_what_a_call_leaves_open(name, images):
    ours, theirs = make_pair(name, make_config(output_hidden_states=True, return_dict=False))
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), **TOLERANCE)


@pytest.mark.parametrize("name", CLASSES)
def test_call_signatures_are_those_of_transformers(name):
    parameters = inspect.signature(getattr(transformers, name).forward).parameters
    expected = [n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD]
    assert list(inspect.signature(getattr(models, name).forward).parameters) == expected
