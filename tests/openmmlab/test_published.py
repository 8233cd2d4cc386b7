"""Published DINO detectors in mmdetection: the same answers as the published code, by every way that loads weights."""

from __future__ import annotations

import argparse
import copy
import re

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.runner import load_checkpoint as load_by_mmengine
from torch import nn

from focalnet_backbone import CheckpointError, load_checkpoint
from focalnet_backbone.checkpoints.convert import convert_checkpoint
from focalnet_backbone.checkpoints.detector import fit_dino, model_settings
from focalnet_backbone.checkpoints.dino import COCO_IDS, DinoSize, export_release, module_names, recognise_dino, rename
from focalnet_backbone.checkpoints.published import DETECTORS
from focalnet_backbone.openmmlab.runners import load_config
from focalnet_backbone.openmmlab.weights import read_weights
from tests.conftest import load_golden
from tests.openmmlab.conftest import ROOT
from tests.openmmlab.dino import MODELS, answer, build_small

VECTORS = {"dino_release_4scale": None, "dino_detrex_4scale": None, "dino_release_4scale_91_classes": 80}


@pytest.fixture(params=VECTORS)
def vector(request) -> tuple[dict, int | None]:
    return load_golden(request.param), VECTORS[request.param]


@pytest.fixture(scope="module")
def release() -> dict:
    return load_golden("dino_release_4scale")


def assert_answers(detector: nn.Module, golden: dict, dtype: torch.dtype, tolerance: float) -> None:
    outputs = golden["outputs"]
    found = answer(detector, golden["input"].to(dtype))
    classes = list(COCO_IDS) if golden["kwargs"]["num_classes"] == 91 else slice(None)
    expected = {
        "all_boxes": outputs["all_boxes"],
        "enc_boxes": outputs["enc_boxes"],
        "all_logits": outputs["all_logits"] if "all_logits" in outputs else outputs["pred_logits"][None],
    }
    expected["all_logits"] = expected["all_logits"][..., classes]
    found["all_logits"] = found["all_logits"][-len(expected["all_logits"]) :]
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name].double(), tensor, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_every_layer_answers_as_the_published_code_does(vector):
    golden, classes = vector
    detector = build_small(golden, classes)
    report = load_checkpoint(detector, {"model": golden["state_dict"]})
    assert (report.missing, report.unexpected, report.differs) == ((), (), ())
    assert len(report.loaded) + len(report.resized) == len(detector.state_dict())
    assert len(report.loaded) + len(report.resized) + len(report.ignored) == len(golden["state_dict"])
    assert len(report.resized) == (7 if classes else 0)
    assert_answers(detector, golden, torch.float64, 1e-5)
    assert_answers(detector, golden, torch.float32, 1e-4)


def test_mmengine_loads_the_files_by_itself(vector, tmp_path):
    golden, classes = vector
    container = {"model": golden["state_dict"], "epoch": 11, "args": argparse.Namespace(lr=1e-4)}
    torch.save(container, tmp_path / "checkpoint.pth")
    detector = build_small(golden, classes)
    load_by_mmengine(detector, str(tmp_path / "checkpoint.pth"))
    assert_answers(detector, golden, torch.float64, 1e-5)

    by_init_cfg = build_small(golden, classes)
    by_init_cfg.init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "checkpoint.pth")}
    by_init_cfg.backbone.init_cfg = None
    by_init_cfg.init_weights()
    for name, tensor in detector.state_dict().items():
        assert torch.equal(by_init_cfg.state_dict()[name], tensor), name

    weights, _ = read_weights(tmp_path / "checkpoint.pth")
    assert weights.keys() == detector.state_dict().keys()


def test_heads_of_other_classes_are_left_out_where_mmengine_fine_tunes(release, tmp_path):
    torch.save({"model": release["state_dict"]}, tmp_path / "objects.pth")
    detector = build_small(release, classes=5)
    before = copy.deepcopy(detector.state_dict())
    load_by_mmengine(detector, str(tmp_path / "objects.pth"))
    for name, tensor in detector.state_dict().items():
        of_classes = "cls_branches" in name or "label_embedding" in name
        assert torch.equal(tensor, before[name]) == of_classes or (before[name] == tensor).all(), name
        if not of_classes and "patch_embed.proj.weight" in name:
            assert torch.equal(tensor, release["state_dict"]["backbone.0.patch_embed.proj.weight"])
    with pytest.raises(CheckpointError, match=r"has 7 classes, the model 5 \(bbox_head\.num_classes\)"):
        load_checkpoint(detector, {"model": release["state_dict"]})


def rebuilt(release: dict, **changes) -> nn.Module:
    golden = copy.deepcopy(release)
    golden["kwargs"]["backbone"].update(changes.pop("backbone", {}))
    golden["kwargs"].update(changes)
    return build_small(golden)


