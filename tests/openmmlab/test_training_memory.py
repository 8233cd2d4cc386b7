"""What the training of a config takes of a GPU, against what it is seen to keep."""

from __future__ import annotations

import re

import pytest
import torch
from mmengine.registry import DefaultScope

from focalnet_backbone.benchmark import training_memory
from focalnet_backbone.benchmark.memory import saved_bytes
from focalnet_backbone.benchmark.training_memory import TrainingMemory, estimate, predict
from focalnet_backbone.command import main
from focalnet_backbone.configs import FOLDER
from focalnet_backbone.openmmlab.data import training_size
from focalnet_backbone.openmmlab.runners import load_config

SAMPLES = {
    "UPerNet": "mmseg/upernet_focalnet_sample.py",
    "Mask R-CNN": "mmdet/mask_rcnn_focalnet_sample.py",
    "DINO": "mmdet/dino_focalnet_sample.py",
    "Mask2Former": "mmdet/mask2former_focalnet_sample_panoptic.py",
}


@pytest.mark.parametrize("config", SAMPLES.values(), ids=SAMPLES)
def test_activations_of_a_size_that_was_not_measured_are_those_that_it_keeps(config):
    found = estimate(FOLDER / config, size=(128, 192), batch_size=2, probes=(64, 128))
    cfg = load_config(FOLDER / config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = training_memory._build(cfg)
    kept = saved_bytes(model, lambda: predict(model, torch.zeros(1, 3, 128, 192)))
    assert found.activations == pytest.approx(2 * kept, rel=0.01)
    numbers = sum(p.numel() for p in model.parameters())
    assert found.gradients == 4 * sum(p.numel() for p in model.parameters() if p.requires_grad) <= 4 * numbers
    assert found.optimizer == 2 * found.gradients  # AdamW
    assert found.parameters >= 4 * numbers


def test_a_detector_of_more_queries_than_a_small_image_has_places_is_measured():
    config = FOLDER / SAMPLES["DINO"]
    found = estimate(config, size=(256, 256), options={"model.num_queries": 400})  # An image of 128x128 has 336 places.
    assert found.activations > 0


def test_checkpointing_keeps_less_and_the_table_adds_up(capsys):
    config = SAMPLES["UPerNet"]
    assert main(["analyze", config, "--memory", "--size", "256"]) == 0
    first = capsys.readouterr().out
    assert main(["analyze", config, "--memory", "--size", "256", "--set", "model.backbone.with_cp=True"]) == 0
    plain, saving = (_read_activations(text) for text in (first, capsys.readouterr().out))
    assert 0 < saving < plain
    assert "activations (8 x 256x256)" in first
    assert re.search(r"^a GPU of +8 GB$", first, re.MULTILINE)


def _read_activations(text: str) -> float:
    return float(next(line for line in text.splitlines() if line.startswith("activations")).split()[-2])


def test_the_gpu_is_the_smallest_with_room_for_it_and_for_what_is_not_counted():
    def take(gigabytes: float) -> TrainingMemory:
        return TrainingMemory(0, 0, 0, round(gigabytes * 1e9), (1, 1), 1, "AdamW")

    assert [take(gigabytes).gpu for gigabytes in (0.1, 6.1, 6.3, 22.0, 400.0)] == [8, 8, 12, 32, None]
    assert "more than any has" in str(take(400.0))


def test_the_size_is_the_configs_own_where_it_tells():
    assert training_size(load_config(FOLDER / SAMPLES["UPerNet"])) == (128, 128)
    assert training_size(load_config(FOLDER / SAMPLES["Mask2Former"])) == (96, 96)
    assert training_size(load_config(FOLDER / SAMPLES["DINO"])) == (96, 96)
    # Of many sizes, drawn at random.
    assert training_size(load_config(FOLDER / "mmdet/dino-4scale_focalnet_large_fl3_12e_coco.py")) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name one"),
        (["mask_rcnn_focalnet_sample.yaml"], "is a config of detectron2"),
        (["nowhere.py"], "nowhere"),
        ([SAMPLES["UPerNet"], "--set", "optim_wrapper.optimizer.type=Lion"], "not known what Lion keeps"),
    ],
)
def test_what_cannot_be_estimated_is_refused(arguments, message, capsys):
    assert main(["analyze", *arguments, "--memory"]) == 2
    assert message in capsys.readouterr().err
