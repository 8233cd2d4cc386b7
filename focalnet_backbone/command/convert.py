"""Convert FocalNet weights between the formats of the release, transformers, timm, detectron2 and mmengine.

    focalnet convert focalnet_tiny_lrf converted/hf --to transformers
    focalnet convert work_dirs/epoch_12.pth weights.safetensors --to native

The exit status is 0 if the file was written, 2 if it could not be.
"""

from __future__ import annotations

import argparse

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.checkpoints.convert import TARGETS, convert_checkpoint
from focalnet_backbone.network.variants import list_variants
from focalnet_backbone.system.command_line import fail, parse, program


@program("convert_checkpoint.py")
def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "source",
        metavar="IN",
        help="weight file, transformers folder, variant name, hub id (organisation/name) or https:// address, in any "
        "format",
    )
    parser.add_argument(
        "out",
        metavar="OUT",
        help="file to write: .safetensors, .pth, .pt or .bin. Without such an ending: a folder with config.json for "
        "transformers, a .pth file for detectron2, mmengine, mmdet and focalnet-dino, a .safetensors file otherwise",
    )
    parser.add_argument(
        "--to",
        required=True,
        choices=TARGETS,
        help="format of OUT; mmdet and focalnet-dino are of whole DINO detectors",
    )
    parser.add_argument(
        "--variant",
        choices=list_variants(),
        metavar="NAME",
        help="a published model of the family that IN is of, where timm or transformers need it and IN does not tell: "
        + ", ".join(list_variants()),
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    args = parse(parser)
    try:
        report = convert_checkpoint(args.source, args.out, args.to, variant=args.variant, force=args.force)
    except (CheckpointError, OSError, ValueError) as error:
        return fail("convert_checkpoint.py", error)
    print(report)
    return 0
