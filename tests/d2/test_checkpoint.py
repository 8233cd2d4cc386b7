"""`MODEL.WEIGHTS`: every FocalNet format into the backbone of a detector, detectron2's checkpoints into all of it."""

from __future__ import annotations

import copy
import logging
import os
import pickle

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import ResNet, build_model
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem
from torch import nn

from focalnet_backbone import FocalNet
from focalnet_backbone.checkpoints import CheckpointError, export_state_dict
from focalnet_backbone.detectron2 import FocalNetCheckpointer
from tests.conftest import knobs_from_reference, load_golden


def detector_like(tiny_cfg, golden: dict) -> nn.Module:
    """A Mask R-CNN on a backbone of a reference vector's architecture."""
    for name, value in knobs_from_reference(golden["kwargs"]).items():
        if name.upper() in tiny_cfg.MODEL.FOCALNET:
            tiny_cfg.MODEL.FOCALNET[name.upper()] = value
    return build_model(tiny_cfg)


@pytest.fixture
def model(tiny_cfg) -> nn.Module:
    return build_model(tiny_cfg)


@pytest.fixture
def classifier(model) -> dict[str, torch.Tensor]:
    """Classification weights for the model's backbone: no output norms, but a final norm and a head."""
    torch.manual_seed(1)
    core = FocalNet(model.backbone.bottom_up.config)
    weights = {name: tensor for name, tensor in core.state_dict().items() if not name.startswith("norm")}
    return {**weights, "norm.weight": torch.ones(32), "norm.bias": torch.zeros(32), "head.weight": torch.ones(5, 32)}


def test_a_reference_detection_backbone_loads_under_bottom_up_and_answers_as_the_release_did(tiny_cfg, tmp_path):
    golden = load_golden("downstream_srf")
    model = detector_like(tiny_cfg, golden)
    detector = {f"backbone.{name}": tensor for name, tensor in golden["state_dict"].items()}
    detector["neck.lateral_convs.0.conv.weight"] = torch.zeros(8, 4, 1, 1)
    torch.save({"state_dict": detector, "meta": {}}, tmp_path / "detector.pth")
    FocalNetCheckpointer(model).load(tmp_path / "detector.pth")
    loaded = model.backbone.bottom_up.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in golden["state_dict"].items())
    features = model.backbone.bottom_up.double().eval()(golden["input"].double())
    for feature, expected in zip(features.values(), golden["features"], strict=True):
        torch.testing.assert_close(feature, expected, rtol=0, atol=1e-9)