def without_bias(release: dict) -> nn.Module:
    detector = build_small(release)
    for part in (*detector.neck.convs, *detector.neck.extra_convs):
        part.conv.bias = None
    return detector


REFUSED = {
    "levels": (
        lambda g: _with_levels(g, 3),
        r"level_embed has shape \(4, 32\), the model needs \(3, 32\); num_feature_levels",
    ),
    "bias": (without_bias, r"has 8? ?4 tensors that the model has no place for \(neck\.convs\.\*\.conv.*neck\.bias"),
    "windows": (
        lambda g: rebuilt(g, backbone={"focal_windows": [3, 5, 5, 5]}),
        r"backbone\.focal_windows probably differs",
    ),
    "focal levels": (
        lambda g: rebuilt(g, backbone={"focal_levels": [2, 3, 3, 3]}),
        r"backbone\.(focal_levels|embed_dim) probably differs",
    ),
    "queries": (lambda g: rebuilt(g, num_queries=9), r"num_queries probably differs"),
    "layers": (lambda g: rebuilt(g, dec_layers=1), r"num_layers probably differs"),
    "encoding": (
        lambda g: rebuilt(g, origin="detrex"),
        r"positional_encoding\.temperature: 20 in the source, 10000 in the model; positional_encoding\.offset: 0",
    ),
    "stem": (
        lambda g: rebuilt(g, backbone={"conv_embed_stem_padding": 3}),
        r"conv_embed_stem_padding: 2 in the source, 3 in the model",
    ),
}


def _with_levels(golden: dict, levels: int) -> nn.Module:
    from tests.openmmlab.dino import small_config

    model = small_config(golden)
    model.num_feature_levels = model.neck.num_outs = levels
    model.encoder.layer_cfg.self_attn_cfg.num_levels = model.decoder.layer_cfg.cross_attn_cfg.num_levels = levels
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(model)


@pytest.mark.parametrize("setting", REFUSED)
def test_a_model_of_other_settings_is_refused_in_one_line_and_stays_as_it_was(release, tmp_path, setting):
    make, words = REFUSED[setting]
    detector = make(release)
    before = copy.deepcopy(detector.state_dict())
    torch.save({"model": release["state_dict"]}, tmp_path / "detector.pth")
    with pytest.raises(CheckpointError, match=words) as refusal:
        load_checkpoint(detector, tmp_path / "detector.pth")
    assert "\n" not in str(refusal.value)
    assert str(tmp_path / "detector.pth") in str(refusal.value)
    with pytest.raises(CheckpointError, match=words):
        load_by_mmengine(detector, str(tmp_path / "detector.pth"))
    for name, tensor in detector.state_dict().items():  # Some of which are not initialised.
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)


def test_what_is_no_detector_is_refused(release):
    backbone = {name: x for name, x in release["state_dict"].items() if name.startswith("backbone.")}
    with pytest.raises(CheckpointError, match="holds no DINO detector"):
        load_checkpoint(build_small(release), backbone)
    damaged = {**release["state_dict"], "label_enc.weight": torch.full((8, 32), float("nan"))}
    with pytest.raises(CheckpointError, match="contains NaN"):
        load_checkpoint(build_small(release), damaged)
    cut = {name: x for name, x in release["state_dict"].items() if "encoder.layers" not in name}
    with pytest.raises(CheckpointError, match=r"that lacks transformer\.encoder\.layers\.0"):
        load_checkpoint(build_small(release), cut)


def test_a_detector_goes_back_to_the_release_and_returns_unchanged(vector, tmp_path):
    golden, classes = vector
    detector = build_small(golden, classes)
    load_checkpoint(detector, {"model": golden["state_dict"]})
    of_detrex = golden["kwargs"]["origin"] == "detrex"
    meta = {"cfg": "model = dict(positional_encoding=dict(offset=-0.5, temperature=10000))"} if of_detrex else {}
    torch.save({"meta": meta, "state_dict": detector.state_dict()}, tmp_path / "epoch_1.pth")
    if of_detrex:
        with pytest.raises(CheckpointError, match=r"has no place for positional_encoding\.offset=-0\.5"):
            convert_checkpoint(tmp_path / "epoch_1.pth", tmp_path / "release.pth", "focalnet-dino")
        assert not (tmp_path / "release.pth").exists()
        return
    convert_checkpoint(tmp_path / "epoch_1.pth", tmp_path / "release.pth", "focalnet-dino")
    exported = torch.load(tmp_path / "release.pth", weights_only=True)["model"]
    assert exported.keys() == golden["state_dict"].keys()
    rows = list(COCO_IDS) if classes else slice(0, golden["kwargs"]["num_classes"])
    for name, tensor in golden["state_dict"].items():
        of_classes = "class_embed" in name or "label_enc" in name
        assert exported[name].shape == tensor.shape, name
        assert torch.equal(exported[name][rows], tensor[rows]) if of_classes else torch.equal(exported[name], tensor), (
            name
        )
    again = build_small(golden, classes)
    load_checkpoint(again, tmp_path / "release.pth")
    assert_answers(again, golden, torch.float64, 1e-5)

    convert_checkpoint(tmp_path / "release.pth", tmp_path / "mmdet.pth", "mmdet")
    named = torch.load(tmp_path / "mmdet.pth", weights_only=True)["state_dict"]
    assert named.keys() == detector.state_dict().keys()
    assert all(torch.equal(named[name], tensor) for name, tensor in detector.state_dict().items())


