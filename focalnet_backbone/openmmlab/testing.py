"""A runner that tests a checkpoint, writes its predictions and paints them."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.fileio import dump
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import METRICS
from mmengine.runner import Runner

from focalnet_backbone.openmmlab.runners import CheckData, build, prepare, require
from focalnet_backbone.openmmlab.weights import check_fit, read_weights
from focalnet_backbone.system.outputs import check_writable, claim, result_file

_DUMPS = {"mmdet": "DumpDetResults", "mmpretrain": "DumpResults"}
"""By scope, the metric that writes predictions into a file. mmsegmentation's own metric writes label images."""


def build_test_runner(
    config: str | Path,
    checkpoint: str,
    *,
    work_dir: str | None = None,
    options: dict[str, Any] | None = None,
    launcher: str = "none",
    tta: bool = False,
    out: str | None = None,
    show_dir: str | None = None,
    show: bool = False,
    wait_time: float = 2.0,
    check: CheckData | None = None,
    force: bool = False,
) -> Runner:
    """A runner that is ready to test a checkpoint.

    Args:
        config: config file.
        checkpoint: weights of the whole model, a file or an address.
        work_dir: as for training.
        options: as for training.
        launcher: as for training.
        tta: whether to augment each image and merge the predictions.
        out: where to save predictions: a folder (mmseg) or a `.pkl` file (mmdet, mmpretrain).
        show_dir: folder for painted images.
        show: whether to show painted images in a window.
        wait_time: seconds to show each.
        check: as for training.
        force: whether to replace a user's files.

    Raises:
        FileNotFoundError: the config, the dataset or the checkpoint is missing.
        FileExistsError: there are files already where `out` or `show_dir` would write.
        ValueError: the config is wrong, or has not what an argument needs.
        CheckpointError: the checkpoint cannot be read, or does not fit the model.
    """
    cfg = prepare(config, work_dir, options, launcher)
    require(cfg, "model", "test_dataloader", "test_cfg", "test_evaluator")
    weights, _ = read_weights(checkpoint)
    cfg.load_from = checkpoint
    if check:
        check(cfg, ("test_dataloader",))
    scope = cfg.get("default_scope")
    dumps = scope in _DUMPS
    if out and dumps and not out.endswith((".pkl", ".pickle")):
        raise ValueError(f"--out must be a .pkl file for {scope}, got {out}")
    if out and Path(out).is_file() and not dumps:
        raise ValueError(f"--out must be a folder for mmseg, and {out} is a file")
    if out and not dumps:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        evaluators[0].update(output_dir=out, keep_results=True)
    if tta and (show or show_dir) and scope == "mmpretrain":
        raise ValueError("mmpretrain paints no images of --tta; test once with it, and once with --show or --show-dir")
    if show or show_dir:
        _turn_on_painting(cfg, show, wait_time, show_dir)
    if tta:
        _turn_on_augmentation(cfg)
    # mmengine writes the config into the working folder: not over the one that training left there.
    cfg = Config(cfg.to_dict(), cfg_text=cfg.text, filename=f"test_{Path(config).name}")
    outputs = [(Path(cfg.work_dir, cfg.filename), "the config")]
    if out and dumps:
        outputs.append((Path(out), "the predictions"))
    claim(outputs, [config, checkpoint], force=force)
    if show_dir and (scope != "mmdet" or os.path.isabs(show_dir)):  # Else mmdetection makes one in a new folder.
        _check_folder(show_dir, force=force)
    if out and not dumps:
        _check_folder(out, force=force)
    runner = build(cfg)
    model = runner.model
    while isinstance(model, BaseTTAModel) or is_model_wrapper(model):
        model = model.module
    check_fit(model, weights, checkpoint)
    if out and dumps:
        runner.test_evaluator.metrics.append(_dump_whole(_DUMPS[scope], out))
    return runner


def _dump_whole(metric: str, out: str) -> BaseMetric:
    """A host's metric that writes predictions to a pickle, whole or not at all."""
    with METRICS.switch_scope_and_registry(None) as metrics:
        kind = metrics.get(metric)

    class DumpWhole(kind):
        def compute_metrics(self, results: list) -> dict:
            with result_file(Path(self.out_file_path)) as unfinished:
                dump(results, str(unfinished))
            print_log(f"the predictions are in {self.out_file_path}", logger="current")
            return {}

    return DumpWhole(out_file_path=out)


def _check_folder(folder: str, *, force: bool) -> None:
    """Raise `OSError` unless a folder of pictures, which take the photos' names, is empty or can be made."""
    check_writable(Path(folder, "a"))
    # The host writes the pictures, and without a mark of ours: by name alone they could be a user's.
    if not force and Path(folder).is_dir() and any(Path(folder).iterdir()):
        raise FileExistsError(f"{folder} has files in it, which pictures may replace; name another or give --force")


def _turn_on_painting(cfg: Config, show: bool, wait_time: float, show_dir: str | None) -> None:
    hook = cfg.get("default_hooks", {}).get("visualization")
    if hook is None:
        raise ValueError("--show and --show-dir need a visualization hook in the config's default_hooks")
    scope = cfg.get("default_scope")
    hook["enable" if scope == "mmpretrain" else "draw"] = True
    if show:
        hook.update(show=True, wait_time=wait_time)
    if show_dir and scope == "mmdet":
        hook.test_out_dir = show_dir
    elif scope == "mmpretrain":
        hook.update(interval=1, out_dir=show_dir)
    elif show_dir:
        require(cfg, "visualizer")
        hook.interval = 1
        cfg.visualizer.save_dir = show_dir


def _turn_on_augmentation(cfg: Config) -> None:
    pipeline = cfg.test_dataloader.dataset.get("pipeline", [])
    if cfg.get("default_scope") == "mmdet" and "tta_model" not in cfg:
        nms = {"type": "nms", "iou_threshold": 0.5}
        cfg.tta_model = {"type": "DetTTAModel", "tta_cfg": {"nms": nms, "max_per_img": 100}}
    if cfg.get("default_scope") == "mmpretrain":  # As its own tool does it: both of an image and its mirror image.
        flips = [{"type": "RandomFlip", "prob": 1.0}, {"type": "RandomFlip", "prob": 0.0}]
        augment = {"type": "TestTimeAug", "transforms": [flips, [pipeline[-1]]]}
        cfg.setdefault("tta_model", {"type": "AverageClsScoreTTA"})
        cfg.setdefault("tta_pipeline", [*copy.deepcopy(pipeline[:-1]), augment])
    if cfg.get("default_scope") == "mmdet" and "tta_pipeline" not in cfg:
        keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
        flips = [{"type": "RandomFlip", "prob": 1.0}, {"type": "RandomFlip", "prob": 0.0}]
        pack = [{"type": "PackDetInputs", "meta_keys": keys}]
        augment = {"type": "TestTimeAug", "transforms": [flips, pack]}
        cfg.tta_pipeline = [*copy.deepcopy(pipeline[:-1]), augment]
    require(cfg, "tta_model", "tta_pipeline")
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = {**cfg.tta_model, "module": cfg.model}