def test_kernels_are_enlarged_as_the_release_enlarges_them(tiny_cfg, tmp_path):
    golden = load_golden("adapt_srf_3_to_9")
    model = detector_like(tiny_cfg, golden)
    torch.save({"model": golden["pretrained"]}, tmp_path / "classifier.pth")
    FocalNetCheckpointer(model).load(tmp_path / "classifier.pth")
    loaded = model.backbone.bottom_up.state_dict()
    assert golden["adapted"]
    for name, tensor in golden["adapted"].items():
        if name in loaded:
            torch.testing.assert_close(loaded[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("to", ["native", "transformers", "timm"])
def test_classification_weights_of_every_format_fill_the_backbone_and_nothing_else(model, classifier, to, tmp_path):
    heads = {name: t.clone() for name, t in model.state_dict().items() if "bottom_up" not in name}
    torch.save(export_state_dict(classifier, to, use_post_layernorm=False), tmp_path / "weights.pth")
    FocalNetCheckpointer(model).load(tmp_path / "weights.pth")
    after = model.state_dict()
    for name, tensor in classifier.items():
        if not name.startswith(("norm", "head")):
            assert torch.equal(after[f"backbone.bottom_up.{name}"], tensor), name
    assert all(torch.equal(after[name], tensor) for name, tensor in heads.items())


def test_a_folder_is_a_source_too(model, classifier, tmp_path):
    torch.save(export_state_dict(classifier, "transformers"), tmp_path / "pytorch_model.bin")
    FocalNetCheckpointer(model).load(str(tmp_path))
    proj = model.backbone.bottom_up.patch_embed.proj.weight
    assert torch.equal(proj, classifier["patch_embed.proj.weight"])


def test_what_save_writes_load_reads_back(tiny_cfg, model, tmp_path):
    optimizer = torch.optim.AdamW(model.parameters())
    FocalNetCheckpointer(model, str(tmp_path), optimizer=optimizer).save("detector", iteration=7)
    other = build_model(tiny_cfg)
    extra = FocalNetCheckpointer(other, require_all=True).load(tmp_path / "detector.pth")
    assert extra["iteration"] == 7
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert sorted(os.listdir(tmp_path)) == ["detector.pth", "last_checkpoint"]


def test_a_detector_of_other_classes_gives_all_but_its_predictors(tiny_cfg, model, tmp_path, caplog):
    FocalNetCheckpointer(model, str(tmp_path)).save("detector")
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 9
    other = build_model(tiny_cfg)
    with caplog.at_level(logging.WARNING):
        FocalNetCheckpointer(other).load(tmp_path / "detector.pth")
    assert "box_predictor.cls_score.weight" in caplog.text
    assert torch.equal(other.roi_heads.box_head.fc1.weight, model.roi_heads.box_head.fc1.weight)
    with pytest.raises(CheckpointError, match=r"not have the weights of the whole model.*6 tensors"):
        FocalNetCheckpointer(build_model(tiny_cfg), require_all=True).load(tmp_path / "detector.pth")


def test_a_detectors_kernels_are_enlarged_too(tiny_cfg, model, tmp_path):
    FocalNetCheckpointer(model, str(tmp_path)).save("detector")
    tiny_cfg.MODEL.FOCALNET.FOCAL_WINDOWS = [5, 5, 5, 5]
    other = build_model(tiny_cfg)
    FocalNetCheckpointer(other, require_all=True).load(tmp_path / "detector.pth")
    small, large = (
        m.backbone.bottom_up.layers[0].blocks[0].modulation.focal_layers[0][0].weight for m in (model, other)
    )
    assert torch.equal(large[..., 1:4, 1:4], small)
    assert large.count_nonzero() == small.count_nonzero()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"fc.weight": torch.zeros(2)}}, "no FocalNet weights"),
        ({}, "no FocalNet weights"),
        (["a list"], "no weights, but a list"),
    ],
)
@pytest.mark.parametrize("name", ["weights.pth", "weights.pkl"])
def test_a_file_that_matches_nothing_is_an_error_and_changes_nothing(model, content, message, name, tmp_path):
    torch.save(content, tmp_path / name)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"{name}: .*{message}"):
        FocalNetCheckpointer(model).load(tmp_path / name)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_backbone_alone_is_not_enough_where_the_whole_model_is_needed(model, classifier, tmp_path):
    torch.save(classifier, tmp_path / "classifier.pth")
    for source in (tmp_path / "classifier.pth", tmp_path, "focalnet_tiny_srf"):
        with pytest.raises(CheckpointError, match="whole model"):
            FocalNetCheckpointer(model, require_all=True).load(source)


