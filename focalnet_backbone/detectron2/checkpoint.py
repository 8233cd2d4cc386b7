"""Checkpoints of detectors: reading every FocalNet format into the backbone, and writing that a kill cannot damage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer
from torch import Tensor, nn

from focalnet_backbone.checkpoints import CheckpointError, load_checkpoint
from focalnet_backbone.checkpoints.download import download
from focalnet_backbone.checkpoints.files import read_file
from focalnet_backbone.checkpoints.formats import check_finite
from focalnet_backbone.detectron2.plain_weights import MATCHING, fit_names, read_weights
from focalnet_backbone.network.backbone import FocalNet
from focalnet_backbone.system.files import whole_file


class FocalNetCheckpointer(Checkpointer):
    """detectron2's checkpointer for a model with a FocalNet in it, or with none.

    `load` takes what detectron2 writes, and everything that `focalnet_backbone.load_checkpoint` takes: classification
    weights of any format, by file, folder, variant name, hub id or address. The weights of a FocalNet find their
    place wherever in the model it is, smaller kernels are enlarged, and a source that does not fill it is a
    `CheckpointError`. Nothing in a file is unpickled but tensors and plain values. Files appear only when complete.

    A model without a FocalNet takes what detectron2's own checkpointer takes: its checkpoints, its model zoo's pickles
    of arrays (which are read without running anything), and `?matching_heuristics=True` behind a path.

    Args:
        model: a detector or segmenter with at most one FocalNet inside, maybe wrapped for distributed training.
        save_dir: folder for `save`.
        tag_last: whether what `save` writes is where `resume_or_load` goes on from.
        require_all: refuse weights that leave any tensor of the model at its random initial value.
        **checkpointables: further objects with a `state_dict` to save and load.

    Raises `TypeError` if there are several FocalNets in the model.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        tag_last: bool = True,
        require_all: bool = False,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, save_to_disk=comm.is_main_process(), **checkpointables)
        found = [(name, module) for name, module in self.model.named_modules() if isinstance(module, FocalNet)]
        if len(found) > 1:
            raise TypeError(f"the model must have at most one FocalNet in it, found {len(found)}")
        self.backbone_name, self.backbone = found[0] if found else ("", None)
        self.matching = False
        self.tag_last = tag_last
        self.require_all = require_all

    def save(self, name: str, **extra: Any) -> None:
        """Write the model, the checkpointables and `extra` to `NAME.pth` in `save_dir`. Raises `OSError`."""
        if not self.save_dir or not self.save_to_disk:
            return
        path = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        states = {key: checkpointable.state_dict() for key, checkpointable in self.checkpointables.items()}
        data = {"model": self.model.state_dict(), **states, **extra}
        with whole_file(path) as unfinished:
            torch.save(data, unfinished)
        if self.tag_last:
            self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Note in `last_checkpoint` where `resume_or_load` goes on from."""
        with whole_file(Path(self.save_dir, "last_checkpoint")) as unfinished:
            unfinished.write_text(last_filename_basename, encoding="utf-8")

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load the weights and the checkpointables; returns what else the file held. An empty path loads nothing.

        Raises:
            CheckpointError: the source cannot be had or read, or does not fit.
            FileNotFoundError: the source is a path where nothing is.
        """
        path = os.path.expanduser(path)
        if self.backbone is None:
            self.matching, path = path.endswith(MATCHING), path.removesuffix(MATCHING)
        if path.startswith(("http://", "https://")):
            path = str(download(path))
        elif "://" in path:
            path = _fetch(path)
        if not path or os.path.isfile(path):
            return super().load(path, checkpointables)
        if self.backbone is None:
            raise FileNotFoundError(f"no weights at {path}")
        if self.require_all:
            raise CheckpointError(f"no checkpoint at {path} with the weights of the whole model")
        load_checkpoint(self.backbone, path)
        return {}

    def _load_file(self, filename: str) -> dict[str, Any]:
        if self.backbone is None:
            return {**read_weights(Path(filename), matching=self.matching), "file": filename}
        checkpoint = read_file(Path(filename))
        if not isinstance(checkpoint, Mapping):
            raise CheckpointError(f"{filename}: holds no weights, but a {type(checkpoint).__name__}")
        if not isinstance(checkpoint.get("model"), Mapping):
            checkpoint = {"model": checkpoint}
        return {**checkpoint, "file": filename}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """Find each tensor its place, give them to detectron2, and see that nothing is missing that has to be there."""
        filename = checkpoint.pop("file")
        fit = self._fit_all if self.backbone is None else self._fit_backbone
        checkpoint["model"], whole = fit(checkpoint, filename)
        incompatible = super()._load_model(checkpoint)
        missing = incompatible.missing_keys
        if self.require_all and missing:
            raise CheckpointError(
                f"{filename} does not have the weights of the whole model: {len(missing)} tensors are missing or of "
                f"another shape, such as {missing[0]}"
            )
        # That weights of a backbone alone leave the heads as they are needs no warning a tensor.
        return incompatible if whole else None

    def _fit_all(self, checkpoint: dict[str, Any], filename: str) -> tuple[dict[str, Any], bool]:
        """The tensors of a model without a FocalNet, and whether they are more than a backbone's."""
        tensors = fit_names(self.model, checkpoint, filename)
        try:
            check_finite(self.model, tensors)
        except CheckpointError as error:
            raise CheckpointError(f"{filename}: {error}") from error
        return tensors, not checkpoint.pop("matching_heuristics")

    def _fit_backbone(self, checkpoint: dict[str, Any], filename: str) -> tuple[dict[str, Any], bool]:
        """The tensors, those of the backbone fitted by `load_checkpoint`, and whether there are others."""
        saved = {str(name).removeprefix("module."): value for name, value in checkpoint["model"].items()}
        try:
            check_finite(self.model, saved)
            load_checkpoint(self.backbone, saved)
        except CheckpointError as error:
            raise CheckpointError(f"{filename}: {error}") from error
        ours = self.model.state_dict()
        prefix = f"{self.backbone_name}." if self.backbone_name else ""
        others = {
            name: tensor
            for name, tensor in saved.items()
            if name in ours and not name.startswith(prefix) and isinstance(tensor, Tensor)
        }
        backbone = {prefix + name: tensor for name, tensor in self.backbone.state_dict().items()}
        return {**others, **backbone}, bool(others)


def _fetch(path: str) -> str:
    """The local copy of a file that detectron2's path manager knows, as by `detectron2://`."""
    try:
        return PathManager.get_local_path(path)
    except Exception as error:  # of any handler, some of which use other packages
        raise CheckpointError(f"{path} cannot be had: {error}") from error
