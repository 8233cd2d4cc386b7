"""The examples of transformers' documentation, as written, imports apart."""

from __future__ import annotations

import pytest
import skimage.data
import torch
from PIL import Image

from focalnet_backbone.models import FocalNetForImageClassification, FocalNetModel
from focalnet_backbone.network.config import FocalNetConfig

IMPORTS = """
from focalnet_backbone import FocalNetConfig
from focalnet_backbone.models import FocalNetForImageClassification, FocalNetForMaskedImageModeling
from focalnet_backbone.models import FocalNetImageProcessor as AutoImageProcessor
from focalnet_backbone.models import FocalNetModel
import torch
"""
MODEL = """
image_processor = AutoImageProcessor.from_pretrained("microsoft/focalnet-tiny")
model = FocalNetModel.from_pretrained("microsoft/focalnet-tiny")

inputs = image_processor(image, return_tensors="pt")

with torch.no_grad():
    outputs = model(**inputs)

last_hidden_states = outputs.last_hidden_state
shape = list(last_hidden_states.shape)
"""
CLASSIFICATION = """
image_processor = AutoImageProcessor.from_pretrained("microsoft/focalnet-tiny")
model = FocalNetForImageClassification.from_pretrained("microsoft/focalnet-tiny")

inputs = image_processor(image, return_tensors="pt")

with torch.no_grad():
    logits = model(**inputs).logits

# model predicts one of the 1000 ImageNet classes
predicted_label = logits.argmax(-1).item()
label = model.config.id2label[predicted_label]
"""
MASKED_MODELING = """
image_processor = AutoImageProcessor.from_pretrained("microsoft/focalnet-tiny")
config = FocalNetConfig()
model = FocalNetForMaskedImageModeling(config)

num_patches = (model.config.image_size // model.config.patch_size) ** 2
pixel_values = image_processor(images=image, return_tensors="pt").pixel_values
# create random boolean mask of shape (batch_size, num_patches)
bool_masked_pos = torch.randint(low=0, high=2, size=(1, num_patches)).bool()

outputs = model(pixel_values, bool_masked_pos=bool_masked_pos)
loss, reconstructed_pixel_values = outputs.loss, outputs.logits
shape = list(reconstructed_pixel_values.shape)
"""


@pytest.fixture
def image():
    return Image.fromarray(skimage.data.chelsea())


def run(example: str, image: Image.Image) -> dict:
    names = {"image": image}
    exec(IMPORTS + example, names)
    return names


def test_the_example_of_the_model_runs(published, image):
    assert run(MODEL, image)["shape"] == [1, 49, 768]


def test_the_example_of_classification_runs_and_gives_what_transformers_gives(published, image):
    theirs, processor = published
    names = run(CLASSIFICATION, image)
    with torch.no_grad():
        expected = theirs(**processor(image, return_tensors="pt")).logits
    torch.testing.assert_close(names["logits"], expected, atol=1e-4, rtol=1e-4)
    assert names["label"] == theirs.config.id2label[expected.argmax(-1).item()]


def test_the_example_of_masked_modeling_runs(published, image):
    assert run(MASKED_MODELING, image)["shape"] == [1, 3, 224, 224]


def test_a_variant_is_loaded_by_name_with_its_class_names(published, image):
    model = FocalNetForImageClassification.from_pretrained("focalnet_tiny_srf")
    torch.testing.assert_close(model.head.weight, published[0].classifier.weight)
    assert model.config.id2label[281] == "tabby"
    assert model.config == FocalNetConfig.from_variant("focalnet_tiny_srf", id2label=model.config.id2label)
    assert FocalNetModel.from_pretrained("focalnet_tiny_srf", drop_path_rate=0.0).config.drop_path_rate == 0