def test_weights_saved_from_a_distributed_model_fill_all_of_it(tiny_cfg, model, tmp_path):
    torch.save({f"module.{name}": tensor for name, tensor in model.state_dict().items()}, tmp_path / "detector.pth")
    other = build_model(tiny_cfg)
    FocalNetCheckpointer(other, require_all=True).load(tmp_path / "detector.pth")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_file_in_the_home_folder_gives_the_whole_model_and_an_error_spoils_no_later_try(
    tiny_cfg, model, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    FocalNetCheckpointer(model, str(tmp_path)).save("detector")
    (tmp_path / "empty.pth").touch()
    checkpointer = FocalNetCheckpointer(build_model(tiny_cfg), require_all=True)
    with pytest.raises(CheckpointError, match="empty"):
        checkpointer.load("~/empty.pth")
    checkpointer.load("~/detector.pth")
    fc1 = checkpointer.model.roi_heads.box_head.fc1.weight
    assert torch.equal(fc1, model.roi_heads.box_head.fc1.weight)


@pytest.mark.parametrize("source", ["nowhere.pth", "focalnet_tinny_srf"])
def test_a_missing_source_is_named(model, source):
    with pytest.raises(FileNotFoundError, match=source):
        FocalNetCheckpointer(model).load(source)


def test_a_model_with_several_focalnets_is_refused(model):
    with pytest.raises(TypeError, match="at most one FocalNet in it, found 2"):
        FocalNetCheckpointer(nn.ModuleList([model, FocalNet(model.backbone.bottom_up.config)]))


@pytest.fixture
def resnet() -> nn.Module:
    """detectron2's ResNet under a name, with a head."""
    stem = BasicStem(3, 4, norm="BN")
    stage = ResNet.make_stage(BasicBlock, 1, in_channels=4, out_channels=4, norm="BN")
    return nn.ModuleDict({"backbone": ResNet(stem, [stage]), "head": nn.Linear(4, 2)})


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_of_arrays_fills_a_model_without_a_focalnet_as_detectron2_fills_it(resnet, protocol, tmp_path):
    arrays = {name: torch.rand_like(t).numpy() for name, t in resnet["backbone"].state_dict().items() if t.ndim}
    # As in the model zoo's: without the name that the backbone has in a detector.
    content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    (tmp_path / "R.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    theirs = copy.deepcopy(resnet)
    DetectionCheckpointer(theirs).load(str(tmp_path / "R.pkl"))
    FocalNetCheckpointer(resnet).load(str(tmp_path / "R.pkl"))
    ours = resnet.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.state_dict().items())
    assert all(torch.equal(ours[f"backbone.{name}"], torch.from_numpy(array)) for name, array in arrays.items())


def test_names_are_matched_by_their_ends_where_the_path_asks_for_it(resnet, tmp_path):
    weights = {f"net.{name}": torch.rand_like(t) for name, t in resnet["backbone"].state_dict().items() if t.ndim}
    torch.save({"model": {name.removeprefix("net."): tensor for name, tensor in weights.items()}}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth: none of its \d+ tensors fits the model"):
        FocalNetCheckpointer(resnet).load(str(tmp_path / "w.pth"))
    FocalNetCheckpointer(resnet).load(f"{tmp_path / 'w.pth'}?matching_heuristics=True")
    assert torch.equal(resnet["backbone"].stem.conv1.weight, weights["net.stem.conv1.weight"])
    with pytest.raises(CheckpointError, match="not have the weights of the whole model"):
        FocalNetCheckpointer(resnet, require_all=True).load(f"{tmp_path / 'w.pth'}?matching_heuristics=True")
    with pytest.raises(FileNotFoundError, match=r"no weights at R-101\.pkl"):
        FocalNetCheckpointer(resnet).load("R-101.pkl")


@pytest.mark.parametrize(
    ("content", "message"),
    [(pickle.dumps({"model": os.system}), r"it asks for (posix|nt|os)\.system"), (b"\x80\x02}q", "cut-off or damaged")],
)
def test_a_pickle_that_is_more_than_arrays_is_refused(resnet, content, message, tmp_path):
    (tmp_path / "R.pkl").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        FocalNetCheckpointer(resnet).load(str(tmp_path / "R.pkl"))


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_named_and_leaves_nothing(model, tmp_path):
    with pytest.raises(OSError, match="File too large") as failure:
        FocalNetCheckpointer(model, str(tmp_path)).save("last")
    assert failure.value.filename == str(tmp_path / "last.pth")
    assert not os.listdir(tmp_path)


def test_an_interrupted_save_leaves_the_older_checkpoint(model, tmp_path, monkeypatch):
    checkpointer = FocalNetCheckpointer(model, str(tmp_path))
    checkpointer.save("last", iteration=1)

    def interrupted(data, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save("last", iteration=2)
    assert sorted(os.listdir(tmp_path)) == ["last.pth", "last_checkpoint"]
    assert checkpointer.load(tmp_path / "last.pth")["iteration"] == 1
