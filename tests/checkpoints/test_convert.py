"""Converting files: what comes out is what the real libraries open, and what went in comes back."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import mmengine.runner
import pytest
import torch
import transformers
from detectron2.checkpoint import DetectionCheckpointer
from safetensors.torch import load_file
from torch import nn

from focalnet_backbone.checkpoints import CheckpointError, export_state_dict, load_checkpoint
from focalnet_backbone.checkpoints.convert import TARGETS, convert_checkpoint
from focalnet_backbone.models import FocalNetForImageClassification, FocalNetForMaskedImageModeling
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.network.variants import VARIANTS
from tests.checkpoints.families import TIMM_VARIANTS, backbone, randomise, shrunk, timm_model

TOOL = Path(__file__).parents[2] / "tools" / "convert_checkpoint.py"
TINY = "focalnet_tiny_srf"

OF_DETECTORS = ("mmdet", "focalnet-dino")
"""Targets that take whole detectors."""


def classifier(variant: str = TINY, **overrides) -> FocalNetForImageClassification:
    return randomise(FocalNetForImageClassification(shrunk(variant, **overrides)))


@pytest.fixture
def native(tmp_path) -> Path:
    """A file with a small classifier's weights."""
    path = tmp_path / "native.pth"
    torch.save({"model": classifier().state_dict()}, path)
    return path


