"""Pretraining by masked image modeling: the parts, and whole runs on photographs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import transformers
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from focalnet_backbone import FocalNet, FocalNetConfig
from focalnet_backbone.checkpoints import CheckpointError, load_checkpoint
from focalnet_backbone.models import FocalNetForMaskedImageModeling
from focalnet_backbone.models.pretraining import Recipe, pretrain
from focalnet_backbone.models.pretraining.data import MaskedImages, StepSampler, block_mask
from focalnet_backbone.models.pretraining.picture import draw_reconstructions
from focalnet_backbone.models.pretraining.state import TrainingState, make_optimizer

TOOL = Path(__file__).parents[2] / "tools" / "pretrain_mim.py"
CONFIG = FocalNetConfig(embed_dim=4, depths=[1, 1], drop_path_rate=0.2, hidden_dropout_prob=0.1)
RECIPE = Recipe(image_size=32, mask_block=8, steps=6, batch_size=4, lr=1e-3, warmup_steps=2)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """A folder with three small photographs, one in a subfolder."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "animals").mkdir()
    for name in ("animals/chelsea", "astronaut", "coffee"):
        image = Image.fromarray(getattr(skimage.data, Path(name).name)())
        image.resize((60, 50)).save(folder / f"{name}.png")
    return folder


def loss_curve(out: Path) -> dict[int, float]:
    """Loss by step, as TensorBoard shows it, each step once."""
    events = EventAccumulator(str(out / "tensorboard")).Reload().Scalars("loss")
    curve = {event.step: event.value for event in events}
    assert len(curve) == len(events)
    return curve


def run(photographs: Path, out: Path, recipe: Recipe = RECIPE, config: FocalNetConfig = CONFIG, **knobs) -> int:
    if knobs.get("resume"):  # TensorBoard orders the files of a process by the second that they were opened in.
        time.sleep(1)
    return pretrain(config, photographs, out, recipe, **{"workers": 0, "device": "cpu", **knobs})


@pytest.fixture(scope="module")
def finished(photographs, tmp_path_factory) -> Path:
    """The folder of a run that nothing stopped."""
    out = tmp_path_factory.mktemp("finished")
    assert run(photographs, out) == RECIPE.steps
    return out


def assert_same_run(out: Path, finished: Path) -> None:
    """Assert the same losses, each step once, and the same weights."""
    assert loss_curve(out) == loss_curve(finished)
    assert list(loss_curve(out)) == list(range(1, RECIPE.steps + 1))
    weights = [
        FocalNetForMaskedImageModeling.from_pretrained(folder / "model").state_dict() for folder in (out, finished)
    ]
    torch.testing.assert_close(*weights, atol=0, rtol=0)


