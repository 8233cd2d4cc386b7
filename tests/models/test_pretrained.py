"""Models from and to folders."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from focalnet_backbone import FocalNetConfig, models
from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.models import FocalNetForImageClassification, FocalNetForMaskedImageModeling, FocalNetModel
from focalnet_backbone.models.pretrained import read_config
from tests.models.conftest import FAMILIES, make_config

CLASSES = ("FocalNetModel", "FocalNetForImageClassification", "FocalNetForMaskedImageModeling")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CLASSES)
def test_transformers_opens_a_saved_folder_and_gives_the_same_outputs(name, family, images, tmp_path):
    model = getattr(models, name)(make_config(family, mlp_ratio=2)).eval()
    model.save_pretrained(tmp_path)
    theirs, info = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    torch.testing.assert_close(model(images).to_tuple(), theirs(images).to_tuple(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_a_folder_of_transformers_is_opened_and_gives_the_same_outputs(name, images, tmp_path):
    config = transformers.FocalNetConfig.from_dict(make_config("large").to_dict())
    theirs = getattr(transformers, name)(config).eval()
    theirs.save_pretrained(tmp_path)
    model = getattr(models, name).from_pretrained(tmp_path)
    assert not model.training
    torch.testing.assert_close(model(images).to_tuple(), theirs(images).to_tuple(), atol=1e-5, rtol=1e-5)


def test_transformers_auto_class_finds_the_model_and_its_labels(tmp_path):
    labels = {0: "cat", 1: "dog", 2: "newt"}
    FocalNetForImageClassification(make_config(id2label=labels)).save_pretrained(tmp_path)
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    assert type(theirs) is transformers.FocalNetForImageClassification
    assert theirs.config.id2label == labels
    assert FocalNetForImageClassification.from_pretrained(tmp_path).config.id2label == labels


def test_a_saved_model_of_half_precision_is_one_for_transformers_too(tmp_path):
    FocalNetModel(make_config()).bfloat16().save_pretrained(tmp_path)
    assert transformers.FocalNetModel.from_pretrained(tmp_path).dtype == torch.bfloat16


def test_a_pipeline_of_transformers_takes_model_and_image_processor():
    config = make_config("srf", num_labels=2).replace(id2label={0: "cat", 1: "dog"})
    model = FocalNetForImageClassification(config).eval()
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    processor = models.FocalNetImageProcessor(size={"height": 64, "width": 64})
    photo = Image.new("RGB", (64, 48), (200, 30, 90))
    answers = transformers.pipeline("image-classification", model=model, image_processor=processor)(photo)
    expected = model(**processor(photo, return_tensors="pt")).logits.softmax(-1)[0].tolist()
    found = {answer["label"]: answer["score"] for answer in answers}
    assert found == pytest.approx({"cat": expected[0], "dog": expected[1]})


def test_overrides_change_the_architecture(tmp_path):
    FocalNetModel(make_config()).save_pretrained(tmp_path)
    model = FocalNetModel.from_pretrained(tmp_path, focal_windows=[9, 9, 9, 9], drop_path_rate=0.3)
    assert model.layers[0].blocks[0].modulation.focal_layers[0][0].kernel_size == (9, 9)
    assert model.config.drop_path_rate == 0.3


def test_a_file_is_loaded_into_the_given_config(images, tmp_path):
    model = FocalNetForImageClassification(make_config()).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    loaded = FocalNetForImageClassification.from_pretrained(tmp_path / "weights.safetensors", config=make_config())
    torch.testing.assert_close(loaded(images).logits, model(images).logits)


def test_a_new_head_needs_to_be_asked_for(tmp_path):
    FocalNetForMaskedImageModeling(make_config()).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="head"):
        FocalNetForImageClassification.from_pretrained(tmp_path, num_labels=5)
    model = FocalNetForImageClassification.from_pretrained(tmp_path, num_labels=5, strict=False)
    assert model.head.weight.shape == (5, 64)


def test_nothing_is_written_for_a_model_that_transformers_has_no_name_for(tmp_path):
    model = FocalNetModel(make_config(hidden_act=torch.tanh))
    with pytest.raises(TypeError, match="hidden_act"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_save_that_fails_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    FocalNetModel(make_config()).save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fill_disk(path, data):
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_disk)
    with pytest.raises(OSError, match="No space"):
        FocalNetModel(make_config("large")).save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_stem_that_transformers_pads_otherwise_is_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        FocalNetModel(make_config("large", conv_embed_stem_padding=3)).save_pretrained(tmp_path)
    assert "conv_embed_stem_padding=3" in caplog.text
    assert FocalNetModel.from_pretrained(tmp_path).config.conv_embed_stem_padding == 3


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("focalnet_tiny_srv", FileNotFoundError, "Did you mean 'focalnet_tiny_srf'"),
        ("no/such/folder", FileNotFoundError, "no/such/folder is no folder, variant or hub id"),
        ("nobody/focalnet", CheckpointError, "nobody/focalnet"),
        ({"head.weight": 0}, TypeError, "expected a variant's name, a folder or a hub id, got dict"),
    ],
)
def test_a_source_that_is_nothing_is_named(source, error, message, offline):
    with pytest.raises(error, match=message):
        FocalNetModel.from_pretrained(source)


@pytest.mark.parametrize(
    "address", ["timm/focalnet_huge_fl4.ms_in22k", "xiuqhou/FocalNet:focalnet_huge_lrf_224_fl4.pth"]
)
def test_the_address_of_published_weights_tells_their_variant(address):
    config = read_config(address)
    assert config.focal_levels == [4, 4, 4, 4]
    assert config.embed_dim == 352


def test_a_folder_without_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        FocalNetModel.from_pretrained(tmp_path)


def test_the_config_of_another_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "swin"}))
    with pytest.raises(ValueError, match="not the config of a FocalNet, but of 'swin'"):
        FocalNetModel.from_pretrained(tmp_path)


def test_saving_does_not_change_the_model_and_keeps_unknown_keys_of_its_config(tmp_path):
    config = FocalNetConfig.from_dict({**make_config().to_dict(), "license": "mit"})
    model = FocalNetModel(config)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["license"] == "mit"
    assert "architectures" not in model.config.extra
