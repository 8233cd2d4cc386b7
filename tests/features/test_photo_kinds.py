"""Photos of every kind look the same to all readers: the extractor's, detectron2's and mmcv's."""

from __future__ import annotations

import focalnet_backbone.openmmlab  # isort: skip  (mends mmcv's reader)
import io

import cv2
import mmcv
import numpy as np
import pytest
import torch
from detectron2.data import detection_utils
from mmcv.transforms import LoadImageFromFile
from PIL import Image

import focalnet_backbone.detectron2  # noqa: F401  (mends detectron2's reader)
from focalnet_backbone.features.images import load_image, to_rgb

ROWS, COLUMNS = np.mgrid[:40, :60]
GREY = (ROWS * 4 + COLUMNS).astype(np.uint8)
RGB = np.dstack([GREY, 255 - GREY, GREY // 2])
HALF = np.where(COLUMNS < 30, 0, 255).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette() -> Image.Image:
    image = Image.fromarray((HALF > 0).astype(np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    return image


DEEP = GREY.astype(np.uint16) * 257
WHITE_LEFT = HALF[..., None] == 0
KINDS = {
    "16-bit grey PNG": (encode(Image.fromarray(DEEP), "PNG"), GREY[..., None]),
    "16-bit grey TIFF": (encode(Image.fromarray(DEEP), "TIFF"), GREY[..., None]),
    "16-bit grey PGM": (b"P5 60 40 65535\n" + DEEP.astype(">u2").tobytes(), GREY[..., None]),
    "16-bit RGB PNG": (cv2.imencode(".png", RGB[..., ::-1].astype(np.uint16) * 257)[1].tobytes(), RGB),
    "LA": (
        encode(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(HALF)]), "PNG"),
        np.where(WHITE_LEFT, 255, GREY[..., None]),
    ),
    "RGBA": (encode(Image.fromarray(np.dstack([RGB, HALF])), "PNG"), np.where(WHITE_LEFT, 255, RGB)),
    "palette": (encode(palette(), "PNG"), np.where(WHITE_LEFT, [10, 20, 30], [200, 100, 50])),
    "transparent palette": (encode(palette(), "PNG", transparency=0), np.where(WHITE_LEFT, 255, [200, 100, 50])),
    "CMYK": (encode(Image.fromarray(RGB).convert("CMYK"), "TIFF"), RGB),
    "one bit": (encode(Image.fromarray(HALF > 0), "PNG"), HALF[..., None]),
    "8-bit RGB": (encode(Image.fromarray(RGB), "PNG"), RGB),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_readers_see_the_photo_that_was_stored(kind, tmp_path):
    content, expected = KINDS[kind]
    path = tmp_path / "photo"
    path.write_bytes(content)
    expected = np.broadcast_to(expected, RGB.shape)
    ours = load_image(path).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(ours, expected)
    for order in ("RGB", "BGR"):
        found = detection_utils.read_image(str(path), order)
        np.testing.assert_array_equal(found, ours if order == "RGB" else ours[..., ::-1])
    loaded = LoadImageFromFile()({"img_path": str(path)})["img"]
    np.testing.assert_array_equal(loaded[..., ::-1], ours)
    np.testing.assert_array_equal(mmcv.imread(path, channel_order="rgb"), ours)


NUMBERS = {
    "floating-point values": np.float32(GREY) / 255,
    "32-bit integers": np.int32(GREY) * 1000,
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_unknown_range_are_refused_by_all_readers(kind, tmp_path):
    path = tmp_path / "depth.tif"
    Image.fromarray(NUMBERS[kind]).save(path)
    message = f"{kind}, whose range is unknown; convert it to 8 or 16 bits"
    for read in (load_image, lambda p: to_rgb(Image.open(p)), lambda p: detection_utils.read_image(str(p), "RGB")):
        with pytest.raises(ValueError, match=message):
            read(path)
    with pytest.raises(OSError, match=message):
        LoadImageFromFile()({"img_path": str(path)})


def test_labels_and_the_grey_of_other_formats_stay_the_readers_own(tmp_path):
    Image.fromarray(DEEP).save(tmp_path / "label.png")
    unchanged = mmcv.imread(tmp_path / "label.png", flag="unchanged")
    np.testing.assert_array_equal(unchanged, DEEP)
    Image.fromarray(GREY).save(tmp_path / "label8.png")
    np.testing.assert_array_equal(detection_utils.read_image(str(tmp_path / "label8.png"), "L")[..., 0], GREY)


def test_a_photo_in_memory_of_32_bits_is_refused():
    with pytest.raises(ValueError, match="32-bit integers"):
        to_rgb(Image.fromarray(np.int32(GREY)))
    assert torch.equal(to_rgb(Image.fromarray(DEEP))[0], torch.from_numpy(GREY))
