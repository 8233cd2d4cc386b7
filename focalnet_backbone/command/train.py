"""Train the model of a config of mmsegmentation, mmdetection or mmpretrain."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from focalnet_backbone import own_data
from focalnet_backbone.command.openmmlab import make_parser, run
from focalnet_backbone.openmmlab.training import SAVE_ON_STOP, build_training_runner
from focalnet_backbone.system.command_line import fail, parse, program


@program("train.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from the last checkpoint in the working folder (a fresh start if there is none), or from this one",
    )
    parser.add_argument("--amp", action="store_true", help="train in mixed precision (needs a GPU)")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate to the batch size")
    parser.add_argument(
        "--save-on-stop",
        choices=SAVE_ON_STOP,
        default="sigterm",
        help="which signals leave a checkpoint of the iteration in which they come (%(default)s; always: Ctrl-C too)",
    )
    own_data.add_arguments(parser)
    args = parse(parser, arguments)
    try:
        data = own_data.read_arguments(args)
    except (OSError, ValueError) as error:
        return fail("train.py", error)
    for name in own_data.ARGUMENTS:
        delattr(args, name)
    args.own_data = data
    return run("train.py", args, build_training_runner, _train)


def _train(runner: Runner) -> None:
    runner.train()
    if is_main_process():
        print(f"see it: focalnet report {shlex.quote(runner.work_dir)}")
