"""The command lines `tools/train.py` and `tools/test.py`, for configs of mmsegmentation and mmdetection alike."""

from __future__ import annotations

import argparse
import copy
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import Runner

import focalnet_backbone.openmmlab  # noqa: F401  (operators, safe checkpoints and FocalNet for any config)
from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.openmmlab.data import check_datasets
from focalnet_backbone.openmmlab.resume import latest_checkpoint
from focalnet_backbone.openmmlab.weights import check_fit, read_weights

CONFIG_ERRORS = (OSError, ValueError, KeyError, TypeError, ImportError, CheckpointError)
"""What wrong files, configs and arguments raise while everything is built."""


def train(argv: list[str] | None = None) -> int:
    """Train the model of a config. Returns the exit status."""
    parser = _parser("Train the model of a config of mmsegmentation or mmdetection.")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from the last checkpoint in the working folder (a fresh start if there is none), or from this one",
    )
    parser.add_argument("--amp", action="store_true", help="train in mixed precision (needs a GPU)")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate to the batch size")
    args = parser.parse_args(argv)
    return _run("train.py", args, lambda: _build_training(args), lambda runner: runner.train())


def test(argv: list[str] | None = None) -> int:
    """Test a checkpoint of a config's model. Returns the exit status."""
    parser = _parser("Test a checkpoint of a config's model, and print its metrics.")
    parser.add_argument("checkpoint", help="weights of the whole model: a file or an address")
    parser.add_argument("--tta", action="store_true", help="augment each image and merge the predictions")
    parser.add_argument("--out", metavar="PATH", help="save predictions: a folder (mmseg) or a .pkl file (mmdet)")
    parser.add_argument("--show-dir", metavar="DIR", help="save painted images there")
    parser.add_argument("--show", action="store_true", help="show painted images in a window")
    parser.add_argument("--wait-time", type=float, default=2.0, metavar="SECONDS", help="how long to show each")
    args = parser.parse_args(argv)
    return _run("test.py", args, lambda: _build_testing(args), lambda runner: runner.test())


def load_config(path: str | Path, options: dict | None = None) -> Config:
    """Read a config and set its default scope, after which its parts can be built.

    Args:
        path: a config of mmsegmentation or mmdetection, as a Python file.
        options: values that replace the config's, by dotted keys.

    Raises:
        FileNotFoundError: there is no such file, or not what it inherits from.
        ValueError: it is no valid config.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no config file {path}")
    try:
        with warnings.catch_warnings():
            # mmengine looks up mmseg's configs with pkg_resources, which warns several times that it is old.
            warnings.filterwarnings("ignore", message="pkg_resources")
            cfg = Config.fromfile(path)
    except (SyntaxError, NameError, OSError, TypeError) as error:
        raise ValueError(f"{path} is no valid config: {error}") from error
    if options:
        cfg.merge_from_dict(options)
    init_default_scope(cfg.get("default_scope") or "mmengine")
    return cfg


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", metavar="DIR", help="folder for logs and checkpoints (work_dirs/NAME)")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help='values that replace the config\'s, such as model.backbone.with_cp=True or key="[1,2]"',
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def _run(tool: str, args: argparse.Namespace, build: Callable[[], Runner], work: Callable[[Runner], object]) -> int:
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    try:
        runner = build()
    except CONFIG_ERRORS as error:
        return _fail(tool, error)
    try:
        work(runner)
    except (CheckpointError, FileNotFoundError) as error:
        return _fail(tool, error)
    except KeyboardInterrupt:
        print(f"{tool}: interrupted", file=sys.stderr)
        return 130
    return 0


def _fail(tool: str, error: Exception) -> int:
    """Print the error as one line. Returns the exit status."""
    text = error.args[0] if isinstance(error, KeyError) else error
    rank = os.environ.get("RANK", "0")
    place = "" if rank == "0" else f" (process {rank})"
    print(f"{tool}{place}: {' '.join(str(text).split())}", file=sys.stderr)
    return 2


def _prepare(args: argparse.Namespace) -> Config:
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or str(Path("work_dirs") / Path(args.config).stem)
    if not torch.cuda.is_available():
        _fit_to_cpu(cfg)
    return cfg


def _fit_to_cpu(cfg: Config) -> None:
    """Let several processes train without GPUs, which mmengine's launcher takes for granted."""
    if cfg.launcher != "pytorch":
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    cfg.model_wrapper_cfg = dict(
        type="MMDistributedDataParallel",
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    )
    if _replace_type(cfg.model, "SyncBN", "BN"):
        print_log("without GPUs, BN takes the place of SyncBN: its statistics are each process's own", "current")


