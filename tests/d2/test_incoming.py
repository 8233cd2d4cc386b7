"""What comes into detectron2's tools: weights by every name, YAML, photos, levels. Nothing in them is run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import get_detection_dataset_dicts
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_model
from detectron2.utils.file_io import PathHandler, PathManager

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.detectron2 import FocalNetCheckpointer
from focalnet_backbone.detectron2.datasets import read_coco, register
from focalnet_backbone.detectron2.jobs import load_job, load_yaml
from focalnet_backbone.detectron2.loader import build_train_loader
from focalnet_backbone.detectron2.predict import Detectron2Predictor
from focalnet_backbone.detectron2.train import Run, train
from tests.checkpoints.hostile import HOSTILE
from tests.checkpoints.server import FileServer
from tests.d2.conftest import TINY
from tests.features.test_images import POSTSCRIPT


class Elsewhere(PathHandler):
    """A handler as `detectron2://` has one, of files that lie elsewhere."""

    folder: Path

    def _get_supported_prefixes(self) -> list[str]:
        return ["elsewhere://"]

    def _get_local_path(self, path: str, **options: object) -> str:
        return str(self.folder / path.removeprefix("elsewhere://"))


@pytest.fixture
def names(tmp_path, monkeypatch):
    """`names(path)`: the ways in which a file can be named."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    Elsewhere.folder = tmp_path
    PathManager.register_handler(Elsewhere(), allow_override=True)
    with FileServer().running() as server:

        def every_name(path: Path) -> list[str]:
            server.files[f"/{path.name}"] = path.read_bytes()
            (tmp_path / f"link{path.suffix}").unlink(missing_ok=True)
            (tmp_path / f"link{path.suffix}").symlink_to(path)
            link = tmp_path / f"link{path.suffix}"
            return [str(path), str(link), f"{server.address}/{path.name}", f"elsewhere://{path.name}"]

        yield every_name


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_by_no_name_code_in_weights_is_run(tiny_cfg, names, tmp_path, kind, suffix):
    tiny_cfg.MODEL.DEVICE = "cpu"
    checkpointer = FocalNetCheckpointer(BACKBONE_REGISTRY.get("build_focalnet_backbone")(tiny_cfg, ShapeSpec(3)))
    path = tmp_path / f"weights{suffix}"
    HOSTILE[kind](path, tmp_path / "code_was_run")
    for name in names(path):
        with pytest.raises(CheckpointError, match=r"pickle that needs more than tensors"):
            checkpointer.load(name)
        assert not (tmp_path / "code_was_run").exists()


def test_weights_are_read_by_every_name(tiny_cfg, names, tmp_path):
    build = BACKBONE_REGISTRY.get("build_focalnet_backbone")
    source, backbone = build(tiny_cfg, ShapeSpec(3)), build(tiny_cfg, ShapeSpec(3))
    torch.save({"model": source.state_dict()}, tmp_path / "weights.pth")
    for name in names(tmp_path / "weights.pth"):
        torch.nn.init.zeros_(backbone.patch_embed.proj.weight)
        FocalNetCheckpointer(backbone).load(name)
        assert torch.equal(backbone.patch_embed.proj.weight, source.patch_embed.proj.weight)


@pytest.mark.parametrize("address", ["detectron2://nothing", "catalog://nothing", "elsewhere://nothing.pth"])
def test_a_name_behind_which_nothing_is_is_said(tiny_cfg, names, address, monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    backbone = BACKBONE_REGISTRY.get("build_focalnet_backbone")(tiny_cfg, ShapeSpec(3))
    with pytest.raises((CheckpointError, FileNotFoundError), match="nothing"):
        FocalNetCheckpointer(backbone).load(address)


@pytest.mark.parametrize("place", ["MODEL", "_BASE_"])
@pytest.mark.parametrize("tag", ["object/apply:os.mkdir", "object/new:os.mkdir", "name:os.mkdir", "module:os"])
def test_yaml_is_data(tmp_path, tag, place):
    value = f"['{tmp_path / 'code_was_run'}']" if tag.startswith("object") else "''"
    (tmp_path / "direct.yaml").write_text(f"MODEL:\n  META_ARCHITECTURE: !!python/{tag} {value}\n")
    (tmp_path / "by_base.yaml").write_text("_BASE_: direct.yaml\nSEED: 1\n")
    name = "direct.yaml" if place == "MODEL" else "by_base.yaml"
    with pytest.raises(ValueError, match=rf"{name} is not YAML of plain data.*python/{tag}.*direct\.yaml"):
        load_yaml(tmp_path / name)
    assert not (tmp_path / "code_was_run").exists()


@pytest.mark.parametrize("text", ["", "- 1\n", "_BASE_: config.yaml\n", "_BASE_: 5\n", "MODEL: 3\n"])
def test_yaml_that_is_no_config_is_named(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml"):
        load_yaml(tmp_path / "config.yaml")


LAUGHS = "".join(f"L{i}: &l{i} [{', '.join([f'*l{i - 1}' if i else 'lol'] * 9)}]\n" for i in range(9))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "with its aliases written out"),
        ("MODEL: &m {A: *m}\n", "contains itself"),
        (f"MODEL: {'[' * 500}{']' * 500}\n", "nested more than"),
        (f"MODEL: {'[' * 5000}{']' * 5000}\n", "nesting depth"),
        (f"VERSION: 2\n#{'x' * (1 << 21)}\n", "larger than"),
    ],
)
@pytest.mark.parametrize("name", ["direct.yaml", "by_base.yaml"])
def test_yaml_that_would_take_all_memory_is_named_and_not_made(tmp_path, name, text, words):
    (tmp_path / "direct.yaml").write_text(text)
    (tmp_path / "by_base.yaml").write_text("_BASE_: direct.yaml\nSEED: 1\n")
    with pytest.raises(ValueError, match=rf"\.yaml.* {words}"):
        load_yaml(tmp_path / name)


