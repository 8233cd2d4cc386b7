"""Exported files: what they give beside the model, what they tell, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from focalnet_backbone import FocalNet, FocalNetConfig
from focalnet_backbone.command.export import _size, main
from focalnet_backbone.export import run_onnx, to_file
from focalnet_backbone.export.check import _share_apart, compare
from focalnet_backbone.export.formats import SUFFIXES
from focalnet_backbone.export.sources import Exportable, from_backbone, from_classifier
from focalnet_backbone.export.to_file import Export, export_to_file
from focalnet_backbone.models.classification import FocalNetForImageClassification
from focalnet_backbone.models.image_processor import FocalNetImageProcessor

TINY = {"embed_dim": 4, "depths": [1, 1], "focal_levels": [1, 1], "focal_windows": [3, 3]}


@pytest.fixture(scope="module")
def backbone() -> FocalNet:
    torch.manual_seed(0)
    return FocalNet(out_indices=[1, 2], **TINY).eval()


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    names = dict(enumerate(["cat", "dog", "bird"]))
    folder = tmp_path_factory.mktemp("classifier")
    config = FocalNetConfig(num_labels=3, id2label=names, label2id={v: k for k, v in names.items()}, **TINY)
    FocalNetForImageClassification(config).save_pretrained(folder)
    FocalNetImageProcessor.for_image_size(32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier_onnx(classifier_folder, tmp_path_factory) -> Path:
    """What the command line writes of a classifier."""
    path = tmp_path_factory.mktemp("onnx") / "classifier.onnx"
    assert main([str(classifier_folder), "--to", "onnx", "--out", str(path)]) == 0
    return path


@pytest.fixture
def photo(tmp_path) -> Path:
    """A photograph whose sides nothing divides."""
    pixels = np.add.outer(np.arange(53), np.arange(71))[..., None] * np.array([1, 2, 3]) % 256
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture(scope="module")
def backbone_onnx(backbone, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "backbone.onnx"
    export_to_file(from_backbone(backbone), "onnx", path)
    return path


@pytest.mark.parametrize("shape", [(1, 3, 7, 9), (3, 3, 64, 33)])
def test_a_backbone_gives_its_maps_by_name_for_images_of_any_number_and_size(backbone, backbone_onnx, shape):
    session = onnxruntime.InferenceSession(backbone_onnx)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = backbone(images)
    assert [output.name for output in session.get_outputs()] == ["stage1", "stage2"]
    for name, found in zip(expected, session.run(None, {"images": images.numpy()}), strict=True):
        np.testing.assert_allclose(found, expected[name].numpy(), atol=1e-4)


@pytest.mark.parametrize("target", ["pt2", "torchscript"])
def test_other_formats_of_a_backbone_agree_as_well(backbone, tmp_path, target):
    size = (40, 56) if target == "torchscript" else None
    done = export_to_file(from_backbone(backbone), target, tmp_path / "model.pt", size=size)
    assert done.difference < 1e-4
    assert len(done.comparisons) == 3
    assert (len({one.shape for one in done.comparisons}) == 3) == (size is None)


@pytest.mark.parametrize("target", ["pt2", "torchscript"])
def test_other_formats_of_a_classifier_agree_as_well(classifier_folder, tmp_path, target):
    path = tmp_path / f"model{SUFFIXES[target]}"
    size = ["--size", "40x56"] if target == "torchscript" else []
    assert main([str(classifier_folder), "--to", target, "--out", str(path), *size]) == 0
    report = json.loads((tmp_path / "model_report.json").read_text())
    assert max(one["differences"]["logits"] for one in report["comparisons"]) < 1e-4


def test_labels_of_classes_as_good_as_equal_are_alike():
    logits = torch.tensor([[1.0, 1e-12], [1.0, 0.0]]).reshape(1, 2, 1, 2)
    found = torch.tensor([1, 0]).reshape(1, 1, 2)
    for wanted, share in (([1, 1], 0.0), ([0, 1], 0.0), ([1, 0], 0.0)):
        assert _share_apart(torch.tensor(wanted).reshape(1, 1, 2), found, logits) == share
    logits[0, 0, 0, 0] = 2.0
    assert _share_apart(torch.tensor([0, 1]).reshape(1, 1, 2), found, logits) == 0.5
    assert _share_apart(torch.tensor([0, 1]).reshape(1, 1, 2), found, None) == 1.0


def test_a_backbone_compiled_ahead_of_time_agrees(tmp_path):
    network = FocalNet(embed_dim=4, depths=[1], focal_levels=[1], focal_windows=[3], out_indices=[1]).eval()
    done = export_to_file(from_backbone(network), "aoti", tmp_path / "model.pt2", size=(16, 24))
    assert done.difference < 1e-4


@pytest.mark.parametrize("image", ["photo", "wide"])
def test_a_classifier_s_file_resizes_a_photo_as_its_processor_does(classifier_folder, classifier_onnx, photo, image):
    pixels = np.asarray(Image.open(photo))
    pixels = pixels if image == "photo" else np.concatenate([pixels] * 4, axis=1)
    model = FocalNetForImageClassification.from_pretrained(classifier_folder)
    processor = FocalNetImageProcessor.from_pretrained(classifier_folder)
    with torch.no_grad():
        expected = model(processor(Image.fromarray(pixels), return_tensors="pt").pixel_values).logits
    found = onnxruntime.InferenceSession(classifier_onnx).run(None, {"images": pixels[None]})[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=5e-3)


def test_a_file_tells_its_classes_its_version_and_its_source(classifier_onnx, classifier_folder):
    properties = {entry.key: entry.value for entry in onnx.load(classifier_onnx).metadata_props}
    told = json.loads(properties["focalnet"])
    assert told["classes"] == ["cat", "dog", "bird"]
    assert told["source"] == classifier_folder.name
    assert told["input"] == "uint8 RGB (N, H, W, 3)"
    report = json.loads((classifier_onnx.parent / "classifier_report.json").read_text())
    assert len(report["comparisons"]) == 3
    assert all(max(one["differences"].values()) < 1e-3 for one in report["comparisons"])


def test_the_example_beside_a_file_runs_without_torch_and_this_package(classifier_onnx, photo):
    blocked = "class B:\n def find_spec(s, n, *a):\n"
    blocked += "  if n.split('.')[0] in ('torch', 'focalnet_backbone'): raise ImportError(n)\n"
    example = classifier_onnx.with_name("classifier_example.py")
    code = f"import sys, runpy\n{blocked}sys.meta_path.insert(0, B())\nsys.argv = sys.argv[1:]\n"
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-I", "-c", code, str(example), str(classifier_onnx), str(photo)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert {line.split()[1] for line in ended.stdout.splitlines()} == {"cat", "dog", "bird"}


def test_the_example_brings_a_photo_to_the_one_size_of_a_file_and_says_so(classifier_folder, photo, tmp_path, capsys):
    file = tmp_path / "fixed.onnx"
    assert main([str(classifier_folder), "--to", "onnx", "--out", str(file), "--size", "40x56"]) == 0
    resized = tmp_path / "resized.png"
    Image.open(photo).resize((56, 40), Image.Resampling.BILINEAR).save(resized)
    capsys.readouterr()
    run_onnx.main(str(file), str(resized))
    expected = capsys.readouterr()
    assert (len(expected.out.splitlines()), expected.err) == (3, "")
    run_onnx.main(str(file), str(photo))
    told = capsys.readouterr()
    assert told.out == expected.out
    assert told.err == f"resized to 56x40, for which {file} was made; places are told in its pixels\n"


def test_the_example_runs_a_file_of_several_photos_at_once(photo, tmp_path, capsys):
    taken = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, [2, "H", "W", 3])
    given = onnx.helper.make_tensor_value_info("seen", onnx.TensorProto.UINT8, [2, "H", "W", 3])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["images"], ["seen"])], "g", [taken], [given])
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    onnx.helper.set_model_props(model, {"focalnet": json.dumps({"task": "features"})})
    onnx.save(model, tmp_path / "two.onnx")
    run_onnx.main(str(tmp_path / "two.onnx"), str(photo))
    assert capsys.readouterr().out == "seen 2 53 71 3\n"


@pytest.mark.parametrize("wrong", ["nowhere.onnx", "nowhere.png", "text.onnx", "text.png", "other.onnx"])
def test_the_example_names_a_file_that_is_none_in_one_line(classifier_onnx, photo, tmp_path, wrong):
    for name in ("text.png", "text.onnx"):
        (tmp_path / name).write_text("neither")
    other = onnx.load(classifier_onnx)
    del other.metadata_props[:]
    onnx.save(other, tmp_path / "other.onnx")
    given = {".onnx": classifier_onnx, ".png": photo} | {Path(wrong).suffix: tmp_path / wrong}
    with pytest.raises(SystemExit, match=re.escape(str(tmp_path / wrong))) as stopped:
        run_onnx.main(*map(str, given.values()))
    assert len(str(stopped.value).splitlines()) == 1


def test_classify_says_of_a_file_what_it_says_of_the_model(classifier_folder, classifier_onnx, photo, run_tool):
    status, expected, _ = run_tool("classify.py", photo, "--weights", classifier_folder)
    assert status == 0
    assert run_tool("classify.py", photo, "--weights", classifier_onnx)[:2] == (0, expected)


class _Forgetful(nn.Module):
    """Gives other numbers once it is exported."""

    def forward(self, images):
        return (images * (1.0 if torch.compiler.is_exporting() else 1.1),)


@pytest.mark.parametrize("target", ["pt2", "torchscript"])
@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_told_and_ends_no_process(backbone, tmp_path, target):
    path = tmp_path / f"model{SUFFIXES[target]}"
    with pytest.raises(OSError, match=re.escape(f"File too large: '{path}'")):
        export_to_file(from_backbone(backbone), target, path, size=(16, 24))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["onnx", "pt2"])
def test_a_file_that_disagrees_is_not_left_behind(tmp_path, target):
    exportable = Exportable(_Forgetful(), ("stage1",), "features", False)
    (tmp_path / "model.onnx").write_bytes(b"before")
    with pytest.raises(ValueError, match=r"stage1 of the exported file differs by .* on an input of 1x3x96x128"):
        export_to_file(exportable, target, tmp_path / "model.onnx", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"before"


def test_a_file_that_fails_at_a_size_is_named_with_it():
    exportable = Exportable(nn.Identity(), ("stage1",), "features", False)

    def fail(images):
        raise RuntimeError("no such size\nat all")

    with pytest.raises(ValueError, match=r"fails on an input of 1x3x8x8: no such size$"):
        compare(exportable, fail, [(1, 8, 8)])


def test_an_export_replaces_an_earlier_one_but_no_file_of_a_user_s(tmp_path, monkeypatch):
    exportable = Exportable(nn.Identity(), ("stage1",), "features", False)
    monkeypatch.setattr(to_file, "write", lambda e, target, path, *a, **k: path.write_bytes(b"model"))
    monkeypatch.setattr(to_file, "open_file", lambda target, path: None)
    monkeypatch.setattr(to_file, "compare", lambda *a: [])
    path = tmp_path / "model.onnx"
    assert isinstance(export_to_file(exportable, "onnx", path), Export)
    export_to_file(exportable, "onnx", path)
    path.write_bytes(b"a user's")
    with pytest.raises(FileExistsError, match=r"model\.onnx .*--force"):
        export_to_file(exportable, "onnx", path)
    assert path.read_bytes() == b"a user's"


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), ("512x768", (512, 768))])
def test_one_number_is_the_size_of_a_square(text, size):
    assert _size(text) == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["focalnet_tiny_lrf", "--to", "onnx", "--out", "a.pt2"], "a file of onnx ends in .onnx, got a.pt2"),
        (["upernet_focalnet_sample.py", "--to", "onnx", "--out", "a.onnx"], "is a config: name the checkpoint"),
        (["nowhere.py", "w.pth", "--to", "onnx", "--out", "a.onnx"], "no config at nowhere.py"),
        (["x", "--to", "onnx", "--out", "a.onnx", "--size", "1x9"], "must be HEIGHTxWIDTH of at least 2 pixels"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("focalnet export: ")
    assert message in last
    assert not list(tmp_path.iterdir())


def test_torchscript_keeps_one_size_and_says_so(backbone, tmp_path):
    with pytest.raises(ValueError, match=r"TorchScript keeps the size .*--size HEIGHTxWIDTH"):
        export_to_file(from_backbone(backbone), "torchscript", tmp_path / "model.pt")


def test_without_a_compiler_aoti_is_refused_in_one_line(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="needs a C\\+\\+ compiler"):
        export_to_file(from_backbone(backbone), "aoti", tmp_path / "model.pt2")


def test_a_processor_that_does_not_resize_is_refused_but_for_tensors(classifier_folder):
    model = FocalNetForImageClassification.from_pretrained(classifier_folder)
    processor = FocalNetImageProcessor(do_resize=False)
    with pytest.raises(ValueError, match=r"resizes to at least its crop .*--tensor does without"):
        from_classifier(model, processor)
    assert from_classifier(model, processor, photos=False).describe()["input"] == "normalised float (N, 3, H, W)"


def test_a_network_of_one_channel_takes_tensors_and_no_photos(tmp_path):
    network = FocalNet(out_indices=[1, 2], num_channels=1, **TINY).eval()
    exportable = from_backbone(network)
    assert export_to_file(exportable, "torchscript", tmp_path / "grey.pt", size=(20, 24)).difference < 1e-4
    told = json.loads((tmp_path / "grey_report.json").read_text())
    assert told["input"] == "normalised float (N, 1, H, W)"
    assert told["comparisons"][0]["shape"] == [1, 1, 20, 24]
    with pytest.raises(ValueError, match="of 1 channels takes no photos"):
        from_backbone(network, photos=True)
    classifier = FocalNetForImageClassification(FocalNetConfig(num_labels=3, num_channels=1, **TINY))
    with pytest.raises(ValueError, match="normalises three channels can be exported; --tensor does without"):
        from_classifier(classifier, FocalNetImageProcessor())