@pytest.fixture
def act_at_step(monkeypatch):
    """Have something done in the middle of a step."""

    def prepare(step, action):
        train_step = TrainingState.train_step

        def train_and_act(self, *args):
            if self.step + 1 == step:
                action()
            return train_step(self, *args)

        monkeypatch.setattr(TrainingState, "train_step", train_and_act)
        return monkeypatch.undo

    return prepare


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_along_the_same_curve(number, photographs, finished, tmp_path, act_at_step):
    undo = act_at_step(3, lambda: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert run(photographs, tmp_path) == 3
    assert signal.getsignal(number) is before
    undo()
    torch.manual_seed(99)
    assert run(photographs, tmp_path, resume=True, workers=2) == RECIPE.steps
    assert_same_run(tmp_path, finished)


def test_a_run_that_died_goes_on_from_its_last_checkpoint_along_the_same_curve(
    photographs, finished, tmp_path, act_at_step
):
    def die():
        raise MemoryError

    undo = act_at_step(6, die)
    with pytest.raises(MemoryError):
        run(photographs, tmp_path, checkpoint_every=2)
    assert list(loss_curve(tmp_path)) == [1, 2, 3, 4, 5]
    undo()
    run(photographs, tmp_path, resume=True)
    assert_same_run(tmp_path, finished)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(photographs, tmp_path, monkeypatch):
    save = torch.save

    def fill_disk(state, path):
        if state["step"] == 4:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(state, path)

    monkeypatch.setattr(torch, "save", fill_disk)
    with pytest.raises(OSError, match="No space"):
        run(photographs, tmp_path, checkpoint_every=2)
    assert torch.load(tmp_path / "checkpoint.pth", weights_only=True)["step"] == 2
    assert not list(tmp_path.glob(".unfinished*"))


def test_two_processes_have_the_curve_of_one_and_share_checkpoints(photographs, tmp_path, warm_environment):
    config = CONFIG.replace(drop_path_rate=0.0, hidden_dropout_prob=0.0)
    run(photographs, tmp_path / "one", config=config)
    config.save_pretrained(tmp_path)
    python = str(warm_environment / "bin" / "python")
    command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(TOOL)]
    command += [str(photographs), "--config", str(tmp_path), "--out", str(tmp_path / "two"), "--workers", "0"]
    command += ["--image-size", "32", "--mask-block", "8", "--steps", "6", "--batch-size", "4", "--lr", "1e-3"]
    command += ["--warmup-steps", "2", "--checkpoint-every", "2", "--device", "cpu"]
    variables = {**os.environ, "PYTHON_EXEC": python}  # That of torchrun's processes.
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=variables)
    assert result.returncode == 0, result.stderr
    one, two = loss_curve(tmp_path / "one"), loss_curve(tmp_path / "two")
    assert one.keys() == two.keys()
    np.testing.assert_allclose(list(one.values()), list(two.values()), rtol=1e-5)
    assert run(photographs, tmp_path / "two", config=config, resume=True) == RECIPE.steps


