"""Draw what the network sees in photographs: the pictures of the paper (arXiv 2203.11926).

    python tools/visualize.py photos/ --variant focalnet_tiny_lrf --weights pretrained --out pictures
    python tools/visualize.py cat.jpg --variant focalnet_tiny_lrf --weights detector.pth --stage 4 --overlay --out seen
    python tools/visualize.py --what kernels --variant focalnet_base_lrf --weights pretrained --out pictures

`gates` are the weights of each focal level and of the global context over the image, in the last block of each stage.
`modulator` is the magnitude of what they gather there. Both are written for each image, as `cat.jpg.gates.png` and
`cat.jpg.modulator.png`. `kernels` are the depth-wise kernels of all blocks of a stage, `kernels_stage1.png` and so on.

Weights bring their own sizes, so that those of a detector or of a small model of your own are drawn as they are;
--variant then names a published model of the same family.
The exit status is 0 if every image was drawn, 1 if some were not (each is named), 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.create import DEFAULT_VARIANT, open_backbone
from focalnet_backbone.features.images import limit_size, load_image, normalize
from focalnet_backbone.features.to_files import plan_outputs
from focalnet_backbone.network.backbone import FocalNet
from focalnet_backbone.network.variants import list_variants
from focalnet_backbone.pictures import draw_gates, draw_kernels, draw_modulators, read_kernels, watch_modulation
from focalnet_backbone.system.command_line import fail, one_line, positive
from focalnet_backbone.system.files import whole_file

DRAW = {"gates": draw_gates, "modulator": draw_modulators}


def parse_args() -> argparse.Namespace:
    """The command line's arguments; exits with status 2 if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="image files, folders or globs")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the PNGs")
    parser.add_argument(
        "--variant",
        metavar="NAME",
        help=f"one of {', '.join(list_variants())} (that of the weights; without any, {DEFAULT_VARIANT})",
    )
    parser.add_argument("--weights", help="'pretrained', a file, a folder or a hub id; random weights without it")
    parser.add_argument(
        "--what", nargs="+", choices=[*DRAW, "kernels"], default=[*DRAW, "kernels"], help="which pictures (all)"
    )
    parser.add_argument("--stage", type=positive, nargs="+", metavar="N", help="stages, from 1 (all)")
    parser.add_argument("--block", type=positive, metavar="N", help="block of these stages, from 1")
    parser.add_argument("--overlay", action="store_true", help="lay the maps over the photographs")
    parser.add_argument(
        "--max-size", type=positive, default=800, metavar="PIXELS", help="shrink longer images to this (%(default)s)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; the GPU if there is one")
    parser.add_argument("--seed", type=int, default=0, help="seed of random weights (%(default)s)")
    return parser.parse_args()


def save(figure: object, path: Path) -> None:
    """Write a figure of matplotlib as a PNG, whole or not at all."""
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, dpi=100)


def draw_image(path: Path, output: Path, model: FocalNet, args: argparse.Namespace) -> None:
    """Draw what was asked for of one image, into `OUTPUT.WHAT.png` each."""
    image = limit_size(load_image(path), args.max_size)
    weight = model.patch_embed.proj.weight
    views = watch_modulation(model, normalize(image[None].to(weight.device), weight.dtype), args.stage, args.block)
    for what in args.what:
        if what in DRAW:
            save(DRAW[what](image, views, overlay=args.overlay), output.with_name(f"{output.name}.{what}.png"))


def main() -> int:
    """Run the command line; returns its exit status."""
    args = parse_args()
    try:
        per_image = [what for what in args.what if what in DRAW]
        if per_image and not args.inputs:
            raise ValueError(f"no images given to draw {' and '.join(per_image)} of; --what kernels needs none")
        outputs = plan_outputs(args.inputs, args.out, suffix="") if per_image else {}
        torch.manual_seed(args.seed)
        model = open_backbone(args.variant, args.weights).to(
            args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        )
        # Also when they are not to be drawn: this finds a stage or block that there is not.
        stages = args.stage or range(1, len(model.layers) + 1)
        kernels = {stage: read_kernels(model, stage, args.block) for stage in stages}
    except (CheckpointError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        return fail("visualize.py", error)
    name = args.variant or ("FocalNet" if args.weights else DEFAULT_VARIANT)
    weights = f"weights {args.weights}" if args.weights else f"RANDOM weights (seed {args.seed})"
    print(f"{name}, {weights}, {len(outputs)} images, on {model.patch_embed.proj.weight.device}")
    failed = 0
    try:
        if "kernels" in args.what:
            for stage, blocks in kernels.items():
                save(draw_kernels(blocks), args.out / f"kernels_stage{stage}.png")
        for path, output in tqdm(outputs.items(), unit="image", desc="drawing", disable=not outputs):
            try:
                draw_image(path, output, model, args)
            except ValueError as error:
                tqdm.write(f"visualize.py: {one_line(error)}", file=sys.stderr)
                failed += 1
    except KeyboardInterrupt:
        print("interrupted; every picture written is whole", file=sys.stderr)
        return 130
    except (ImportError, OSError, RuntimeError) as error:
        return fail("visualize.py", error)
    drawn = f"{len(outputs) - failed} images drawn, {failed} failed" if outputs else "kernels drawn"
    print(f"{drawn}, to {args.out}")
    return 1 if failed else 0
