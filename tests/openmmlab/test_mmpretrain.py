"""mmpretrain as a host: published classifiers answer as ours do, and its configs train and fine-tune."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmpretrain.models be imported)
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain import ImageClassificationInferencer, get_model
from mmpretrain.registry import DATASETS
from mmpretrain.utils import dependency
from PIL import Image

from focalnet_backbone import FocalNetConfig, command
from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.checkpoints.formats import export_state_dict
from focalnet_backbone.data_check.openmmlab import check_config
from focalnet_backbone.models import FocalNetForImageClassification
from focalnet_backbone.openmmlab import load_classifier
from focalnet_backbone.openmmlab.optional import defer_optional_packages
from focalnet_backbone.openmmlab.runners import load_config
from focalnet_backbone.own_data import OwnData, Split
from tests.openmmlab.conftest import ROOT

CONFIGS = sorted((ROOT / "configs" / "mmpretrain").glob("*.py"))
KNOBS = {"embed_dim": 8, "depths": [1, 1, 1, 1]}


@pytest.fixture(scope="module")
def ours() -> FocalNetForImageClassification:
    torch.manual_seed(0)
    model = FocalNetForImageClassification(FocalNetConfig(**KNOBS, num_labels=2)).eval()
    for parameter in model.parameters():  # Not zeros and ones, where a name that is mixed up would not show.
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of a tiny classifier of folders of images."""
    tmp_path = tmp_path_factory.mktemp("mmpretrain")
    for split in ("train", "val"):
        for i, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(2):
                noise = np.random.default_rng(number).integers(0, 255, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / split / name / f"{i}{number}.png")
    config = tmp_path / "tiny.py"
    config.write_text(
        f"_base_ = [{str(CONFIGS[0])!r}]\n"
        f"backbone = dict(variant=None, embed_dim=8, depths=[1, 1, 1, 1], drop_path_rate=0.0)\n"
        "model = dict(backbone=backbone, head=dict(num_classes=2, in_channels=64))\n"
        "data_preprocessor = dict(num_classes=2)\n"
        "loader = dict(batch_size=2, num_workers=0, persistent_workers=False)\n"
        f"own = dict(_delete_=True, type='CustomDataset', data_root={str(tmp_path)!r}, with_label=True)\n"
        "train_dataloader = dict(**loader, dataset=dict(**own, data_prefix='train', pipeline=_base_.train_pipeline))\n"
        "val_dataloader = dict(**loader, dataset=dict(**own, data_prefix='val', pipeline=_base_.test_pipeline))\n"
        "test_dataloader = val_dataloader\n"
        "val_evaluator = dict(topk=(1,))\ntest_evaluator = val_evaluator\n"
        "load_from = None\nparam_scheduler = []\n"
        "train_cfg = dict(max_epochs=1)\n"
    )
    return config


@pytest.mark.parametrize("to", ["native", "transformers", "timm"])
def test_a_classification_checkpoint_of_any_format_gives_our_classifiers_logits(ours, tiny, tmp_path, to):
    path = tmp_path / "weights.pth"
    torch.save(export_state_dict(ours.state_dict(), to, use_post_layernorm=False), path)
    model = get_model(str(tiny), pretrained=f"focalnet:{path}")
    image = torch.rand(2, 3, 64, 80)
    with torch.no_grad():
        torch.testing.assert_close(model(image), ours(image).logits)


def test_weights_without_a_head_are_refused(tmp_path, ours):
    torch.save({k: v for k, v in ours.state_dict().items() if not k.startswith("head")}, tmp_path / "trunk.pth")
    with pytest.raises(CheckpointError, match=r"trunk\.pth: is no classifier"):
        load_classifier(f"focalnet:{tmp_path / 'trunk.pth'}")


@pytest.fixture(scope="module")
def trained(ours, tiny, tmp_path_factory) -> Path:
    """The checkpoint of a training by `focalnet train`, from our classifier's weights."""
    work_dir = tmp_path_factory.mktemp("work")
    torch.save(ours.state_dict(), work_dir / "weights.pth")
    options = [f"load_from=focalnet:{work_dir / 'weights.pth'}", "experiment_name=mmpretrain"]
    assert command.main(["train", str(tiny), "--work-dir", str(work_dir), "--cfg-options", *options]) == 0
    return work_dir / "epoch_1.pth"


def test_a_classifier_trains_from_published_weights(ours, trained):
    checkpoint = torch.load(trained, weights_only=True)
    assert list(checkpoint["meta"]["dataset_meta"]["classes"]) == ["cat", "dog"]
    # Two iterations at a rate of 1e-3, from the weights that were named.
    torch.testing.assert_close(checkpoint["state_dict"]["head.fc.weight"], ours.head.weight, rtol=0, atol=3e-3)
    assert not torch.equal(checkpoint["state_dict"]["head.fc.weight"], ours.head.weight)


