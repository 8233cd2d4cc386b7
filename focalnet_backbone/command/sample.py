"""Write a small dataset in COCO's and ADE20K's formats: drawn objects on photographs.

focalnet sample data/sample
focalnet sample data/small --train 8 --val 4 --size 64
"""

from __future__ import annotations

import argparse
from pathlib import Path

from focalnet_backbone.sample.scenes import make_sample_dataset
from focalnet_backbone.system.command_line import fail, parse, program


@program("make_sample_dataset.py")
def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder to make")
    parser.add_argument("--train", type=int, default=400, metavar="N", help="training images (%(default)s)")
    parser.add_argument("--val", type=int, default=100, metavar="N", help="validation images (%(default)s)")
    parser.add_argument(
        "--size", type=int, default=256, metavar="PIXELS", help="height and width of the images (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawing (%(default)s)")
    args = parse(parser)
    try:
        make_sample_dataset(args.root, args.train, args.val, args.size, args.seed)
    except (OSError, ValueError) as error:
        return fail("make_sample_dataset.py", error)
    except ModuleNotFoundError as error:
        return fail("make_sample_dataset.py", error)
    print(f"wrote {args.train} training and {args.val} validation images to {args.root}")
    return 0