def _replace_type(part: object, old: str, new: str) -> bool:
    """Replace a `type` everywhere in a part of a config; whether there was one."""
    if isinstance(part, dict):
        found = part.get("type") == old
        if found:
            part["type"] = new
        return any([found, *(_replace_type(value, old, new) for value in part.values())])
    if isinstance(part, (list, tuple)):
        return any([_replace_type(value, old, new) for value in part])
    return False


def _build_training(args: argparse.Namespace) -> Runner:
    cfg = _prepare(args)
    check_datasets(cfg, ("train_dataloader", "val_dataloader"))
    if args.amp:
        if not torch.cuda.is_available():
            raise ValueError("--amp needs a GPU, and there is none")
        cfg.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
    if args.auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise ValueError(f"--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in {args.config}")
        cfg.auto_scale_lr.enable = True
    if args.resume:
        checkpoint = latest_checkpoint(cfg.work_dir) if args.resume == "auto" else Path(args.resume)
        if checkpoint is not None:
            read_weights(checkpoint)
            cfg.load_from = str(checkpoint)
        cfg.resume = True
    cfg.custom_hooks = [*cfg.get("custom_hooks", []), dict(type="ExactResumeHook")]
    saving = {"type": "CheckpointHook", "backend_args": {"backend": "atomic_local"}}
    cfg.merge_from_dict(
        {"default_hooks": {"checkpoint": {**saving, **cfg.get("default_hooks", {}).get("checkpoint", {})}}}
    )
    return _build_runner(cfg)


def _build_testing(args: argparse.Namespace) -> Runner:
    cfg = _prepare(args)
    weights, _ = read_weights(args.checkpoint)
    cfg.load_from = args.checkpoint
    check_datasets(cfg, ("test_dataloader",))
    is_detection = cfg.get("default_scope") == "mmdet"
    if args.out and is_detection and not args.out.endswith((".pkl", ".pickle")):
        raise ValueError(f"--out must be a .pkl file for mmdet, got {args.out}")
    if args.out and not is_detection:
        cfg.test_evaluator.update(output_dir=args.out, keep_results=True)
    if args.show or args.show_dir:
        _turn_on_painting(cfg, args)
    if args.tta:
        _turn_on_augmentation(cfg, is_detection)
    runner = _build_runner(cfg)
    model = runner.model
    while isinstance(model, BaseTTAModel) or is_model_wrapper(model):
        model = model.module
    check_fit(model, weights, args.checkpoint)
    if args.out and is_detection:
        from mmdet.evaluation import DumpDetResults

        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    return runner


def _build_runner(cfg: Config) -> Runner:
    return RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)


def _turn_on_painting(cfg: Config, args: argparse.Namespace) -> None:
    if "visualization" not in cfg.get("default_hooks", {}):
        raise ValueError(f"--show and --show-dir need a visualization hook in default_hooks of {args.config}")
    hook = cfg.default_hooks.visualization
    hook.draw = True
    if args.show:
        hook.update(show=True, wait_time=args.wait_time)
    if args.show_dir and cfg.get("default_scope") == "mmdet":
        hook.test_out_dir = args.show_dir
    elif args.show_dir:
        hook.interval = 1
        cfg.visualizer.save_dir = args.show_dir


def _turn_on_augmentation(cfg: Config, is_detection: bool) -> None:
    if is_detection and "tta_model" not in cfg:
        cfg.tta_model = dict(type="DetTTAModel", tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100))
    if is_detection and "tta_pipeline" not in cfg:
        keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
        flips = [dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)]
        pack = [dict(type="PackDetInputs", meta_keys=keys)]
        cfg.tta_pipeline = copy.deepcopy(cfg.test_dataloader.dataset.pipeline)
        cfg.tta_pipeline[-1] = dict(type="TestTimeAug", transforms=[flips, pack])
    if "tta_model" not in cfg or "tta_pipeline" not in cfg:
        raise ValueError("--tta needs tta_model and tta_pipeline in the config")
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
