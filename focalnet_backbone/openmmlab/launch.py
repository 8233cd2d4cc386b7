"""The command lines `tools/train.py` and `tools/test.py`, for configs of mmsegmentation and mmdetection alike."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.config import DictAction
from mmengine.runner import Runner

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.openmmlab.runners import build_test_runner, build_training_runner
from focalnet_backbone.system.command_line import fail

CONFIG_ERRORS = (OSError, ValueError, KeyError, TypeError, ImportError, AssertionError, CheckpointError)
"""What wrong files, configs and arguments raise while a runner is built."""


def command_train(arguments: Sequence[str] | None = None) -> int:
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
    args = parser.parse_args(arguments)
    return _run("train.py", args, build_training_runner, Runner.train)


def command_test(arguments: Sequence[str] | None = None) -> int:
    """Test a checkpoint of a config's model. Returns the exit status."""
    parser = _parser("Test a checkpoint of the model of a config of mmsegmentation or mmdetection.")
    parser.add_argument("checkpoint", help="weights of the whole model: a file or an address")
    parser.add_argument("--tta", action="store_true", help="augment each image and merge the predictions")
    parser.add_argument("--out", metavar="PATH", help="save predictions: a folder (mmseg) or a .pkl file (mmdet)")
    parser.add_argument("--show-dir", metavar="DIR", help="save painted images there")
    parser.add_argument("--show", action="store_true", help="show painted images in a window")
    parser.add_argument("--wait-time", type=float, default=2.0, metavar="SECONDS", help="how long to show each")
    args = parser.parse_args(arguments)
    return _run("test.py", args, build_test_runner, Runner.test)


class _Options(DictAction):
    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, *rest: Any, **more: Any) -> None:
        for value in values:
            if "=" not in value:
                parser.error(f"--cfg-options takes KEY=VALUE, got {value}")
        super().__call__(parser, namespace, values, *rest, **more)


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", metavar="DIR", help="folder for logs and checkpoints (work_dirs/NAME)")
    parser.add_argument(
        "--cfg-options",
        dest="options",
        nargs="+",
        action=_Options,
        metavar="KEY=VALUE",
        help='values that replace the config\'s, such as model.backbone.with_cp=True or key="[1,2]"',
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def _run(tool: str, args: argparse.Namespace, build: Callable[..., Runner], work: Callable[[Runner], object]) -> int:
    arguments = vars(args)
    del arguments["local_rank"]  # torch.distributed.launch passes it, but sets LOCAL_RANK too.
    try:
        runner = build(**arguments)
    except CONFIG_ERRORS as error:
        return _fail(tool, error)
    try:
        work(runner)
    except (CheckpointError, OSError, AssertionError) as error:  # mmcv asserts that it could read an image.
        return _fail(tool, error)
    except KeyboardInterrupt:
        print(f"{tool}: interrupted", file=sys.stderr)
        return 130
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


def _fail(tool: str, error: Exception) -> int:
    """Print the error as one line. Returns the exit status."""
    rank = os.environ.get("RANK", "0")
    place = "" if rank == "0" else f" (process {rank})"
    return fail(f"{tool}{place}", error)
