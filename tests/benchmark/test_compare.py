"""Networks and whole models side by side."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from focalnet_backbone.benchmark import compare
from focalnet_backbone.benchmark.compare import MEASURES, Settings, Subject, find_subject, measure, read_header
from focalnet_backbone.benchmark.compare_report import format_comparison
from focalnet_backbone.benchmark.twins.networks import list_networks
from focalnet_backbone.command import main
from focalnet_backbone.configs import FOLDER, list_configs

SETTINGS = Settings((16, 24), 2, torch.device("cpu"), rounds=2, seconds=5.0)


class TwoMaps(nn.Module):
    """A convolution and its square."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, channels, 1, bias=False)

    def forward(self, x):
        maps = self.convolution(x)
        return maps, maps.square()


def make_subjects(*channels: int) -> list[Subject]:
    return [Subject(f"maps_{c}", "network", lambda c=c: TwoMaps(c), {"macs": 1.0, "parameters": 2.0}) for c in channels]


def test_parameters_multiply_accumulates_and_kept_bytes_are_those_of_the_model():
    results = {}
    measure(make_subjects(4, 8), SETTINGS, results, lambda: None)
    assert set(results) == set(MEASURES)
    size = results["size"]["maps_8"]
    # Of one image; of published numbers those that count at another size are left out.
    assert (size["parameters"], size["macs"]) == (3 * 8, 3 * 8 * 16 * 24)
    assert size["published"] == {"parameters": 2.0}
    # Kept are the images, the maps, and, for the square and the two means of squares, the maps and their square.
    images, maps = 2 * 3 * 16 * 24 * 4, 2 * 8 * 16 * 24 * 4
    assert results["memory"]["maps_8"]["saved"] == images + 2 * maps
    for name in ("forward", "training"):
        entry = results[name]["maps_4"]
        assert entry["quartiles"][0] <= entry["seconds"] <= entry["quartiles"][1]


def test_a_comparison_goes_on_where_it_was_interrupted(monkeypatch):
    results, kept = {}, []
    measure(make_subjects(4), SETTINGS, results, lambda: kept.append(None))
    assert len(kept) == 4
    first = dict(results["size"])
    monkeypatch.setattr(compare, "count", lambda *_: (7, 7))
    measure(make_subjects(4, 8), SETTINGS, results, lambda: None)
    assert results["size"]["maps_4"] == first["maps_4"]
    assert results["size"]["maps_8"]["parameters"] == 7
    # All take turns anew, so that one moment of the machine is compared.
    assert list(results["forward"]) == list(results["training"]) == ["maps_4", "maps_8"]


def test_the_table_has_published_values_in_brackets_and_what_was_measured_alone():
    results = {
        "size": {"a": {"parameters": 48_800_000, "macs": 0, "published": {"accuracy": "AP 1", "parameters": 49}}}
    }
    lines = format_comparison(["a"], results).splitlines()
    assert lines[0] == "|  | published accuracy | parameters (M) | multiply-accumulates (G) |"
    assert lines[2] == "| a | AP 1 | 48.8 (49) | 0.0 |"


@pytest.mark.parametrize(
    ("config", "published"),
    [
        ("mmdet/mask_rcnn_swin_tiny_1x", {"accuracy": "box AP 43.7, mask AP 39.8", "parameters": 47.8, "macs": 267.0}),
        ("mmdet/mask_rcnn_resnet_50_3x", {"accuracy": "box AP 41.0, mask AP 37.1", "parameters": 44.2, "macs": 260.0}),
        ("mmseg/upernet_swin_base_160k_ade20k_512x512", {"accuracy": "mIoU 48.1", "parameters": 121.0, "macs": 1188.0}),
        (
            "mmseg/upernet_focalnet_base_lrf_160k_ade20k_512x512",
            {"accuracy": "mIoU 50.5", "parameters": 125.73, "macs": 1190.59},
        ),
        ("mmdet/mask_rcnn_convnext_small_1x", {}),
    ],
)
def test_what_was_published_is_read_from_a_configs_opening(config, published):
    assert read_header((FOLDER / f"{config}.py").read_text()) == published


@pytest.mark.parametrize("name", list_networks())
def test_every_network_has_a_published_accuracy_or_is_of_imagenet_22k(name):
    subject = find_subject(name)
    assert subject.kind == "network"
    accuracy = subject.published.get("accuracy")
    assert (accuracy is None) == any(size in name for size in ("large", "xlarge", "huge")) or accuracy
    assert accuracy is None or 70 < float(accuracy.removeprefix("top-1 ")) < 90


def test_a_segmenter_and_a_detector_of_mmengine_are_measured_whole(tmp_path, capsys):
    quick = ["--size", "64", "--rounds", "1", "--seconds", "1", "--device", "cpu"]
    out = tmp_path / "v1.0"
    assert main(["compare", "upernet_focalnet_sample", *quick, "--out", str(out)]) == 0
    report = json.loads((tmp_path / "v1.0.json").read_text())
    assert report["settings"]["size"] == [64, 64]
    assert set(report["results"]) == set(MEASURES)
    assert (tmp_path / "v1.0.png").stat().st_size > 1000
    assert "| upernet_focalnet_sample | - |" in (tmp_path / "v1.0.md").read_text()
    # A second time nothing is left to be measured; with other settings it is another comparison.
    assert main(["compare", "upernet_focalnet_sample", *quick, "--out", str(out)]) == 0
    assert main(["compare", "upernet_focalnet_sample", "--size", "32", "--device", "cpu", "--out", str(out)]) == 2
    assert "other settings" in capsys.readouterr().err
    arguments = ["mask_rcnn_focalnet_sample", *quick, "--measure", "size"]
    assert main(["compare", *arguments, "--out", str(tmp_path / "detector")]) == 0
    assert "mask_rcnn_focalnet_sample" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("subjects", "message"),
    [
        (["swim_tiny"], "no network 'swim_tiny'. Did you mean 'swin_tiny'"),
        (["swin_tiny", "upernet_focalnet_sample"], "must be of one kind, got swin_tiny (network), upernet_focalnet"),
        ([str(FOLDER / "detectron2/mask_rcnn_swin_tiny_1x.py")], "in mmdetection, mmdet/mask_rcnn_swin_tiny_1x.py"),
    ],
)
def test_what_cannot_be_compared_is_named(subjects, message, tmp_path, capsys):
    assert main(["compare", *subjects, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_configs_are_found_by_the_names_of_their_files():
    for config in list_configs("mm*")[:3]:
        assert find_subject(config).kind == config.split("/")[0]
