"""Test a checkpoint of the model of a config of mmsegmentation, mmdetection or mmpretrain."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.runner import Runner

from focalnet_backbone.command.openmmlab import make_parser, run
from focalnet_backbone.openmmlab.testing import build_test_runner
from focalnet_backbone.system.command_line import parse, program


@program("test.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("checkpoint", help="weights of the whole model: a file or an address")
    parser.add_argument("--tta", action="store_true", help="augment each image and merge the predictions")
    parser.add_argument(
        "--out", metavar="PATH", help="save predictions: a folder (mmseg) or a .pkl file (mmdet, mmpretrain)"
    )
    parser.add_argument("--show-dir", metavar="DIR", help="save painted images there")
    parser.add_argument("--show", action="store_true", help="show painted images in a window")
    parser.add_argument("--wait-time", type=float, default=2.0, metavar="SECONDS", help="how long to show each")
    args = parse(parser, arguments)
    return run("test.py", args, build_test_runner, Runner.test)