def test_processes_drop_paths_of_their_own(photographs):
    config = RECIPE.fit(CONFIG.replace(drop_path_rate=0.5, hidden_dropout_prob=0.5))
    sample = MaskedImages([photographs / "coffee.png"], config, RECIPE)[0, 5]
    batch = {name: x[None] for name, x in sample.items()}
    losses = []
    for rank in (0, 1, 0):
        state = TrainingState(config, RECIPE, 1, torch.device("cpu"))
        losses.append(state.train_step(state.model, batch, rank).item())
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_keeps_to_the_curve_and_is_resumed(amp, photographs, finished, tmp_path, act_at_step):
    recipe = replace(RECIPE, amp=amp)
    run(photographs, tmp_path / "whole", recipe)
    mixed, full = loss_curve(tmp_path / "whole"), loss_curve(finished)
    assert mixed != full
    np.testing.assert_allclose(list(mixed.values()), list(full.values()), rtol=0.02)

    undo = act_at_step(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    run(photographs, tmp_path / "resumed", recipe)
    undo()
    run(photographs, tmp_path / "resumed", recipe, resume=True)
    assert loss_curve(tmp_path / "resumed") == mixed
    paths = [tmp_path / name / "checkpoint.pth" for name in ("whole", "resumed")]
    whole, resumed = (torch.load(path, weights_only=True)["scaler"] for path in paths)
    assert whole == resumed
    assert bool(whole) == (amp == "fp16")


def test_the_loss_falls_as_the_model_learns_to_fill_in_what_is_plain_to_see(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (12, 3))
    for i, colour in enumerate(colours.tolist()):
        Image.new("RGB", (40, 40), tuple(colour)).save(tmp_path / f"{i}.png")
    recipe = replace(RECIPE, steps=50, batch_size=8, lr=1e-2)
    run(tmp_path, tmp_path / "out", recipe, FocalNetConfig(embed_dim=16, depths=[1, 1], drop_path_rate=0.0))
    losses = list(loss_curve(tmp_path / "out").values())
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


@pytest.mark.parametrize("channels", [3, 1])
def test_the_result_is_opened_by_transformers_with_its_processor(channels, photographs, tmp_path):
    run(photographs, tmp_path, replace(RECIPE, steps=1, warmup_steps=0), CONFIG.replace(num_channels=channels))
    theirs = transformers.FocalNetForMaskedImageModeling.from_pretrained(tmp_path / "model")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "model")
    image = Image.open(photographs / "coffee.png")
    pixel_values = processor(image if channels == 3 else image.convert("L"), return_tensors="pt").pixel_values
    assert pixel_values.shape == (1, channels, 32, 32)
    ours = FocalNetForMaskedImageModeling.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(ours(pixel_values)[0], theirs(pixel_values)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("source", ["model", "checkpoint.pth"])
def test_the_backbone_takes_the_pretrained_weights(source, finished):
    backbone = FocalNet(CONFIG)
    load_checkpoint(backbone, finished / source, strict=False)
    pretrained = FocalNetForMaskedImageModeling.from_pretrained(finished / "model")
    torch.testing.assert_close(backbone.layers.state_dict(), pretrained.layers.state_dict())


def test_pictures_are_drawn_when_asked_and_at_the_end(photographs, tmp_path):
    run(photographs, tmp_path, picture_every=4)
    assert [path.name for path in sorted((tmp_path / "pictures").iterdir())] == ["step_0000004.png", "step_0000006.png"]
    # A row for each of three images; three columns of 32 pixels with margins of 4.
    assert Image.open(tmp_path / "pictures" / "step_0000006.png").size == (4 + 3 * 36, 4 + 3 * 36)


def test_a_picture_shows_the_image_its_mask_and_what_is_filled_in(photographs):
    torch.manual_seed(0)
    model = FocalNetForMaskedImageModeling(RECIPE.fit(CONFIG)).train()
    batch = {name: x[None] for name, x in MaskedImages([photographs / "coffee.png"], CONFIG, RECIPE)[0, 5].items()}
    picture = np.asarray(draw_reconstructions(model, batch)).astype(int)
    assert model.training
    image, masked, filled = (picture[4:36, 36 * i + 4 : 36 * i + 36] for i in range(3))
    hidden = batch["bool_masked_pos"].view(8, 8).numpy().repeat(4, 0).repeat(4, 1)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    pixels = ((batch["pixel_values"][0] * std + mean) * 255).round().permute(1, 2, 0).numpy()
    np.testing.assert_allclose(image, pixels, atol=1)
    assert (masked[hidden] == 128).all()
    np.testing.assert_array_equal(masked[~hidden], image[~hidden])
    np.testing.assert_array_equal(filled[~hidden], image[~hidden])
    reconstruction = model.eval()(**batch).reconstruction[0].detach()
    expected = ((reconstruction * std + mean).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    np.testing.assert_allclose(filled[hidden], expected[hidden], atol=1)


@pytest.mark.parametrize(("ratio", "masked"), [(0.6, 22), (0.5, 18), (1.0, 36), (0.01, 1)])
def test_masks_are_whole_blocks_of_the_wanted_number(ratio, masked):
    masks = [block_mask(192, 4, 32, ratio).view(6, 8, 6, 8).transpose(1, 2).flatten(2) for _ in range(20)]
    for mask in masks:
        assert (mask.all(-1) | ~mask.any(-1)).all()
        assert mask.any(-1).sum() == masked
    assert ratio == 1.0 or any((mask != masks[0]).any() for mask in masks)


def test_the_sampler_shows_each_image_once_an_epoch_in_a_new_order():
    batches = list(StepSampler(7, replace(RECIPE, steps=7, batch_size=4)))
    images = [image for batch in batches for image, _ in batch]
    epochs = [images[i : i + 7] for i in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    seeds = [seed for batch in batches for _, seed in batch]
    assert len(set(seeds)) == len(seeds)


def test_the_sampler_starts_anywhere_and_divides_its_batches_among_processes():
    whole = list(StepSampler(7, RECIPE))
    assert list(StepSampler(7, RECIPE, start=4)) == whole[4:]
    assert len(StepSampler(7, RECIPE, start=4)) == 2
    parts = [list(StepSampler(7, RECIPE, rank=rank, processes=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    with pytest.raises(ValueError, match="batch_size 4 must be a multiple of the 3 processes"):
        StepSampler(7, RECIPE, processes=3)


def test_a_sample_depends_on_its_seed_alone_and_leaves_other_randomness_alone(photographs):
    dataset = MaskedImages([photographs / "coffee.png"], CONFIG, RECIPE)
    torch.manual_seed(0)
    first, expected = dataset[0, 7], torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), expected)
    torch.testing.assert_close(dataset[0, 7], first)
    assert not torch.equal(dataset[0, 8]["pixel_values"], first["pixel_values"])


def test_the_learning_rate_rises_linearly_and_falls_along_a_cosine():
    recipe = Recipe(steps=110, warmup_steps=10, lr=1.0)
    assert [recipe.learning_rate(step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert [recipe.learning_rate(step) for step in (60, 110)] == pytest.approx([0.5, 0.0])


def test_only_kernels_decay():
    model = FocalNetForMaskedImageModeling(RECIPE.fit(CONFIG.replace(use_layerscale=True)))
    decayed, others = ({id(p) for p in group["params"]} for group in make_optimizer(model, RECIPE).param_groups)
    names = {id(p): name for name, p in model.named_parameters()}
    assert decayed | others == set(names)
    assert {names[i] for i in others} >= {"mask_token", "layers.0.blocks.0.gamma_1", "patch_embed.proj.bias"}
    assert all(names[i].endswith(".weight") and "norm" not in names[i] for i in decayed)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"steps": 0}, "steps must be above 0"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"mask_ratio": 1.5}, "mask_ratio must be above 0 and at most 1"),
        ({"amp": "fp8"}, "amp must be one of off, bf16, fp16"),
        ({"image_size": 100}, "image_size 100 must be a multiple of mask_block 32"),
        ({"steps": 10}, "warmup_steps 500 must be less than steps 10"),
    ],
)
def test_a_wrong_recipe_names_its_knob(knobs, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**knobs)


@pytest.mark.parametrize(
    ("recipe", "config", "message"),
    [
        ({"image_size": 36, "mask_block": 12}, {}, "image_size 36 must be a multiple of the last stage's stride 8"),
        ({"mask_block": 2}, {}, "mask_block 2 must be a multiple of patch_size 4"),
        ({}, {"num_channels": 4}, "num_channels must be 3"),
    ],
)
def test_a_recipe_that_does_not_fit_the_model_is_refused(recipe, config, message, photographs, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(photographs, tmp_path / "out", replace(RECIPE, **recipe), CONFIG.replace(**config))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("knob", ["checkpoint_every", "picture_every"])
def test_intervals_are_at_least_one_step(knob, photographs, tmp_path):
    with pytest.raises(ValueError, match=f"{knob} must be at least 1, got 0"):
        run(photographs, tmp_path, **{knob: 0})


def test_a_folder_with_a_checkpoint_is_not_overwritten(photographs, finished):
    with pytest.raises(FileExistsError, match="resume that run or choose another folder"):
        run(photographs, finished)


@pytest.mark.parametrize(
    ("recipe", "config", "message"),
    [
        ({"lr": 1.0}, {}, r"different run: lr \(was 0.001, is 1.0\)"),
        ({}, {"mlp_ratio": 2.0}, "different run: the model differs"),
    ],
)
def test_a_checkpoint_of_a_different_run_is_refused(recipe, config, message, photographs, finished):
    with pytest.raises(ValueError, match=message):
        run(photographs, finished, replace(RECIPE, **recipe), CONFIG.replace(**config), resume=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: whole[:1000], "damaged"),
        (lambda whole: b"", "empty"),
        (None, "not the checkpoint of a pretraining"),
    ],
)
def test_a_damaged_checkpoint_is_named(content, message, photographs, finished, tmp_path):
    path = tmp_path / "checkpoint.pth"
    if content is None:
        torch.save({"model": {}}, path)
    else:
        path.write_bytes(content((finished / "checkpoint.pth").read_bytes()))
    with pytest.raises(CheckpointError, match=f"checkpoint.pth.*{message}"):
        run(photographs, tmp_path, resume=True)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(photographs, tmp_path):
    with pytest.raises(FloatingPointError, match="a lower lr may help"):
        run(photographs, tmp_path, replace(RECIPE, lr=1e30, warmup_steps=0), checkpoint_every=1)
    state = torch.load(tmp_path / "checkpoint.pth", weights_only=True)
    assert all(x.isfinite().all() for x in state["model"].values())
