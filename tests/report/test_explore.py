"""The page that shows what a network makes of a photo, in a real browser."""

from __future__ import annotations

import base64
import json
import re
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from focalnet_backbone import FocalNet
from focalnet_backbone.command.configured import open_configured, read_backbone_config
from focalnet_backbone.command.explore import main
from focalnet_backbone.configs import open_config
from focalnet_backbone.features.images import normalize
from focalnet_backbone.pictures.modulation import watch_blocks, watch_modulation
from focalnet_backbone.report.explore import explore, write_page

SMALL = {"embed_dim": 8, "depths": [1, 2], "focal_levels": [2, 1], "focal_windows": [3, 3]}


@pytest.fixture(scope="module")
def model() -> FocalNet:
    torch.manual_seed(0)
    return FocalNet(**SMALL, out_indices=[1, 2]).eval()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randint(0, 256, (3, 36, 52), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def scene(model, image) -> dict:
    return explore(model, image, name="<b>cat</b>.png", network="small", fields=2)


def unpack(text: str, dtype: type = np.uint8) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


def open_page(page, path) -> None:
    page.goto(path.as_uri())
    page.wait_for_function("document.body.dataset.drawn > 0")


def drawn_after(page, action) -> None:
    before = int(page.evaluate("document.body.dataset.drawn"))
    action()
    page.wait_for_function(f"document.body.dataset.drawn > {before}")


def test_every_block_is_seen_as_alone(model, image):
    pixels = normalize(image[None], torch.float32)
    views = watch_blocks(model, pixels)
    assert [(view.stage, view.block) for view in views] == [(1, 1), (2, 1), (2, 2)]
    for view in views:
        (alone,) = watch_modulation(model, pixels, [view.stage], view.block)
        for part in ("gates", "modulator", "features"):
            torch.testing.assert_close(getattr(view, part), getattr(alone, part))
    normed = torch.nn.functional.layer_norm(views[-1].features.permute(0, 2, 3, 1), (16,))
    torch.testing.assert_close(normed.permute(0, 3, 1, 2), model(pixels)["stage2"], rtol=1e-4, atol=1e-4)


def test_quantised_features_have_the_cosines_of_the_features(model, image, scene):
    features = watch_blocks(model, normalize(image[None], torch.float32))[-1].features[0].flatten(1).T.double()
    packed = unpack(scene["stages"][1]["blocks"][1]["features"], np.int8).reshape(len(features), -1)
    packed = torch.from_numpy(packed.astype(np.float64))
    expected, found = (torch.nn.functional.normalize(f, dim=1) @ torch.nn.functional.normalize(f, dim=1).T
                       for f in (features, packed))  # fmt: skip
    assert (expected - found).abs().max() < 0.02


def test_a_map_is_within_half_a_step_of_the_numbers(model, image, scene):
    view = watch_blocks(model, normalize(image[None], torch.float32))[1]
    packed = scene["stages"][1]["blocks"][0]["modulator"]
    values = packed["low"] + unpack(packed["data"]) / 255 * (packed["high"] - packed["low"])
    assert np.abs(values - view.magnitude[0].flatten().numpy()).max() <= (packed["high"] - packed["low"]) / 509


def test_a_click_shows_the_cosines_that_the_numbers_give(page, scene, tmp_path):
    open_page(page, write_page([scene], tmp_path / "page.html"))
    page.keyboard.press("1")
    photo = page.locator("canvas").first
    box = photo.bounding_box()
    place = {"x": box["width"] * 21 / 52, "y": box["height"] * 14 / 36}
    drawn_after(page, lambda: photo.click(position=place))
    shown = page.evaluate("Array.from(scenes[0].shown.exact)")
    packed = unpack(scene["stages"][0]["blocks"][0]["features"], np.int8).reshape(9 * 13, 8).astype(float)
    unit = packed / np.linalg.norm(packed, axis=1, keepdims=True)
    np.testing.assert_allclose(shown, unit @ unit[3 * 13 + 5], atol=1e-5)
    text = page.locator(".readout").inner_text()
    assert "Row 3, column 5 of 9 x 13" in text
    assert "Value here: 1.000" in text


def test_the_keyboard_moves_the_place_and_chooses_stage_block_and_view(page, scene, tmp_path):
    open_page(page, write_page([scene], tmp_path / "page.html"))
    values = lambda: [page.locator(f"#{name}").input_value() for name in ("stage", "block", "view")]  # noqa: E731
    assert values() == ["1", "1", "similarity"]
    drawn_after(page, lambda: page.keyboard.press("["))
    drawn_after(page, lambda: page.keyboard.press("v"))
    assert values() == ["1", "0", "gate0"]
    before = page.locator(".readout").inner_text()
    drawn_after(page, lambda: page.keyboard.press("ArrowRight"))
    row, column = map(int, re.findall(r"\d+", before)[:2])
    assert f"Row {row}, column {column + 1} of" in page.locator(".readout").inner_text()
    drawn_after(page, lambda: page.keyboard.press("1"))
    assert values()[0] == "0"


@pytest.mark.parametrize("view", ["similarity", "gate0", "gate1", "modulator", "norm", "components", "field"])
def test_every_view_is_drawn_with_its_name_for_who_cannot_see(page, scene, tmp_path, view):
    open_page(page, write_page([scene, scene], tmp_path / "page.html"))
    blank = page.evaluate("scenes[1].elements.photo.toDataURL()")
    drawn_after(page, lambda: page.select_option("#view", view))
    assert page.evaluate("scenes[1].elements.map.toDataURL()") != blank
    label = page.evaluate("scenes[1].elements.map.getAttribute('aria-label')")
    assert label.startswith(page.evaluate("control('view').selectedOptions[0].textContent"))


def test_names_of_files_are_text_not_markup(page, scene, tmp_path):
    odd = {**scene, "name": "</script><script>document.title = 'taken'</script>.png"}
    open_page(page, write_page([scene, odd], tmp_path / "page.html"))
    assert page.locator("h2 b").count() == 0
    assert page.locator("h2").nth(1).inner_text().startswith("</script><script>")
    assert page.title() == "What a FocalNet sees"


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_wider_than_the_screen(page, scene, tmp_path, width):
    page.set_viewport_size({"width": width, "height": 800})
    open_page(page, write_page([scene, scene], tmp_path / "page.html"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_command_writes_a_page_of_each_photo_and_network(tmp_path, capsys):
    small = tmp_path / "small.pth"
    torch.manual_seed(1)
    torch.save(FocalNet(**{**SMALL, "depths": [1, 1]}).state_dict(), small)
    photos = [tmp_path / f"{name} é.png" for name in "ab"]
    for photo in photos:
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(photo)
    out = tmp_path / "page.html"
    arguments = [*map(str, photos), "--variant", "focalnet_tiny_srf", "--weights", str(small), "--fields", "1"]
    assert main([*arguments, "--out", str(out)]) == 0
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', out.read_text(encoding="utf-8"))
    assert [scene["name"] for scene in json.loads(data[1])] == ["a é.png", "b é.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--out": "page.png"}, "--out must be an .html file"),
        ({"--out": "photo.png/page.html"}, "is no folder"),
        ({"--variant": "focalnet_tny_srf"}, "Did you mean 'focalnet_tiny_srf'"),
        ({"--weights": "nowhere.pth"}, "nowhere.pth"),
        ({"--device": "gpu"}, "gpu"),
        ({"image": "text.png"}, "cannot read"),
    ],
)
def test_wrong_arguments_get_one_line_and_leave_nothing(tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20)).save("photo.png")
    (tmp_path / "text.png").write_text("no image")
    given = {"image": "photo.png", "--out": "page.html", "--variant": "focalnet_tiny_srf", "--fields": "1", **change}
    image = given.pop("image")
    assert main([image, *(word for pair in given.items() for word in pair)]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors[-1].startswith("focalnet explore: ")
    assert message in errors[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png", "text.png"]


@pytest.mark.parametrize("config", ["upernet_focalnet_sample.py", "mask_rcnn_focalnet_sample.yaml"])
def test_a_config_tells_the_network_of_a_trained_model_that_was_not_published(config, tmp_path, image, capsys):
    described = read_backbone_config(open_config(config))
    trained = FocalNet(described.replace(out_features=["stage1", "stage2", "stage3", "stage4"], out_indices=None))
    nn.init.constant_(trained.patch_embed.proj.bias, 7.0)
    weights = {f"backbone.bottom_up.{name}": tensor for name, tensor in trained.state_dict().items()}
    torch.save({"model": weights}, tmp_path / "detector.pth")
    assert open_configured(config, str(tmp_path / "detector.pth")).patch_embed.proj.bias[0] == 7.0
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    command = [str(tmp_path / "photo.png"), "--out", str(tmp_path / "page.html"), "--config", config]
    assert main([*command, "--weights", str(tmp_path / "detector.pth"), "--fields", "1"]) == 0
    assert config in (tmp_path / "page.html").read_text()
    assert main([*command, "--variant", "focalnet_tiny_srf"]) == 2
    assert "--config says what network it is" in capsys.readouterr().err


def test_a_config_without_a_focalnet_is_refused():
    with pytest.raises(ValueError, match=r"model\.backbone is no FocalNet"):
        read_backbone_config(open_config("upernet_swin_tiny_160k_ade20k_512x512"))
