"""The command lines, from another folder than the repository."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import save_file

from focalnet_backbone import FocalNetConfig
from focalnet_backbone.models import FocalNetForImageClassification, FocalNetImageProcessor
from focalnet_backbone.models.classify import load_classifier, top_classes
from focalnet_backbone.models.pretraining.state import TrainingState
from tests.models.conftest import make_config


@pytest.fixture
def photograph(tmp_path, monkeypatch) -> str:
    """The path of a photograph, relative to the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.fromarray(skimage.data.chelsea()).save("photos/chelsea.png")
    return "photos/chelsea.png"


@pytest.fixture
def folder(photograph) -> str:
    """A saved classifier of three classes, always most certain of the newt."""
    torch.manual_seed(0)
    model = FocalNetForImageClassification(make_config(id2label={0: "cat", 1: "newt", 2: "eel"}))
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.tensor([0.0, 2.0, -1.0])
    model.save_pretrained("classifier")
    FocalNetImageProcessor.for_image_size(32).save_pretrained("classifier")
    return "classifier"


def test_classify_prints_names_and_probabilities_the_best_first(run_tool, photograph, folder):
    status, output, _ = run_tool("classify.py", photograph, "--weights", folder, "--topk", "2")
    assert status == 0
    # softmax([0, 2, -1])
    assert output.splitlines() == [photograph, "   84.4%  newt", "   11.4%  cat"]


def test_classify_gives_no_more_classes_than_there_are(run_tool, photograph, folder):
    assert len(run_tool("classify.py", photograph, "--weights", folder)[1].splitlines()) == 1 + 3


def test_classify_names_what_it_cannot_read_and_goes_on(run_tool, photograph, folder):
    Path("broken.jpg").write_bytes(b"\xff\xd8\xff nonsense")
    status, output, errors = run_tool("classify.py", "none.jpg", "broken.jpg", photograph, "--weights", folder)
    assert status == 1
    assert output.startswith(photograph)
    assert [line.split(":")[0] for line in errors.splitlines()] == ["classify.py", "classify.py"]
    assert "none.jpg" in errors
    assert "broken.jpg" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a variant, weights or both must be given"),
        (["--variant", "focalnet_tiny_srv"], "Did you mean 'focalnet_tiny_srf'"),
        (["--weights", "none.pth"], "none.pth"),
        (["--variant", "focalnet_tiny_srf", "--weights", "none.pth"], "none.pth"),
        (["--weights", "photos"], "photos has no config.json"),
        (["--weights", "classifier/config.json"], "classifier/config.json is a file, which has no"),
        (["--weights", "headless"], "headless has no classification head"),
        (["--weights", "classifier", "--device", "abacus"], "abacus"),
    ],
)
def test_classify_answers_wrong_arguments_in_a_line(arguments, message, run_tool, photograph, folder, offline):
    FocalNetForImageClassification(make_config(num_labels=0)).save_pretrained("headless")
    status, output, errors = run_tool("classify.py", photograph, *arguments)
    assert (status, output) == (2, "")
    assert errors.startswith("classify.py: ")
    assert message in errors


def test_classify_says_that_a_model_does_not_take_photographs(run_tool, photograph):
    FocalNetForImageClassification(make_config(num_channels=4)).save_pretrained("four")
    status, output, errors = run_tool("classify.py", photograph, "--weights", "four")
    assert (status, output) == (1, "")
    assert errors.startswith("classify.py: expected 4 channels (num_channels), got 3")


@pytest.mark.parametrize("topk", ["0", "-1", "many"])
def test_classify_wants_at_least_one_class(topk, run_tool, photograph):
    status, _, errors = run_tool("classify.py", photograph, "--weights", "x", "--topk", topk)
    assert status == 2
    assert "must be a whole number of at least 1" in errors


def test_weights_in_a_file_take_architecture_and_names_from_the_variant(tmp_path):
    model = FocalNetForImageClassification(make_config(num_labels=1000, depths=[2, 2, 6, 2], embed_dim=96))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    loaded, processor = load_classifier("focalnet_tiny_srf", tmp_path / "weights.safetensors")
    torch.testing.assert_close(loaded.head.weight, model.head.weight)
    assert loaded.config.id2label[281] == "tabby"
    assert processor == FocalNetImageProcessor()


