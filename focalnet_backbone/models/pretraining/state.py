"""What a run carries from step to step, and its checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.checkpoints.files import read_file
from focalnet_backbone.checkpoints.formats import check_finite
from focalnet_backbone.models.masked_modeling import FocalNetForMaskedImageModeling
from focalnet_backbone.models.pretraining.data import derive_seed
from focalnet_backbone.models.pretraining.recipe import AMP_TYPES, Recipe
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.system.files import whole_file
from focalnet_backbone.system.inputs import parse_json


class TrainingState:
    """Model, optimiser, loss scaling and step number of a run.

    Args:
        config: the architecture.
        recipe: how it is trained.
        images: number of images it is trained on.
        device: where it is trained.
    """

    def __init__(self, config: FocalNetConfig, recipe: Recipe, images: int, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        self.identity = {**asdict(recipe), "images": images, "model": parse_json(config.to_json_string())}
        torch.manual_seed(derive_seed(recipe.seed, 2))
        self.model = FocalNetForMaskedImageModeling(config).to(device)
        self.optimizer = make_optimizer(self.model, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.amp == "fp16")
        self.step = 0

    def train_step(self, network: nn.Module, batch: dict[str, Tensor], rank: int) -> Tensor:
        """Make one optimiser step and return this process's loss, a scalar.

        Args:
            network: the model, or what wraps it for several processes.
            batch: `pixel_values (N, C, H, W)` and `bool_masked_pos (N, L)`.
            rank: number of this process, which gets dropout and drop path of its own.

        Raises:
            FloatingPointError: the gradients are not finite; the model is as it was.
        """
        torch.manual_seed(derive_seed(self.recipe.seed, 3, self.step, rank))
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate(self.step)
        batch = {name: x.to(self.device, non_blocking=True) for name, x in batch.items()}
        amp_type = AMP_TYPES[self.recipe.amp]
        with torch.autocast(self.device.type, dtype=amp_type, enabled=amp_type is not None):
            loss = network(**batch).loss
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        # Loss scaling meets overflows as it searches its scale, and skips those steps by itself.
        if not self.scaler.is_enabled() and not norm.isfinite():
            raise FloatingPointError(f"the gradients of step {self.step + 1} are not finite; a lower lr may help")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        return loss.detach()

    def save(self, path: Path) -> None:
        """Write the checkpoint; one that is there already is replaced when the new one is whole.

        `load_checkpoint` takes the model out of it.
        """
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "identity": self.identity,
        }
        with whole_file(path) as unfinished:
            torch.save(state, unfinished)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: the file is damaged, or no checkpoint of a run.
            ValueError: it is of a run with another recipe, model or number of images.
        """
        state = read_file(path)
        if not isinstance(state, dict) or "identity" not in state:
            raise CheckpointError(f"{path} is not the checkpoint of a pretraining run")
        found = state["identity"] if isinstance(state["identity"], dict) else {}
        differing = [name for name in self.identity if found.get(name) != self.identity[name]]
        if differing:
            details = ", ".join(f"{n} (was {found.get(n)}, is {self.identity[n]})" for n in differing if n != "model")
            raise ValueError(f"{path} is of a different run: {details or 'the model differs'}")
        try:
            check_finite(self.model, state["model"])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.step = int(state["step"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is a damaged checkpoint of a pretraining run: {error}") from error


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW, with weight decay on linear and convolution kernels only: no norms, biases, scales or mask token."""
    kernels = [p for name, p in model.named_parameters() if p.ndim > 1 and name != "mask_token"]
    others = [p for name, p in model.named_parameters() if p.ndim <= 1 or name == "mask_token"]
    groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.lr)