def test_aliases_of_a_config_are_as_ever(tmp_path):
    (tmp_path / "config.yaml").write_text(
        f"_BASE_: {TINY}\nSOLVER: {{STEPS: &s [3, 4]}}\nINPUT: {{MIN_SIZE_TRAIN: *s}}\n"
    )
    cfg = load_yaml(tmp_path / "config.yaml")
    assert tuple(cfg.SOLVER.STEPS) == tuple(cfg.INPUT.MIN_SIZE_TRAIN) == (3, 4)


def test_a_value_on_the_command_line_calls_nothing(tmp_path):
    call = f"!!python/object/apply:os.mkdir ['{tmp_path / 'code_was_run'}']"
    load_yaml(TINY, ["OUTPUT_DIR", call])
    assert not (tmp_path / "code_was_run").exists()


@pytest.mark.parametrize("builder", ["build_focalnet_fpn_backbone", "build_retinanet_focalnet_fpn_backbone"])
@pytest.mark.parametrize(
    ("names", "words"), [(["stage1", "stag2"], "has 'stag2'"), (["stage2", "res9"], "has 'res9'"), ([], "is empty")]
)
def test_levels_that_the_backbone_lacks_are_named_with_those_it_has(tiny_cfg, builder, names, words):
    tiny_cfg.MODEL.FPN.IN_FEATURES = names
    with pytest.raises(ValueError, match=rf"IN_FEATURES {words}.*stage1, stage2, stage3, stage4"):
        BACKBONE_REGISTRY.get(builder)(tiny_cfg, ShapeSpec(3))


def test_a_lazy_configs_level_that_the_backbone_lacks_is_named():
    cfg = LazyConfig.load("configs/detectron2/mask_rcnn_focalnet_tiny_srf_1x.py").model.backbone
    cfg.in_features = ["stage1", "stag2"]
    with torch.device("meta"), pytest.raises(KeyError, match="gives no map 'stag2', but stage1"):
        instantiate(cfg)


def test_a_head_with_nan_is_refused_by_name(tiny_cfg, tmp_path):
    tiny_cfg.MODEL.DEVICE = "cpu"
    model = build_model(tiny_cfg)
    state = model.state_dict()
    state["roi_heads.box_predictor.cls_score.weight"][0, 0] = float("inf")
    torch.save({"model": state}, tmp_path / "detector.pth")
    with pytest.raises(CheckpointError, match=r"detector\.pth: roi_heads\.box_predictor.* contain NaN"):
        FocalNetCheckpointer(model).load(str(tmp_path / "detector.pth"))


@pytest.mark.parametrize("run", [{"categories": "cat"}, {"categories": [{"id": "1", "name": 2}]}, {"categories": [3]}])
def test_classes_that_a_checkpoint_tells_wrongly_are_refused_by_its_name(tmp_path, run):
    torch.save({"model": {}, "run": run}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth does not tell its classes"):
        Detectron2Predictor(TINY, tmp_path / "odd.pth", device="cpu")


@pytest.mark.parametrize("change", [{"iteration": None}, {"run": 5}, {"trainer": [1]}, {"run": {"seed": 1}}])
def test_a_checkpoint_that_training_cannot_go_on_from_is_named(sample, tmp_path, tiny_cfg, change):
    job = load_job(TINY, ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path)])
    job.use_datasets(read_coco(sample / "coco/instances_training.json", sample / "images/training"), None)
    run = Run(seed=0, batch_size=2, processes=1, categories=[])
    saved = {"model": job.model().state_dict(), "iteration": 1, "trainer": {}, "run": run.state_dict(), **change}
    torch.save(saved, tmp_path / "model_0000001.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    with pytest.raises(CheckpointError, match=r"model_0000001\.pth (cannot be gone on from|does not tell)"):
        train(job, resume=True)


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:7"])
def test_a_device_that_there_is_not_is_refused_with_those_there_are(sample, device):
    job = load_job(TINY, ["MODEL.DEVICE", device])
    job.use_datasets(read_coco(sample / "coco/instances_training.json", sample / "images/training"), None)
    with pytest.raises(ValueError, match=rf"device must be cpu.*got '{device}'"):
        job.check(train=True)


@pytest.mark.parametrize("loader", ["training", "test"])
def test_no_program_is_started_for_a_photo_that_is_none(sample, tmp_path, loader, ghostscript):
    root = shutil.copytree(sample, tmp_path / "sample")
    for photo in (root / "images" / "training").iterdir():
        photo.write_bytes(POSTSCRIPT)
    name = register(read_coco(root / "coco/instances_training.json", root / "images/training"))
    job = load_job(TINY, ["MODEL.DEVICE", "cpu"])
    if loader == "test":
        batches = job.test_loader(name)
    else:
        batches = build_train_loader(get_detection_dataset_dicts(name), job.train_mapper(), 2)
    with pytest.raises(ValueError, match=r"jpg is no photo"):
        next(iter(batches))
    assert not ghostscript.exists()
