"""The classification model against the reference release."""

from __future__ import annotations

import pytest
import torch

from focalnet_backbone import FocalNetConfig
from focalnet_backbone.models import FocalNetForImageClassification, FocalNetModel
from tests.conftest import knobs_from_reference, load_golden

GOLDEN = ("srf", "lrf", "large", "large_fl4", "huge", "isotropic")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
@pytest.mark.parametrize("name", GOLDEN)
def test_release_checkpoint_loads_strictly_and_answers_as_the_release(name, dtype, tolerance):
    golden = load_golden(f"classification_{name}")
    model = FocalNetForImageClassification(FocalNetConfig(**knobs_from_reference(golden["kwargs"])))
    model.load_state_dict(golden["state_dict"], strict=True)
    model.to(dtype).eval()
    images = golden["input"].to(dtype)
    with torch.no_grad():
        logits = model(images).logits
        encoder = FocalNetModel.forward(model, images)
    for answer, expected in (
        (encoder.last_hidden_state, golden["tokens"]),
        (encoder.pooler_output, golden["pooled"]),
        (logits, golden["logits"]),
    ):
        torch.testing.assert_close(answer.double(), expected, atol=tolerance, rtol=tolerance)