def test_a_greyscale_classifier_takes_colour_photographs():
    model = FocalNetForImageClassification(make_config(num_channels=1, num_labels=3)).eval()
    processor = FocalNetImageProcessor.for_image_size(32, do_convert_rgb=False, image_mean=[0.5], image_std=[0.2])
    classes = top_classes(model, processor, torch.from_numpy(skimage.data.chelsea()).permute(2, 0, 1))
    assert sum(probability for _, probability in classes) == pytest.approx(1)


PRETRAIN = ["photos", "--config", "config.json", "--out", "out", "--workers", "0", "--image-size", "32"]
PRETRAIN += ["--mask-block", "8", "--steps", "3", "--batch-size", "2", "--warmup-steps", "1"]


@pytest.fixture
def config(photograph):
    FocalNetConfig(embed_dim=4, depths=[1, 1]).save_pretrained(".")


def test_pretraining_can_be_interrupted_and_resumed(run_tool, config, monkeypatch):
    train_step = TrainingState.train_step

    def interrupt(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        return train_step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "train_step", interrupt)
        status, _, errors = run_tool("pretrain_mim.py", *PRETRAIN)
    assert status == 130
    assert errors.splitlines()[-1] == "stopped after step 1 of 3; go on with --resume"
    status, output, _ = run_tool("pretrain_mim.py", *PRETRAIN, "--resume")
    assert status == 0
    assert {path.name for path in Path("out").iterdir()} == {"checkpoint.pth", "model", "pictures", "tensorboard"}
    assert output.splitlines()[-1] == "see it: out/pictures, and its curves by tensorboard --logdir out/tensorboard"


@pytest.mark.parametrize("leaked", [["LOCAL_RANK", "WORLD_SIZE"], ["LOCAL_RANK", "RANK"]])
def test_half_of_a_launchers_environment_does_not_make_pretraining_distributed(leaked, run_tool, config, monkeypatch):
    for name in leaked:
        monkeypatch.setenv(name, "0")
    status, _, errors = run_tool("pretrain_mim.py", *PRETRAIN)
    assert status == 0, errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "-1"], "num_workers"),
        (["--steps", "0"], "steps must be above 0, got 0"),
        (["--config", "none.json"], "no FocalNet config at none.json"),
        (["--image-size", "30"], "image_size 30 must be a multiple of mask_block 8"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_pretraining_answers_wrong_arguments_in_a_line(arguments, message, run_tool, config):
    status, _, errors = run_tool("pretrain_mim.py", *PRETRAIN, *arguments)
    assert status == 2
    assert errors.startswith("pretrain_mim.py: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert not Path("out").exists()


def test_pretraining_names_a_misspelt_variant(run_tool, photograph):
    status, _, errors = run_tool("pretrain_mim.py", "photos", "--out", "out", "--variant", "focalnet_tiny_srv")
    assert status == 2
    assert "Did you mean 'focalnet_tiny_srf'" in errors


def test_pretraining_needs_images(run_tool, config):
    Path("photos/chelsea.png").unlink()
    assert "no images in photos" in run_tool("pretrain_mim.py", *PRETRAIN)[2]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_pretraining_names_an_image_that_it_cannot_read(workers, run_tool, config):
    # The pictures are drawn of the first images, this one is met in training only.
    for i in range(4):
        Path(f"photos/a{i}.png").write_bytes(Path("photos/chelsea.png").read_bytes())
    Path("photos/chelsea.png").write_bytes(b"nonsense")
    status, _, errors = run_tool("pretrain_mim.py", *PRETRAIN, "--workers", workers, "--batch-size", "5")
    assert status == 2
    assert "cannot read photos/chelsea.png as an image" in errors.splitlines()[-1]


@pytest.mark.parametrize(("tool", "name"), [("classify.py", "classify"), ("pretrain_mim.py", "pretrain")])
def test_help_is_complete(tool, name, run_tool):
    status, output, _ = run_tool(tool, "--help")
    assert status == 0
    assert f"focalnet {name} " in output
    assert "exit status" in output
