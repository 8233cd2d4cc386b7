"""Write a page on which to look around in what a network makes of photographs; it needs no server and no network.

    focalnet explore cat.jpg --variant focalnet_tiny_lrf --weights pretrained --out cat.html
    focalnet explore cat.jpg dog.jpg --weights detector.pth --out two.html
    focalnet explore cat.jpg --weights before.pth --weights after.pth --out trained.html
    focalnet explore cat.jpg --config my_detector.py --weights work_dirs/my_detector/epoch_12.pth --out mine.html

Click a place and see where features are alike, what each focal level adds there, and where in the photo it looks.
Several photos, or several weights, stand side by side.
The exit status is 0 if the page was written, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.command.configured import open_configured
from focalnet_backbone.create import DEFAULT_VARIANT, open_backbone
from focalnet_backbone.features.images import limit_size, load_image
from focalnet_backbone.report.explore import explore, write_page
from focalnet_backbone.system.command_line import fail, parse, positive, program
from focalnet_backbone.system.outputs import claim

TOOL = "focalnet explore"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.html", help="the page to write")
    parser.add_argument(
        "--variant", metavar="NAME", help=f"a published model (that of the weights; without any, {DEFAULT_VARIANT})"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="a config of detectron2, mmsegmentation or mmdetection, whose FocalNet is of no published shape",
    )
    parser.add_argument(
        "--weights",
        action="append",
        metavar="SOURCE",
        help="'pretrained', a file, a folder or a hub id, of a backbone or a whole detector; give it twice to compare "
        "two (random weights without it)",
    )
    parser.add_argument(
        "--max-size", type=positive, default=512, metavar="PIXELS", help="shrink longer photos to this (%(default)s)"
    )
    parser.add_argument(
        "--fields",
        type=positive,
        default=3,
        metavar="N",
        help="probe receptive fields at N x N places in each stage; each takes a backward pass (%(default)s)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; the GPU if there is one")
    parser.add_argument("--seed", type=int, default=0, help="seed of random weights (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a file that is not known as ours")
    return parser


@program(TOOL)
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    args = parse(make_parser(), arguments)
    try:
        if args.out.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"--out must be an .html file, got {args.out}")
        if args.config and (args.variant or "pretrained" in (args.weights or ())):
            raise ValueError(
                "--config says what network it is; --variant and pretrained weights are for published ones"
            )
        claim([(args.out, "the page")], args.images, force=args.force)
        photos = {path: limit_size(load_image(path), args.max_size) for path in args.images}
        device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        scenes = []
        for weights in args.weights or [None]:
            torch.manual_seed(args.seed)
            opened = open_configured(args.config, weights) if args.config else open_backbone(args.variant, weights)
            model = opened.to(device)
            network = args.variant or args.config or ("FocalNet" if weights else DEFAULT_VARIANT)
            network += f", {weights}" if weights else f", random weights (seed {args.seed})"
            for path, photo in photos.items():
                scene = explore(
                    model,
                    photo,
                    name=path.name,
                    network=network,
                    fields=args.fields,
                    report=lambda line, path=path: tqdm.write(f"{path.name}: {line}"),
                )
                scenes.append(scene)
        write_page(scenes, args.out)
    except (CheckpointError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        return fail(TOOL, error)
    print(f"wrote {args.out} ({args.out.stat().st_size / 1e6:.1f} MB); open it in a browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
