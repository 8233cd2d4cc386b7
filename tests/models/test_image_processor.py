"""The image processor against those of transformers, on photographs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import skimage.data
import timm
import torch
import transformers
from PIL import Image

from focalnet_backbone.models import FocalNetImageProcessor
from focalnet_backbone.models.image_processor import IMAGENET_MEAN, IMAGENET_STD
from focalnet_backbone.network.variants import VARIANTS
from tests.models.conftest import make_config

PUBLISHED = {"size": {"shortest_edge": 256}, "resample": 2, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
PHOTOGRAPHS = ("chelsea", "astronaut", "coffee", "rocket")
THEIRS = (transformers.BitImageProcessor, transformers.BitImageProcessorPil)


def photograph(name: str = "chelsea") -> np.ndarray:
    return getattr(skimage.data, name)()


def assert_within_a_step(ours: torch.Tensor, theirs, std=IMAGENET_STD) -> None:
    """Assert equality but for one step of 8-bit images."""
    step = (torch.tensor(std) * 255).reciprocal().view(-1, 1, 1)
    assert ours.shape == theirs.shape
    assert ((ours - torch.as_tensor(theirs)).abs() <= 1.001 * step).all()


@pytest.mark.parametrize("theirs", THEIRS)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_come_out_as_from_transformers(name, theirs):
    ours = FocalNetImageProcessor()(photograph(name), return_tensors="pt").pixel_values
    assert ours.shape == (1, 3, 224, 224)
    assert_within_a_step(ours, theirs(**PUBLISHED)(photograph(name), return_tensors="pt").pixel_values)


@pytest.mark.parametrize(
    "knobs",
    [
        {"size": {"shortest_edge": 224}, "crop_size": 192, "resample": 3},
        {"size": {"height": 100, "width": 180}, "crop_size": {"height": 97, "width": 151}},
        {"size": {"shortest_edge": 90}},
        {"do_resize": False, "crop_size": {"height": 301, "width": 300}},
        {"do_resize": False, "do_center_crop": False},
        {"do_normalize": False},
        {"do_normalize": False, "do_rescale": False},
        {"do_rescale": False},
        {"resample": 0},
    ],
)
def test_every_knob_does_what_it_does_in_transformers(knobs):
    ours = FocalNetImageProcessor(**knobs)(photograph(), return_tensors="pt").pixel_values
    theirs = transformers.BitImageProcessor(**{**PUBLISHED, **knobs})(photograph(), return_tensors="pt").pixel_values
    torch.testing.assert_close(ours.float(), theirs.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK"])
def test_images_of_every_mode_become_rgb_as_in_transformers(mode):
    image = Image.fromarray(photograph()).convert(mode)
    theirs = transformers.BitImageProcessor(**PUBLISHED)(image, return_tensors="pt").pixel_values
    assert_within_a_step(FocalNetImageProcessor()(image, return_tensors="pt").pixel_values, theirs)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "array"])
def test_transparent_images_are_laid_on_white_as_in_transformers(mode):
    rgba = np.dstack([photograph(), np.asarray(Image.fromarray(skimage.data.camera()).resize((451, 300)))])
    image = Image.fromarray(rgba).convert("LA" if mode == "LA" else "RGBA")
    # Laid on white here, as transformers has come to do it in its recent releases only.
    on_white = Image.new("RGBA", image.size, "white")
    on_white.alpha_composite(image.convert("RGBA"))
    theirs = transformers.BitImageProcessor(**PUBLISHED)(on_white.convert("RGB"), return_tensors="pt").pixel_values
    ours = FocalNetImageProcessor()(rgba if mode == "array" else image, return_tensors="pt").pixel_values
    assert_within_a_step(ours, theirs)


def test_every_form_of_an_image_gives_the_same():
    rgb = photograph()
    processor = FocalNetImageProcessor()
    expected = processor(rgb).pixel_values[0]
    for form in (
        Image.fromarray(rgb),
        rgb.transpose(2, 0, 1),
        torch.from_numpy(rgb),
        torch.from_numpy(rgb).permute(2, 0, 1),
    ):
        torch.testing.assert_close(processor(form).pixel_values[0], expected)
    camera = skimage.data.camera()
    torch.testing.assert_close(processor(camera).pixel_values, processor(Image.fromarray(camera)).pixel_values)
    torch.testing.assert_close(processor(rgb.astype(np.float32)).pixel_values[0], expected, atol=0.02, rtol=0)


@pytest.mark.filterwarnings("error")
def test_an_array_may_be_a_view_that_is_flipped_or_read_only():
    image = photograph()
    flipped, read_only = image[::-1, :, ::-1], image.view()
    read_only.flags.writeable = False
    processor = FocalNetImageProcessor()
    expected = processor([image, flipped.copy()], return_tensors="pt").pixel_values
    assert torch.equal(processor([read_only, flipped], return_tensors="pt").pixel_values, expected)


def test_images_of_differing_sizes_make_a_batch():
    images = [photograph(name) for name in PHOTOGRAPHS]
    processor = FocalNetImageProcessor()
    batch = processor(images, return_tensors="pt")
    assert batch.pixel_values.shape == (4, 3, 224, 224)
    for image, x in zip(images, batch["pixel_values"], strict=True):
        torch.testing.assert_close(processor(image, return_tensors="pt").pixel_values[0], x)
    four = processor(np.stack([photograph()] * 2), return_tensors="np").pixel_values
    assert isinstance(four, np.ndarray)
    assert four.shape == (2, 3, 224, 224)


def test_a_batch_moves_and_says_what_it_has():
    batch = FocalNetImageProcessor()(photograph(), return_tensors="pt").to(torch.float64)
    assert batch.pixel_values.dtype == torch.float64
    assert dict(**batch).keys() == {"pixel_values"}
    with pytest.raises(AttributeError, match="pixel_mask"):
        batch.pixel_mask  # noqa: B018


def test_greyscale_models_have_a_processor_too():
    processor = FocalNetImageProcessor(do_convert_rgb=False, image_mean=[0.5], image_std=[0.25])
    x = processor(Image.fromarray(skimage.data.camera()), return_tensors="pt").pixel_values
    assert x.shape == (1, 1, 224, 224)
    with pytest.raises(ValueError, match=r"image_mean .* does not fit an image of 3 channels"):
        processor(photograph())


def test_a_call_may_change_knobs_for_itself():
    processor = FocalNetImageProcessor()
    assert processor(photograph(), return_tensors="pt", crop_size=64).pixel_values.shape == (1, 3, 64, 64)
    assert processor.crop_size == {"height": 224, "width": 224}


def test_both_libraries_open_what_the_other_saves(tmp_path):
    FocalNetImageProcessor(crop_size=160, resample=3).save_pretrained(tmp_path / "ours")
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    ours = FocalNetImageProcessor.from_pretrained(tmp_path / "theirs")
    assert ours == FocalNetImageProcessor(crop_size=160, resample=3)
    assert_within_a_step(
        ours(photograph(), return_tensors="pt").pixel_values, theirs(photograph(), return_tensors="pt").pixel_values
    )


def test_a_file_that_says_nothing_means_what_it_means_in_transformers(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "BitImageProcessor"}')
    ours = FocalNetImageProcessor.from_pretrained(tmp_path)(photograph(), return_tensors="pt").pixel_values
    theirs = transformers.BitImageProcessor.from_pretrained(tmp_path)(photograph(), return_tensors="pt").pixel_values
    assert_within_a_step(ours, theirs, transformers.BitImageProcessor.image_std)


def test_a_folder_without_a_processor_gets_the_preset_of_its_image_size(tmp_path):
    make_config(image_size=[112, 96]).save_pretrained(tmp_path)
    processor = FocalNetImageProcessor.from_pretrained(tmp_path, resample=3)
    assert processor == FocalNetImageProcessor(size=128, crop_size={"height": 112, "width": 96}, resample=3)


@pytest.mark.parametrize("name", [name for name in VARIANTS if "22k" in VARIANTS[name].pretrained_on])
def test_the_presets_of_imagenet_22k_are_those_of_timm(name):
    expected = timm.data.create_transform(**timm.data.resolve_data_config(timm.get_pretrained_cfg(name).to_dict()))
    image = Image.fromarray(photograph())
    x = FocalNetImageProcessor.from_pretrained(name)(image, return_tensors="pt").pixel_values
    assert_within_a_step(x[0], expected(image))


@pytest.mark.parametrize("name", ["focalnet_tiny_srf", "focalnet_base_lrf"])
def test_the_presets_of_imagenet_1k_are_those_of_transformers_checkpoints(name):
    assert FocalNetImageProcessor.from_pretrained(name) == FocalNetImageProcessor(**PUBLISHED)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"size": 0}, "size must be in whole pixels above 0"),
        ({"size": {"longest_edge": 3}}, "size must be an int or have the keys"),
        ({"crop_size": {"shortest_edge": 3}}, "crop_size must be an int or have the keys"),
        ({"resample": 7}, "resample must be 0"),
        ({"image_std": [1, 2]}, "differ in length"),
        ({"image_mean": 0.5}, "image_mean must be a list of numbers, one a channel, got 0.5"),
        ({"image_std": "abc"}, "image_std must be a list of numbers, one a channel, got 'abc'"),
        ({"rescale_factor": "1/255"}, "rescale_factor must be a number, got '1/255'"),
        ({"do_resize": "no"}, "do_resize must be True or False, got 'no'"),
        ({"image_std": [1, 0, 1]}, "image_std must be above 0"),
    ],
)
def test_wrong_knobs_are_named(knobs, message):
    with pytest.raises((TypeError, ValueError), match=message):
        FocalNetImageProcessor(**knobs)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ("cat.png", TypeError, "must be a Pillow image, an array or a tensor, got str"),
        ([], ValueError, "images is empty"),
        (np.zeros((5, 6, 7), np.uint8), ValueError, "with 1, 3 or 4 channels"),
        (np.zeros((5, 6, 4), np.float32), ValueError, "alpha channel must be of 8-bit"),
        (np.zeros((0, 6, 3), np.uint8), ValueError, "at least 1x1 pixels, got 0x6"),
        (Image.new("RGB", (5, 0)), ValueError, "at least 1x1 pixels, got 0x5"),
        (Image.new("I;16", (5, 6)), ValueError, "8 bits a channel, got Pillow mode 'I;16'"),
    ],
)
def test_what_is_no_image_is_refused(images, error, message):
    with pytest.raises(error, match=message):
        FocalNetImageProcessor()(images)


def test_differing_sizes_without_a_crop_make_no_batch():
    images = [photograph("chelsea"), photograph("rocket")]
    with pytest.raises(ValueError, match="make no batch"):
        FocalNetImageProcessor(do_center_crop=False)(images, return_tensors="pt")
    assert len(FocalNetImageProcessor(do_center_crop=False)(images).pixel_values) == 2
    with pytest.raises(ValueError, match='return_tensors must be "pt"'):
        FocalNetImageProcessor()(images, return_tensors="tf")


def test_an_image_that_is_rescaled_already_is_warned_of():
    with pytest.warns(UserWarning, match="do_rescale=False"):
        FocalNetImageProcessor()(photograph().astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds a list"),
        (json.dumps({"image_processor_type": "ViTImageProcessor"}), "'ViTImageProcessor'"),
    ],
)
def test_a_file_of_something_else_is_refused(text, message, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        FocalNetImageProcessor.from_pretrained(tmp_path)