def test_a_report_has_the_curves_of_a_training(trained, tmp_path):
    assert command.main(["report", str(trained.parent), "--out", str(tmp_path / "report.html")]) == 0
    assert "accuracy/top1" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_trained_classifier_names_what_it_sees(tiny, trained):
    inferencer = ImageClassificationInferencer(str(tiny), pretrained=str(trained), device="cpu")
    (result,) = inferencer(np.zeros((30, 50, 3), np.uint8))
    assert result["pred_class"] in ("cat", "dog")
    assert result["pred_scores"].shape == (2,)


def test_a_test_writes_predictions_and_paints(tiny, trained, tmp_path):
    show, found = ["--show-dir", str(tmp_path / "painted")], ["--out", str(tmp_path / "found.pkl")]
    work = ["--work-dir", str(tmp_path / "work"), "--cfg-options", "experiment_name=mmpretrain_"]
    for name, flags in (("tta", ["--tta", *found]), ("show", show)):
        assert command.main(["test", str(tiny), str(trained), *flags, *work[:-1], work[-1] + name]) == 0
    assert command.main(["test", str(tiny), str(trained), "--tta", *show]) == 2
    found = pickle.loads((tmp_path / "found.pkl").read_bytes())
    assert sorted(int(result["gt_label"]) for result in found) == [0, 0, 1, 1]
    assert all(abs(float(result["pred_score"].sum()) - 1) < 1e-4 for result in found)
    assert len(list((tmp_path / "painted").iterdir())) == 4


def test_classes_are_checked_before_training(tiny, capsys):
    options = ["model.head.num_classes=3", "data_preprocessor.num_classes=4"]
    assert command.main(["check-data", str(tiny), "--cfg-options", *options]) == 2
    told = capsys.readouterr().err
    assert "model.head.num_classes is 3, but the data has 2" in told
    assert "data_preprocessor.num_classes is 4, but the data has 2" in told


