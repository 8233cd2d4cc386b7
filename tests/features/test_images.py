"""Images of every kind come out as the RGB that a viewer shows."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from focalnet_backbone.features.images import (
    PHOTO_FORMATS,
    check_photo,
    find_images,
    group_by_size,
    limit_size,
    load_image,
    normalize,
    to_rgb,
)

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"
PHOTO = skimage.data.chelsea()[:40, :60]


def save(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


def as_array(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def test_a_png_comes_out_as_it_went_in(tmp_path):
    image = load_image(save(tmp_path / "a.png", Image.fromarray(PHOTO)))
    assert image.dtype == torch.uint8
    assert tuple(image.shape) == (3, 40, 60)
    np.testing.assert_array_equal(as_array(image), PHOTO)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation):
    # The transform that a viewer undoes, from the EXIF standard: what is stored for the upright photo.
    stored = {
        1: PHOTO,
        2: PHOTO[:, ::-1],
        3: PHOTO[::-1, ::-1],
        4: PHOTO[::-1],
        5: PHOTO.transpose(1, 0, 2),
        6: np.rot90(PHOTO, 1),
        7: np.rot90(PHOTO, 2).transpose(1, 0, 2),
        8: np.rot90(PHOTO, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(as_array(load_image(path)), PHOTO)


def test_exif_that_is_ill_formed_elsewhere_still_tells_the_orientation(tmp_path):
    # Little-endian, two entries: a description of type double, and the orientation 3.
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + struct.pack("<HHII", 0x010E, 12, 1, 0)
    exif += struct.pack("<HHIHHI", 0x0112, 3, 1, 3, 0, 0)
    path = save(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(PHOTO[::-1, ::-1])), exif=exif)
    np.testing.assert_array_equal(as_array(load_image(path)), PHOTO)


def test_greyscale_has_three_equal_channels(tmp_path):
    image = load_image(save(tmp_path / "a.png", Image.fromarray(PHOTO[..., 1])))
    for channel in image.numpy():
        np.testing.assert_array_equal(channel, PHOTO[..., 1])


def test_sixteen_bit_greyscale_is_scaled_not_clipped(tmp_path):
    deep = PHOTO[..., 1].astype(np.uint16) * 257
    image = load_image(save(tmp_path / "a.png", Image.fromarray(deep)))
    np.testing.assert_array_equal(image[0].numpy(), PHOTO[..., 1])


def test_palette_images_show_their_colours(tmp_path):
    palette = Image.fromarray(PHOTO).quantize(64)
    image = load_image(save(tmp_path / "a.png", palette))
    np.testing.assert_array_equal(as_array(image), np.array(palette.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(tmp_path, mode):
    rgba = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])
    rgba[:, :30, 3] = 0
    image = Image.fromarray(rgba)
    options = {}
    if mode == "P":
        image = Image.fromarray(np.repeat(np.uint8([[0, 1]]), 30, 1).repeat(40, 0), "P")
        image.putpalette([10, 20, 30, 200, 100, 50])
        options = {"transparency": 0}
    image = load_image(save(tmp_path / "a.png", image.convert(mode) if mode == "LA" else image, **options))
    assert (image[:, :, :30] == 255).all()
    assert not (image[:, :, 30:] == 255).all()


def test_half_transparent_pixels_are_blended(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 3] = 128
    image = load_image(save(tmp_path / "a.png", Image.fromarray(rgba)))
    assert (image == 127).all()


def test_cmyk_comes_out_as_rgb(tmp_path):
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    image = load_image(save(tmp_path / "a.tif", ink))
    assert image[:, 4, 4].tolist() == pytest.approx([255, 0, 0], abs=3)


def test_every_kind_of_input_gives_the_same_image(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(PHOTO))
    expected = torch.from_numpy(PHOTO.copy()).permute(2, 0, 1)
    for image in (path, str(path), Image.fromarray(PHOTO), PHOTO, PHOTO[:, ::-1][:, ::-1], expected):
        assert torch.equal(to_rgb(image), expected)
    torch.testing.assert_close(normalize(expected / 255, torch.float32), normalize(expected, torch.float32))


def test_an_array_that_only_reads_is_taken_without_a_warning(recwarn):
    photo = np.asarray(Image.new("RGB", (5, 4), (1, 2, 3)))
    assert not photo.flags.writeable
    assert to_rgb(photo)[:, 0, 0].tolist() == [1, 2, 3]
    assert not recwarn.list


def test_normalisation_is_imagenets():
    white = normalize(torch.full((3, 1, 1), 255, dtype=torch.uint8), torch.float64).flatten()
    assert white.tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [((40, 60), 60, (40, 60)), ((40, 60), None, (40, 60)), ((40, 60), 30, (20, 30)), ((1, 100), 10, (1, 10))],
)
def test_the_longer_side_is_limited(size, limit, expected):
    assert limit_size(torch.zeros(3, *size, dtype=torch.uint8), limit).shape[1:] == expected


def test_images_are_grouped_by_size():
    sizes = [(4, 5), (5, 4), (4, 5), (4, 4), (5, 4)]
    assert group_by_size(torch.zeros(3, *size) for size in sizes) == [[0, 2], [1, 4], [3]]


def test_images_of_a_folder_are_found_recursively(tmp_path):
    for name in ("b.png", "sub/a.JPG", "sub/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find_images(tmp_path) == [tmp_path / "b.png", tmp_path / "sub/a.JPG"]
    assert find_images(tmp_path, hidden=False) == find_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        find_images(tmp_path / "none")


def test_what_systems_leave_in_a_folder_is_left_out_where_that_is_asked_for(tmp_path):
    hidden = [".a.png", ".thumbs/a.png", "sub/.ipynb_checkpoints/a.png", "__MACOSX/sub/a.png", "@eaDir/a.png/M.png"]
    root = tmp_path / ".photos"
    for name in (*hidden, "sub/a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / ".locked").symlink_to(root)  # Which would be an error, if it was looked into.
    assert find_images(root, pytest.fail, hidden=False) == [root / "sub/a.png"]
    (root / ".locked").unlink()
    assert find_images(root) == sorted(root / name for name in (*hidden, "sub/a.png"))


def truncated_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(skimage.data.chelsea()).save(buffer, "JPEG")
    return buffer.getvalue()[:5000]


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", truncated_jpeg()], ids=["empty", "a web page", "truncated"]
)
def test_a_file_that_is_no_whole_image_is_named(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*a\.jpg as an image"):
        load_image(path)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("nowhere/a.jpg", FileNotFoundError, r"no image file nowhere/a\.jpg"),
        (PHOTO.astype(np.float32), TypeError, "expected a numpy image of uint8, got float32"),
        (PHOTO[..., 0], ValueError, r"expected a numpy image \(H, W, 3\), got shape \(40, 60\)"),
        (PHOTO.transpose(2, 0, 1), ValueError, r"got shape \(3, 40, 60\)"),
        (PHOTO[:0], ValueError, "at least 1x1 pixels, got 0x60"),
        (torch.zeros(2, 3, 8, 8), ValueError, r"expected an image tensor \(3, H, W\), got shape \(2, 3, 8, 8\)"),
        (torch.zeros(8, 8, 3), ValueError, r"got shape \(8, 8, 3\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), TypeError, "uint8 or floats in 0 to 1, got torch.int64"),
        (torch.full((3, 8, 8), 255.0), ValueError, "expected a float image in 0 to 1, got values from 255 to 255"),
        (torch.full((3, 8, 8), float("nan")), ValueError, "expected a float image in 0 to 1"),
        (Image.new("F", (8, 8)), ValueError, "floating-point values"),
        (3, TypeError, "expected a path, PIL image, numpy array or tensor, got int"),
    ],
)
def test_a_wrong_image_is_named(image, error, message):
    with pytest.raises(error, match=message):
        to_rgb(image)


@pytest.mark.parametrize("suffix", [".jpg", ".eps", ".png"])
def test_no_program_is_started_for_a_photo_that_is_none(tmp_path, ghostscript, suffix):
    (tmp_path / f"photo{suffix}").write_bytes(POSTSCRIPT)
    with pytest.raises(ValueError, match=f"photo{suffix}"):
        load_image(tmp_path / f"photo{suffix}")
    with pytest.raises(ValueError, match=f"photo{suffix} is no photo"):
        check_photo(tmp_path / f"photo{suffix}")
    assert not ghostscript.exists()


@pytest.mark.parametrize("kind", PHOTO_FORMATS)
def test_every_format_that_photos_come_in_is_opened_whatever_the_name_says(tmp_path, kind):
    path = tmp_path / "photo.img"
    options = {"save_all": True, "append_images": [Image.fromarray(PHOTO[::-1])]} if kind == "MPO" else {}
    Image.fromarray(PHOTO).save(path, kind, **options)
    check_photo(path)
    assert load_image(path).shape == (3, 40, 60)


@pytest.mark.parametrize("kind", sorted({"PCX", "TGA", "ICO", "SGI", "DDS", "PDF", "EPS"}))
def test_other_formats_are_refused_by_name(tmp_path, kind):
    path = tmp_path / "photo.jpg"
    Image.fromarray(PHOTO).save(path, kind)
    with pytest.raises(ValueError, match=r"photo\.jpg"):
        load_image(path)


def test_an_image_that_would_fill_the_memory_is_refused_in_one_line(tmp_path, recwarn):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT")
    with pytest.raises(ValueError, match=r"bomb\.png.*exceeds limit") as error:
        load_image(tmp_path / "bomb.png")
    assert "\n" not in str(error.value)
    assert not recwarn.list
