"""What the command lines that train and test configs of mmsegmentation and mmdetection have in common."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.command.data import fail_data, tell_findings
from focalnet_backbone.data_check.findings import DataError
from focalnet_backbone.data_check.openmmlab import check_config
from focalnet_backbone.openmmlab.flat import parse_option
from focalnet_backbone.system.command_line import fail
from focalnet_backbone.system.facts import one_at_a_time
from focalnet_backbone.system.processes import is_distributed

CONFIG_ERRORS = (OSError, ValueError, KeyError, TypeError, ImportError, AssertionError, CheckpointError)
"""What wrong files, configs and arguments raise while a runner is built."""


class _Options(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        try:
            options = dict(map(parse_option, values))
        except ValueError as error:
            parser.error(f"{option} {error}")
        setattr(namespace, self.dest, {**(getattr(namespace, self.dest) or {}), **options})


def make_parser(description: str) -> argparse.ArgumentParser:
    """The arguments of both."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", metavar="DIR", help="folder for logs and checkpoints (work_dirs/NAME)")
    add_config_options(parser)
    parser.add_argument("--force", action="store_true", help="replace files of yours that are in the way")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """The argument that replaces values of the config."""
    parser.add_argument(
        "--cfg-options",
        dest="options",
        nargs="+",
        action=_Options,
        metavar="KEY=VALUE",
        help='values that replace the config\'s, such as model.backbone.with_cp=True or key="[1,2]"',
    )


def run(tool: str, args: argparse.Namespace, build: Callable[..., Runner], work: Callable[[Runner], object]) -> int:
    """Build a runner and let it work; what is wrong is told in one line. Returns the exit status."""
    arguments = vars(args)
    del arguments["local_rank"]  # torch.distributed.launch passes it, but sets LOCAL_RANK too.
    try:
        if arguments["launcher"] == "pytorch" and not is_distributed():
            raise ValueError("--launcher pytorch is for processes that torchrun starts, but RANK is not set")
        runner = build(**arguments, check=functools.partial(_check, tool))
    except DataError as error:
        return fail_data(tool, error)
    except CONFIG_ERRORS as error:
        return _fail(tool, error)
    try:
        work(runner)
    except (CheckpointError, OSError, AssertionError) as error:  # mmcv asserts that it could read an image.
        return _fail(tool, error)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


def _check(tool: str, cfg: Config, loaders: tuple[str, ...]) -> None:
    """Check the data that a tool is going to read: in one process of a machine, whose findings the others remember."""
    with one_at_a_time(str(cfg.filename)) if "RANK" in os.environ else contextlib.nullcontext():
        tell_findings(tool, check_config(cfg, loaders).findings)


def _fail(tool: str, error: Exception) -> int:
    """Print the error as one line. Returns the exit status."""
    rank = os.environ.get("RANK", "0")
    place = "" if rank == "0" else f" (process {rank})"
    return fail(f"{tool}{place}", error)