def test_photos_are_classified_by_mmpretrains_own_inferencer(tiny, trained, tmp_path, capsys):
    photo = next(tiny.parent.glob("val/cat/*.png"))
    assert command.main(["predict", str(tiny), str(trained), str(photo), "--out", str(tmp_path / "out")]) == 2
    assert "ImageClassificationInferencer" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of three classes, a folder each; those to evaluate on lack any of one."""
    for split in ("train", "val"):
        for name, colour in (("cat", "red"), ("dog", "white"), ("owl", "blue")):
            (tmp_path / split / name).mkdir(parents=True)
            if (split, name) != ("val", "cat"):
                Image.new("RGB", (40, 48), colour).save(tmp_path / split / name / "1.webp")
    return tmp_path


OWN = str(ROOT / "configs/mmpretrain/focalnet_tiny_lrf_finetune_30e_in1k.py")


def test_a_folder_a_class_is_put_in_the_place_of_imagenet(photos):
    data = OwnData(Split(photos / "train"), Split(photos / "val"), size=(96, 96))
    cfg = load_config(OWN, None, data)
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 3
    assert cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1,)
    steps = {step["type"]: step for step in (*cfg.train_pipeline, *cfg.test_pipeline)}
    assert steps["RandomResizedCrop"]["scale"] == steps["CenterCrop"]["crop_size"] == 96
    assert steps["ResizeEdge"]["scale"] == round(256 * 96 / 224)
    train, val = (DATASETS.build({**cfg[f"{name}_dataloader"].dataset, "pipeline": []}) for name in ("train", "val"))
    named = [(Path(sample["img_path"]).parent.name, sample["gt_label"]) for sample in train]
    assert named == [("cat", 0), ("dog", 1), ("owl", 2)]
    assert [sample["gt_label"] for sample in val] == [1, 2]
    with pytest.raises(ValueError, match="squares, such as --size 64"):
        load_config(OWN, None, OwnData(data.train, None, size=(96, 64)))


def test_a_class_without_photos_and_a_lost_link_are_told(photos):
    (photos / "train" / "zebra").mkdir()
    (photos / "val" / "zebra").mkdir()
    first = sorted((photos / "train").iterdir())[0]
    (first / "lost.jpg").symlink_to("nowhere.jpg")
    data = OwnData(Split(photos / "train"), Split(photos / "val"))
    findings = check_config(load_config(OWN, None, data)).findings
    assert findings.errors == []
    told = "\n".join(findings.warnings)
    assert "1 class without a photo: 'zebra'" in told
    assert f"1 photo whose link leads nowhere: {first / 'lost.jpg'}" in told


def test_hidden_folders_are_no_classes_and_what_is_in_them_no_photos(photos):
    copied = next((photos / "val").glob("*/*")).read_bytes()
    for folder in (".cache", "@eaDir", "dog/.thumbs"):
        (photos / "val" / folder).mkdir(parents=True)
        (photos / "val" / folder / "1.jpg").write_bytes(copied)
    cfg = load_config(OWN, None, OwnData(Split(photos / "train"), Split(photos / "val")))
    report = check_config(cfg)
    assert report.findings.errors == []
    assert report.splits[1].counts == {"cat": 0, "dog": 1, "owl": 1}
    assert any("val: 3 photos in a hidden folder" in line for line in report.findings.warnings)


def test_folders_that_differ_between_splits_are_named(photos):
    (photos / "val" / "dog").rename(photos / "val" / "dogs")
    data = OwnData(Split(photos / "train"), Split(photos / "val"))
    with pytest.raises(ValueError, match=r"val has no folder 'dog', which .*train has"):
        load_config(OWN, None, data)
    (photos / "val" / "dog").mkdir()
    with pytest.raises(ValueError, match=r"train has no folder 'dogs', which .*val has"):
        load_config(OWN, None, data)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("mmseg/upernet_focalnet_sample.py", "a config of mmseg, which does not learn from folders of classes"),
        ("detectron2/mask_rcnn_focalnet_sample.yaml", "detectron2 learns from label images"),
    ],
)
def test_other_hosts_refuse_folders_of_classes(photos, capsys, host, words):
    assert command.main(["check-data", str(ROOT / "configs" / host), "--train-images", str(photos / "train")]) == 2
    assert words in capsys.readouterr().err


def test_a_classifier_of_own_folders_trains_by_one_line(photos, capsys):
    flags = ["--train-images", str(photos / "train"), "--val-images", str(photos / "val"), "--size", "32"]
    tiny = ["model.backbone.variant=None", "model.backbone.embed_dim=4", "model.backbone.depths=(1,1,1,1)"]
    tiny += ["model.head.in_channels=32", "load_from=None", "train_cfg.max_epochs=1", "param_scheduler=[]"]
    tiny += [f"{name}_dataloader.num_workers=0" for name in ("train", "val")]
    tiny += [f"{name}_dataloader.persistent_workers=False" for name in ("train", "val")]
    options = ["--cfg-options", *tiny, "train_dataloader.batch_size=3", "experiment_name=own_folders"]
    assert command.main(["train", OWN, *flags, "--work-dir", str(photos / "work"), *options]) == 0
    assert "own data: 3 classes: cat, dog, owl" in capsys.readouterr().out
    checkpoint = torch.load(photos / "work" / "epoch_1.pth", weights_only=True)
    assert list(checkpoint["meta"]["dataset_meta"]["classes"]) == ["cat", "dog", "owl"]
    (photos / "train" / "owl" / "2.jpg").write_bytes(b"no photo")
    assert command.main(["check-data", OWN, *flags]) == 2
    assert "owl/2.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_the_published_model(path):
    cfg = load_config(path)
    with torch.device("meta"):
        model = get_model(cfg)
    size = {"srf": 28_427_116, "lrf": 28_647_928}["srf" if "srf" in path.stem else "lrf"]
    assert sum(parameter.numel() for parameter in model.parameters()) == size
    assert cfg.optim_wrapper.clip_grad.max_norm == 5.0
    assert cfg.train_cfg.max_epochs == (30 if "finetune" in path.stem else 300)
    assert cfg.model.backbone.drop_path_rate == 0.2


def test_openmmlab_is_imported_beside_the_newest_transformers_and_imports_large_packages_when_they_are_used():
    code = (
        "import focalnet_backbone.openmmlab, mmpretrain.models, mmdet.models, mmseg.models, sys\n"
        "from mmpretrain.registry import MODELS\n"
        "assert MODELS.get('FocalNet') and MODELS.get('ImageClassifier')\n"
        "large = {'transformers', 'timm', 'sklearn', 'matplotlib.pyplot'}\n"
        "assert not large & {*sys.modules}, large & {*sys.modules}\n"
        "import torch\n"
        "from mmengine.optim import build_optim_wrapper\n"
        "wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adafactor', lr=0.5, relative_step=False))\n"
        "adafactor = build_optim_wrapper(torch.nn.Linear(2, 3), wrapper).optimizer\n"
        "import transformers\n"
        "assert type(adafactor) is transformers.Adafactor and adafactor.param_groups[0]['lr'] == 0.5\n"
        "from mmdet.models.language_models import bert\n"
        "assert bert.BertConfig(hidden_size=8, num_attention_heads=2).hidden_size == 8\n"
        "assert bert.HFBertModel.from_pretrained == transformers.BertModel.from_pretrained\n"
        "from mmdet.models.dense_heads import paa_head\n"
        "assert paa_head.skm.GaussianMixture(2).n_components == 2\n"
        "timm = dict(type='mmseg.TIMMBackbone', model_name='resnet10t', features_only=True, pretrained=False)\n"
        "assert [x.shape[1] for x in MODELS.build(timm)(torch.zeros(1, 3, 64, 64))] == [64, 64, 128, 256, 512]\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)


def test_mmpretrain_that_was_imported_before_the_plugin_does_without_its_models_of_text_too(monkeypatch):
    monkeypatch.setattr(dependency, "WITH_MULTIMODAL", True)
    defer_optional_packages()
    assert not dependency.WITH_MULTIMODAL


def test_a_config_file_is_what_mmengine_reads_by_the_packages_name():
    cfg = Config.fromfile("focalnet_backbone::mmpretrain/focalnet_tiny_lrf_300e_in1k.py")
    assert cfg.default_scope == "mmpretrain"