def assert_same(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("variant", TIMM_VARIANTS)
def test_a_file_for_timm_loads_there_strictly_and_comes_back_to_the_bit(tmp_path, variant):
    source = classifier(variant).state_dict()
    report = convert_checkpoint(source, tmp_path / "timm", "timm", variant=variant)
    timm_model(shrunk(variant)).load_state_dict(load_file(report.path), strict=True)
    back = convert_checkpoint(report.path, tmp_path / "native", "native")
    assert back.format == "timm"
    assert_same(load_file(back.path), source)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_for_transformers_opens_there_with_the_right_architecture(tmp_path, variant):
    model = classifier(variant)
    convert_checkpoint(model.state_dict(), tmp_path / "saved", "transformers", variant=variant)
    theirs, info = transformers.AutoModelForImageClassification.from_pretrained(
        tmp_path / "saved", output_loading_info=True
    )
    assert not any(info.values())
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(
        theirs.eval().double()(images).logits, model.double()(images).logits, rtol=1e-9, atol=1e-9
    )


def test_a_masked_image_model_for_transformers_opens_there(tmp_path):
    model = randomise(FocalNetForMaskedImageModeling(shrunk(TINY, encoder_stride=8)))
    convert_checkpoint(model.state_dict(), tmp_path / "saved", "transformers", variant=TINY)
    theirs = transformers.FocalNetForMaskedImageModeling.from_pretrained(tmp_path / "saved")
    assert theirs.config.encoder_stride == 8
    assert torch.equal(theirs.focalnet.embeddings.mask_token, model.mask_token)


def test_the_architecture_of_a_published_size_is_found_without_naming_it(tmp_path):
    config = FocalNetConfig.from_variant("focalnet_tiny_lrf", num_labels=2)
    source = FocalNetForImageClassification(config).state_dict()
    convert_checkpoint(source, tmp_path / "saved", "transformers")
    assert transformers.FocalNetConfig.from_pretrained(tmp_path / "saved").focal_levels == [3, 3, 3, 3]
    convert_checkpoint(tmp_path / "saved", tmp_path / "timm", "timm")
    assert_same(load_file(tmp_path / "timm.safetensors"), export_state_dict(source, "timm", use_post_layernorm=False))


def test_a_modulator_that_timm_does_not_normalise_by_itself_is_warned_of(tmp_path, caplog):
    variant = "focalnet_large_fl4"
    convert_checkpoint(classifier(variant).state_dict(), tmp_path / "timm", "timm", variant=variant)
    assert "normalize_modulator=True" in caplog.text


def test_tensors_that_share_memory_are_written_whole(tmp_path):
    source = classifier().state_dict()
    source["norm.bias"] = source["norm.weight"]
    source["head.weight"] = source["head.weight"].T.contiguous().T
    report = convert_checkpoint(source, tmp_path / "out", "native")
    assert_same(load_file(report.path), source)


def test_a_file_for_detectron2_fills_a_detectors_backbone_there(tmp_path):
    source, detector = backbone(), nn.ModuleDict({"backbone": nn.ModuleDict({"bottom_up": backbone()})})
    nn.init.zeros_(detector["backbone"]["bottom_up"].patch_embed.proj.weight)
    report = convert_checkpoint(source.state_dict(), tmp_path / "weights", "detectron2")
    DetectionCheckpointer(detector).load(str(report.path))
    assert_same(detector["backbone"]["bottom_up"].state_dict(), source.state_dict())


def test_a_file_for_mmengine_fills_a_segmenters_backbone_there(tmp_path):
    source, segmenter = backbone(), nn.ModuleDict({"backbone": backbone()})
    nn.init.zeros_(segmenter["backbone"].patch_embed.proj.weight)
    report = convert_checkpoint(source.state_dict(), tmp_path / "weights", "mmengine")
    mmengine.runner.load_checkpoint(segmenter, str(report.path), strict=True)
    assert_same(segmenter["backbone"].state_dict(), source.state_dict())


@pytest.mark.parametrize("to", ["detectron2", "mmengine"])
def test_files_for_the_detection_frameworks_hold_the_backbone_alone_and_the_report_says_so(tmp_path, native, to):
    report = convert_checkpoint(native, tmp_path / "weights", to)
    assert report.left_out == ("norm.weight", "norm.bias", "head.weight", "head.bias")
    assert str(report).endswith("left out 4 (norm, head)")
    model = backbone()
    load_checkpoint(model, report.path)
    assert torch.equal(model.patch_embed.proj.weight, classifier().patch_embed.proj.weight)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize("to", [to for to in TARGETS if to not in OF_DETECTORS])
def test_the_ending_decides_what_is_written(tmp_path, native, to, suffix):
    out = tmp_path / f"new/folder/out{suffix}"
    if suffix == ".safetensors" and to in ("detectron2", "mmengine"):
        with pytest.raises(ValueError, match=r"must end in one of \.pth, \.pt, \.bin"):
            convert_checkpoint(native, out, to, variant=TINY)
        return
    assert convert_checkpoint(native, out, to, variant=TINY).path == out
    contents = load_file(out) if suffix == ".safetensors" else torch.load(out, weights_only=True)
    assert contents
    load_checkpoint(backbone(), out)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_nothing_is_replaced_unless_forced(tmp_path, native):
    out = tmp_path / "out.safetensors"
    out.write_text("precious")
    with pytest.raises(FileExistsError, match="exists already"):
        convert_checkpoint(native, out, "native")
    assert out.read_text() == "precious"
    convert_checkpoint(native, out, "native", force=True)
    assert_same(load_file(out), classifier().state_dict())


def broken(name: str, x: torch.Tensor) -> dict:
    return {**classifier().state_dict(), name: x}


@pytest.mark.parametrize(
    ("source", "to", "variant", "words"),
    [
        (lambda: broken("head.bias", torch.full((5,), float("nan"))), "native", None, "NaN"),
        (lambda: backbone().state_dict(), "transformers", TINY, "no place for norm0"),
        (lambda: classifier().state_dict(), "timm", None, "name one of the same family with --variant"),
        (lambda: classifier().state_dict(), "transformers", None, "name one of the same family with --variant"),
        (lambda: classifier().state_dict(), "timm", "focalnet_large_fl3", "has use_conv_embed=False, but .* True"),
        (
            lambda: timm_model(shrunk("focalnet_large_fl3", use_conv_embed=False, use_layerscale=False)).state_dict(),
            "transformers",
            TINY,
            "has use_post_layernorm=True, but .* False",
        ),
        (lambda: {"a.weight": torch.ones(1)}, "native", None, "no FocalNet weights"),
    ],
    ids=["nan", "output-norms", "timm-unknown", "transformers-unknown", "wrong-family", "wrong-norms", "no-focalnet"],
)
def test_what_cannot_be_converted_is_an_error_and_writes_nothing(tmp_path, source, to, variant, words):
    with pytest.raises(CheckpointError, match=words):
        convert_checkpoint(source(), tmp_path / "out", to, variant=variant)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, native, monkeypatch):
    out = tmp_path / "out.pth"
    out.write_text("precious")

    def fill_disk(contents, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        convert_checkpoint(native, out, "native", force=True)
    assert out.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["native.pth", "out.pth"]


def test_the_labels_of_a_transformers_folder_are_kept(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    convert_checkpoint(classifier().state_dict(), first, "transformers", variant=TINY)
    config = json.loads((first / "config.json").read_text())
    config["id2label"] = {str(i): f"animal {i}" for i in range(5)}
    config["something_else"] = 7
    (first / "config.json").write_text(json.dumps(config))
    convert_checkpoint(first, second, "transformers")
    kept = json.loads((second / "config.json").read_text())
    assert kept["id2label"] == config["id2label"]
    assert kept["something_else"] == 7


def test_the_tool_works_from_any_folder_and_prints_the_report(tmp_path, native):
    command = [sys.executable, str(TOOL), "native.pth", "out", "--to", "timm", "--variant", TINY]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    count = len(classifier().state_dict())
    assert result.stdout == f"native.pth (native format): wrote {count} tensors to out.safetensors (timm format)\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["native.pth", "taken.pth", "--to", "native"], "taken.pth exists already; only --force"),
        (["nothing.pth", "out", "--to", "native"], "no checkpoint at nothing.pth"),
        (["page.pth", "out", "--to", "native"], "page.pth is a web page"),
        (["~nobody/native.pth", "out", "--to", "native"], "no checkpoint at ~nobody/native.pth"),
        (["native.pth", "", "--to", "native"], "an argument is empty"),
        (["native.pth", "out.safetensors", "--to", "mmengine"], "must end in one of .pth"),
    ],
)
def test_the_tool_answers_mistakes_in_one_line(tmp_path, native, monkeypatch, refused, arguments, words):
    (tmp_path / "taken.pth").write_text("precious")
    (tmp_path / "page.pth").write_text("<!doctype html>")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(TOOL), *arguments])
    with refused("convert_checkpoint.py", re.escape(words)):
        runpy.run_path(str(TOOL), run_name="__main__")
