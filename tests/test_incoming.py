"""JSON and YAML of others, by every entrance: what would take all memory, the stack, or for ever, is one line."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import mmengine.fileio
import numpy as np
import pytest
from PIL import Image
from yaml import YAMLError

import focalnet_backbone.openmmlab  # noqa: F401
from focalnet_backbone.annotations.coco import coco_facts
from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.checkpoints.files import read_folder
from focalnet_backbone.command.benchmark import read_report
from focalnet_backbone.command.import_labels import read_labels
from focalnet_backbone.detectron2.jobs import load_yaml
from focalnet_backbone.export.formats import open_session
from focalnet_backbone.features.dataset import FeatureDataset
from focalnet_backbone.features.manifests import DESCRIPTION
from focalnet_backbone.features.pooling import Boxes
from focalnet_backbone.features.sources import find_shards
from focalnet_backbone.models.image_processor import FocalNetImageProcessor
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.openmmlab.own_data import read_categories
from focalnet_backbone.report.detection import compare_detections
from focalnet_backbone.report.runs import read_run
from focalnet_backbone.system.inputs import LARGEST, check_file, parse_yaml, read_json, read_yaml
from focalnet_backbone.system.outputs import is_own

LAUGHS = "names: &l0 [lol, lol]\n" + "".join(f"L{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 9))
MERGES = "m0: &m0 {a: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 9))
STAIRS = "s0: &s0 [1]\n" + "".join(f"s{i}: &s{i} [*s{i - 1}]\n" for i in range(1, 200))

YAMLS = {
    "aliases of aliases": (LAUGHS, "with its aliases written out"),
    "merges of merges": (MERGES, "with its aliases written out"),
    "stairs of aliases": (STAIRS, "nested more than"),
    "itself": ("names: &n [*n]\n", "contains itself"),
    "deep": (f"names: {'[' * 900}{']' * 900}\n", "nested more than"),
    "deeper": (f"names: {'[' * 50_000}{']' * 50_000}\n", "nest"),
    "code": ("names: !!python/object/apply:os.mkdir ['code_was_run']\n", "python/object"),
    "large": (f"names: [a]\n#{'x' * LARGEST}\n", "larger than|more than"),
    "no YAML": ("names: [", "parsing|expected|did not find"),
}
JSONS = {
    "lists": ("[" * 20_000 + "]" * 20_000, "nested too deeply"),
    "objects": ('{"images":' * 20_000 + "1" + "}" * 20_000, "nested too deeply"),
    "unended": ('{"images": [' * 20_000, "nested too deeply"),
    "cut off": ('{"images": [', "Expecting|no shards|is not"),
}


def _with_photo(folder: Path) -> Path:
    (folder / "photos").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "photos" / "a.png")
    (folder / "photos" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    return folder / "photos"


def _import_yolo(path: Path) -> object:
    photos = _with_photo(path.parent)
    return read_labels("yolo", photos, photos, path, masks=False)


def _placed(name: str, read: Callable[[Path], object]) -> Callable[[Path], object]:
    """Read a file by the name that it must have, from its folder."""

    def run(path: Path) -> object:
        path.rename(path.with_name(name))
        return read(path.parent)

    return run


YAML_ENTRANCES: dict[str, Callable[[Path], object]] = {
    "detectron2": load_yaml,
    "mmengine": mmengine.fileio.load,
    "YOLO": _import_yolo,
    "any": read_yaml,
}
JSON_ENTRANCES: dict[str, Callable[[Path], object]] = {
    "config.json": FocalNetConfig.from_pretrained,
    "preprocessor_config.json": _placed("preprocessor_config.json", FocalNetImageProcessor.from_pretrained),
    "index of weights": _placed("model.safetensors.index.json", read_folder),
    "boxes": Boxes,
    "classes": read_categories,
    "report": lambda path: compare_detections(path, path),
    "benchmark": read_report,
    "shards": _placed(DESCRIPTION, FeatureDataset),
    "mmengine": mmengine.fileio.load,
    "createml": lambda path: read_labels("createml", _with_photo(path.parent), path, None, masks=False),
    "any": read_json,
}

FILES: dict[str, Callable[[Path], object]] = {
    "tar": lambda path: list(find_shards([str(path.rename(path.with_suffix(".tar")))])[0].read()),
    "Parquet": lambda path: find_shards([str(path.rename(path.with_suffix(".parquet")))]),
    "ONNX": open_session,
    "list": lambda path: find_shards([str(path.rename(path.with_suffix(".txt")))]),
}


@pytest.mark.parametrize("kind", YAMLS)
@pytest.mark.parametrize("entrance", YAML_ENTRANCES)
def test_hostile_yaml_is_refused_in_one_line(tmp_path, monkeypatch, entrance, kind):
    monkeypatch.chdir(tmp_path)
    text, words = YAMLS[kind]
    path = tmp_path / "given.yaml"
    path.write_text(text)
    with pytest.raises((ValueError, YAMLError), match=words):
        YAML_ENTRANCES[entrance](path)
    assert not (tmp_path / "code_was_run").exists()


@pytest.mark.parametrize("kind", JSONS)
@pytest.mark.parametrize("entrance", JSON_ENTRANCES)
def test_hostile_json_is_refused_in_one_line(tmp_path, entrance, kind):
    text, words = JSONS[kind]
    path = tmp_path / "given.json"
    path.write_text(text)
    with pytest.raises((ValueError, CheckpointError), match=rf"{words}|RecursionError"):
        JSON_ENTRANCES[entrance](path)


@pytest.mark.parametrize("kind", YAMLS)
def test_a_report_leaves_out_a_config_that_is_hostile(tmp_path, kind):
    (tmp_path / "metrics.json").write_text('{"iteration": 0, "total_loss": 1.0}\n' + JSONS["lists"][0] + "\n")
    (tmp_path / "config.yaml").write_text(YAMLS[kind][0])
    run = read_run(tmp_path)
    assert (run.done, run.config) == (1, {})


@pytest.mark.parametrize("kind", JSONS)
def test_the_check_of_a_dataset_tells_hostile_json(tmp_path, kind):
    (tmp_path / "given.json").write_text(JSONS[kind][0])
    assert "is not valid JSON" in coco_facts(str(tmp_path / "given.json"))["broken"]


def test_a_header_of_safetensors_that_is_hostile_is_none_of_ours(tmp_path):
    header = b"[" * 20_000
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert not is_own(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "entrance", [name for name in (*YAML_ENTRANCES, *JSON_ENTRANCES, *FILES) if name != "mmengine"]
)
def test_a_pipe_is_not_waited_for(tmp_path, entrance):
    path = tmp_path / ("given.yaml" if entrance in YAML_ENTRANCES else "given.json")
    os.mkfifo(path)
    with pytest.raises((OSError, ValueError, CheckpointError), match=r"is a pipe|none at|no "):
        {**YAML_ENTRANCES, **JSON_ENTRANCES, **FILES}[entrance](path)


@pytest.mark.parametrize(("path", "words"), [("/dev/zero", "is a device"), (".", "is a folder"), ("none", "No such")])
def test_what_is_no_file_is_said(path, words):
    with pytest.raises(OSError, match=words):
        check_file(path)


def test_yaml_within_the_limits_is_read_as_ever():
    text = "a: &a {x: [1, 2], y: ~}\nb: {<<: *a, z: 2024-01-01}\nc: [*a, *a]\n"
    import yaml

    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml("") is None
