"""How results are read."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch

from focalnet_backbone.models import FocalNetForImageClassification, FocalNetModel
from focalnet_backbone.models.outputs import FocalNetImageClassifierOutput, FocalNetMaskedImageModelingOutput
from tests.models.conftest import make_config


@pytest.fixture
def output():
    return FocalNetImageClassifierOutput(logits=torch.ones(2, 3), hidden_states=(torch.zeros(1),))


def test_fields_are_read_as_attributes_by_key_and_by_position(output):
    assert output.logits is output["logits"] is output[0] is output[:1][0] is output.get("logits")
    assert output[-1] is output.hidden_states


def test_fields_that_are_none_are_attributes_only(output):
    assert output.loss is None
    assert "loss" not in output
    assert list(output) == list(output.keys()) == ["logits", "hidden_states"]
    assert len(output) == len(output.to_tuple()) == 2


def test_an_unknown_key_is_answered_with_the_keys_there_are(output):
    with pytest.raises(KeyError, match=r"'loss'.*logits"):
        output["loss"]
    with pytest.raises(IndexError):
        output[2]


def test_outputs_unpack_as_keyword_arguments_copy_and_pickle(output):
    assert dict(**output).keys() == {"logits", "hidden_states"}
    for twin in (copy.deepcopy(output), pickle.loads(pickle.dumps(output))):
        torch.testing.assert_close(twin.logits, output.logits)
    assert dataclasses.is_dataclass(output)


def test_a_reconstruction_is_also_found_as_logits():
    output = FocalNetMaskedImageModelingOutput(reconstruction=torch.ones(1))
    assert output.logits is output.reconstruction
    assert list(output) == ["reconstruction"]


def test_hidden_states_are_the_stem_and_what_each_stage_hands_on(images):
    model = FocalNetModel(make_config()).eval()
    output = model(images, output_hidden_states=True)
    assert [tuple(x.shape) for x in output.reshaped_hidden_states] == [
        (2, 8, 8, 8),
        (2, 16, 4, 4),
        (2, 32, 2, 2),
        (2, 64, 1, 1),
        (2, 64, 1, 1),
    ]
    for tokens, feature_map in zip(output.hidden_states, output.reshaped_hidden_states, strict=True):
        torch.testing.assert_close(tokens, feature_map.flatten(2).transpose(1, 2))
    torch.testing.assert_close(model.norm(output.hidden_states[-1]), output.last_hidden_state)


def test_no_labels_means_the_pooled_tokens_are_the_logits(images):
    model = FocalNetForImageClassification(make_config(num_labels=0)).eval()
    torch.testing.assert_close(model(images).logits, FocalNetModel.forward(model, images).pooler_output)
