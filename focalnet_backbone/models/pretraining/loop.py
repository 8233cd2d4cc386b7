"""The training loop: folder of photographs in, pretrained model out."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, default_collate
from tqdm import tqdm

from focalnet_backbone.features.images import find_images
from focalnet_backbone.models.image_processor import FocalNetImageProcessor
from focalnet_backbone.models.masked_modeling import FocalNetForMaskedImageModeling
from focalnet_backbone.models.pretraining.data import MaskedImages, StepSampler, derive_seed, pixel_statistics
from focalnet_backbone.models.pretraining.picture import draw_reconstructions
from focalnet_backbone.models.pretraining.recipe import Recipe
from focalnet_backbone.models.pretraining.state import TrainingState
from focalnet_backbone.network.config import CONFIG_FILE, FocalNetConfig
from focalnet_backbone.system.devices import choose_device
from focalnet_backbone.system.files import remove_unfinished
from focalnet_backbone.system.interruption import leave_interrupts_to_parent, stop_signals
from focalnet_backbone.system.outputs import claim, result_file
from focalnet_backbone.system.processes import is_distributed

CHECKPOINT_FILE = "checkpoint.pth"
PROCESSOR_FILE = "preprocessor_config.json"
MODEL_FOLDER = "model"
PICTURE_FOLDER = "pictures"
BOARD_FOLDER = "tensorboard"
PICTURED = 4


def pretrain(
    config: FocalNetConfig,
    images: str | Path,
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    resume: bool = False,
    device: str | None = None,
    workers: int = 2,
    checkpoint_every: int = 500,
    picture_every: int = 500,
    on_stop: Callable[[int], None] = lambda number: None,
) -> int:
    """Train a `FocalNetForMaskedImageModeling` on a folder of photographs.

    Under torchrun, every process calls this with the same arguments. `out` gets `checkpoint.pth` (to go on from),
    `pictures/` (a row an image: the image, what the model sees of it, how it fills the rest), `tensorboard/` and, at
    the end, `model/`, which `from_pretrained` reads. SIGINT and SIGTERM end the run after the current step, with a
    checkpoint. A run that goes on from a checkpoint has the loss curve of one that never stopped, and so has one with
    another number of processes, but for rounding and drop path. Seeds torch's global generators.

    Args:
        config: the architecture; `image_size` and `encoder_stride` are set to fit the recipe.
        images: folder of photographs, searched with its subfolders.
        out: folder for the results.
        recipe: what decides the loss curve.
        resume: go on from the checkpoint in `out`, if there is one.
        device: "cpu", "cuda", ...; by default a GPU if there is one.
        workers: processes that read images; 0 reads them in this one.
        checkpoint_every: steps between checkpoints.
        picture_every: steps between pictures.
        on_stop: called with the number of the signal that ends the run early.

    Returns:
        The number of steps done: less than `recipe.steps` if the run was interrupted.

    Raises:
        FileNotFoundError: there is no such folder of images, or none in it.
        FileExistsError: `out` has a checkpoint, and `resume` is not set.
        ValueError: knobs do not fit each other, an image cannot be read, or the checkpoint is of a different run.
        CheckpointError: the checkpoint is damaged.
        FloatingPointError: the loss is no longer finite; the last checkpoint is kept.
    """
    for name, value in {"checkpoint_every": checkpoint_every, "picture_every": picture_every}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    recipe = recipe or Recipe()
    config = recipe.fit(config)
    paths = find_images(images, hidden=False)
    if not paths:
        raise FileNotFoundError(f"no images in {images}")
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is a link to nothing, or no file that could be read as an image")
    out = Path(out)
    if not (out / CHECKPOINT_FILE).exists():
        model_files = [out / MODEL_FOLDER / name for name in ("model.safetensors", CONFIG_FILE, PROCESSOR_FILE)]
        claim([(path, "the model") for path in model_files], force=False)
    for folder in (out, out / PICTURE_FOLDER, out / MODEL_FOLDER):
        remove_unfinished(folder)
    with _process_group(device) as (device, rank, processes), stop_signals() as stop, contextlib.ExitStack() as stack:
        state = TrainingState(config, recipe, len(paths), device)
        _restore(state, out / CHECKPOINT_FILE, resume)
        dataset = MaskedImages(paths, config, recipe)
        pictured = default_collate([dataset[i, derive_seed(recipe.seed, 4, i)] for i in range(len(paths))[:PICTURED]])
        network = DistributedDataParallel(state.model) if processes > 1 else state.model
        loader = _load(dataset, StepSampler(len(paths), recipe, state.step, rank, processes), workers, device)
        journal = stack.enter_context(_Journal(out, state.step, recipe.steps)) if rank == 0 else None
        for batch in loader:
            loss, stopping = _over_processes(state.train_step(network, batch, rank), bool(stop))
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss of step {state.step} is {loss}; a lower lr may help")
            ends = stopping or state.step == recipe.steps
            if rank == 0:
                journal.log(state.step, loss, recipe.learning_rate(state.step - 1))
                if ends or state.step % picture_every == 0:
                    journal.show(state.step, draw_reconstructions(state.model, pictured))
                if ends or state.step % checkpoint_every == 0:
                    state.save(out / CHECKPOINT_FILE)
            if ends:
                if stop:
                    on_stop(stop[0])
                break
        if rank == 0 and state.step == recipe.steps:
            _export(state.model, out / MODEL_FOLDER)
        return state.step


def _restore(state: TrainingState, checkpoint: Path, resume: bool) -> None:
    if not checkpoint.exists():
        return
    if not resume:
        raise FileExistsError(f"{checkpoint} is there already; resume that run or choose another folder")
    state.load(checkpoint)


def _load(dataset: MaskedImages, sampler: StepSampler, workers: int, device: torch.device) -> DataLoader:
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_interrupts_to_parent,
    )


def _export(model: FocalNetForMaskedImageModeling, folder: Path) -> None:
    config = model.config
    model.save_pretrained(folder)
    mean, std = pixel_statistics(config.num_channels)
    FocalNetImageProcessor.for_image_size(
        config.image_size, image_mean=mean, image_std=std, do_convert_rgb=config.num_channels == 3
    ).save_pretrained(folder)


class _Journal:
    """Progress bar, TensorBoard and pictures of one process. Steps are counted from 1."""

    def __init__(self, out: Path, done: int, steps: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("pretraining logs with tensorboard, which is not installed") from error
        self.pictures = out / PICTURE_FOLDER
        self.board = SummaryWriter(out / BOARD_FOLDER, purge_step=done + 1)
        self.bar = tqdm(total=steps, initial=done, desc="pretraining", unit="step")

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
        self.board.close()

    def log(self, step: int, loss: float, lr: float) -> None:
        self.board.add_scalar("loss", loss, step)
        self.board.add_scalar("lr", lr, step)
        self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self.bar.update()

    def show(self, step: int, picture: Image.Image) -> None:
        self.board.add_image("reconstructions", np.asarray(picture), step, dataformats="HWC")
        with result_file(self.pictures / f"step_{step:07d}.png") as unfinished:
            picture.save(unfinished)


def _over_processes(loss: Tensor, stopping: bool) -> tuple[float, bool]:
    """The mean loss, and whether any process was told to stop: all must leave the loop at the same step."""
    values = torch.stack([loss.float(), loss.new_tensor(stopping, dtype=torch.float32)])
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    loss, stopping = values.tolist()
    return loss, stopping > 0


@contextlib.contextmanager
def _process_group(device: str | None) -> Iterator[tuple[torch.device, int, int]]:
    """Join the processes that torchrun started, if it did: device, rank and number of processes."""
    device = choose_device(device)
    if not is_distributed():
        yield device, 0, 1
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device, dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()
