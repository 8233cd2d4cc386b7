"""`focalnet receptive-field`: a picture of how far networks look, and what it says of wrong arguments."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from focalnet_backbone.benchmark.twins.networks import list_networks
from focalnet_backbone.command import main

QUICK = ["receptive-field", "--size", "32", "--images", "1", "--channels", "1", "--device", "cpu"]


def test_networks_are_drawn_side_by_side_and_listed(tmp_path, capsys):
    out, sides = tmp_path / "fields.png", tmp_path / "fields.json"
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (40, 50), "teal").save(photo)
    networks = ["focalnet_tiny_srf", "resnet_50"]
    assert main([*QUICK, *networks, "--photos", str(photo), "--out", str(out), "--json", str(sides)]) == 0
    assert min(Image.open(out).size) > 100
    found = json.loads(sides.read_text())
    assert list(found["sides"]) == networks
    assert all(0 < side["0.5"] <= side["0.95"] <= 64 for side in found["sides"].values())
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == networks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swim_tiny"], "no network 'swim_tiny'. Did you mean 'swin_tiny'"),
        (["focal_transformer_tiny", "--weights", "pretrained"], "no weights are published for focal_transformer_tiny"),
    ],
)
def test_what_cannot_be_drawn_is_named(arguments, message, tmp_path, capsys):
    assert main([*QUICK, *arguments, "--out", str(tmp_path / "fields.png")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_networks_are_named_as_their_configs_are():
    assert {"swin_base", "convnext_small", "focal_transformer_tiny", "resnet_101"} <= set(list_networks())
    assert not [name for name in list_networks() if "iso" in name]