def test_settings_of_a_file_of_mmengine_are_those_of_the_config_in_it(release):
    detector = build_small(release)
    text = "model = dict(positional_encoding=dict(num_feats=16, normalize=True, offset=0.0, temperature=30))"
    checkpoint = {"meta": {"cfg": text}, "state_dict": detector.state_dict()}
    with pytest.raises(CheckpointError, match=r"temperature: 30 in the source, 20 in the model"):
        load_checkpoint(detector, checkpoint)
    assert load_checkpoint(detector, checkpoint, strict=False).differs
    for other in ("model = dict(", "x" * 10, ""):
        assert not load_checkpoint(detector, {**checkpoint, "meta": {"cfg": other}}).differs


FULL = {
    "dino-4scale_focalnet_large_fl3_12e_coco": ("release", DinoSize(3, 4, 6, 6), 791, 839),
    "dino-5scale_focalnet_large_fl4_12e_coco": ("release", DinoSize(4, 5, 6, 6), 821, 869),
    "dino-4scale_focalnet_large_fl3_detrex_12e_coco": ("detrex", DinoSize(3, 4, 6, 6), 791, 847),
}


@pytest.mark.parametrize("name", FULL)
def test_full_size_models_take_every_name_of_the_published_ones(name):
    origin, size, ours, theirs = FULL[name]
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
        detector = MODELS.build(load_config(ROOT / "configs" / "mmdet" / f"{name}.py").model)
    target = detector.state_dict()
    modules = module_names(origin, size)
    back = {ours: theirs for theirs, ours in modules.items()}
    assert len(modules) == len(back)
    published = {rename(name, back): tensor for name, tensor in target.items()}
    assert None not in published
    assert len(published) == len(target) == ours
    twice = [n for n in published if n.startswith(("bbox_embed.", "class_embed."))]
    assert len(published) + len(twice) == theirs
    if origin == "release":  # Its own rows, and one more of no class.
        published["label_enc.weight"] = torch.empty(81, 256, device="meta")
    published |= {f"transformer.decoder.{n}": published[n] for n in twice}
    weights = recognise_dino({"model": published})
    assert (weights.origin, weights.size) == (origin, size)
    assert {n: x.shape for n, x in weights.tensors.items()} == {n: x.shape for n, x in target.items()}
    assert len(weights.duplicates) == len(twice)


def test_every_published_detector_has_a_config_that_it_fits(monkeypatch):
    for detector in DETECTORS.values():
        cfg = load_config(ROOT / "configs" / "mmdet" / f"{detector.config}.py")
        assert re.fullmatch(r"https://\S+\.pth", detector.address)
        encoding = cfg.model.positional_encoding
        assert (encoding.temperature, encoding.offset) == ((20, 0.0) if detector.origin == "release" else (10000, -0.5))
        assert re.search(rf"{detector.parameters} M", (ROOT / "configs/mmdet" / f"{detector.config}.py").read_text())
    seen = []
    monkeypatch.setattr(
        "focalnet_backbone.checkpoints.sources.download", lambda address: seen.append(address) or address
    )
    monkeypatch.setattr("focalnet_backbone.checkpoints.sources.read_file", lambda path: {"from": path})
    name, detector = next(iter(DETECTORS.items()))
    assert CheckpointLoader.load_checkpoint(name) == {"from": detector.address}
    assert seen == [detector.address]


def test_what_a_model_is_set_to_is_what_an_export_states(release):
    detector = build_small(release)
    detector.init_weights()  # Until then, some of mmdetection's parameters are what was in the memory before.
    weights = recognise_dino({"state_dict": detector.state_dict(), "settings": model_settings(detector)})
    assert export_release(weights)["settings"] == {
        "positional_encoding.temperature": 20,
        "positional_encoding.offset": 0.0,
    }
    fitted, _ = fit_dino(detector, recognise_dino(export_release(weights)))
    assert fitted.keys() == detector.state_dict().keys()
