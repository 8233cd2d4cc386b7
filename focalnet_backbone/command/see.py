"""Draw what the network sees in photographs: the pictures of the paper (arXiv 2203.11926).

    focalnet see photos/ --variant focalnet_tiny_lrf --weights pretrained --out pictures
    focalnet see cat.jpg --variant focalnet_tiny_lrf --weights detector.pth --stage 4 --overlay --out seen
    focalnet see --what kernels --variant focalnet_base_lrf --weights pretrained --out pictures

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
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.create import DEFAULT_VARIANT, open_backbone
from focalnet_backbone.features.images import limit_size, load_image, normalize
from focalnet_backbone.features.to_files import claim_outputs, plan_outputs
from focalnet_backbone.network.backbone import FocalNet
from focalnet_backbone.network.variants import list_variants
from focalnet_backbone.pictures import draw_gates, draw_kernels, draw_modulators, read_kernels, watch_modulation
from focalnet_backbone.system.command_line import (
    called,
    fail,
    is_out_of_memory,
    one_line,
    parse,
    positive,
    printable,
    program,
)
from focalnet_backbone.system.devices import choose_device
from focalnet_backbone.system.outputs import claim, result_file

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
    parser.add_argument("--force", action="store_true", help="replace files in DIR that this tool did not write")
    parser.add_argument("--seed", type=int, default=0, help="seed of random weights (%(default)s)")
    return parse(parser)


def save(figure: object, path: Path) -> None:
    """Write a matplotlib figure."""
    with result_file(path) as unfinished:
        figure.savefig(unfinished, dpi=100)


def draw_image(path: Path, outputs: list[Path], model: FocalNet, args: argparse.Namespace) -> None:
    """Write the pictures of one image that were asked for."""
    image = limit_size(load_image(path), args.max_size)
    weight = model.patch_embed.proj.weight
    views = watch_modulation(model, normalize(image[None].to(weight.device), weight.dtype), args.stage, args.block)
    for what, output in zip([what for what in args.what if what in DRAW], outputs, strict=True):
        save(DRAW[what](image, views, overlay=args.overlay), output)


def plan_pictures(args: argparse.Namespace, on_error: Callable[[Path, Exception], None]) -> dict[Path, list[Path]]:
    """The pictures to draw of each image; what cannot be searched goes to `on_error`."""
    per_image = [what for what in args.what if what in DRAW]
    if not per_image:
        return {}
    if not args.inputs:
        raise ValueError(f"no images given to draw {' and '.join(per_image)} of; --what kernels needs none")
    outputs = plan_outputs(args.inputs, args.out, suffix="", on_error=on_error)
    return {image: [out.with_name(f"{out.name}.{what}.png") for what in per_image] for image, out in outputs.items()}


@program("visualize.py", resumed_by="every picture written is whole")
def main() -> int:
    """Run the command line; returns its exit status."""
    args = parse_args()
    failed = []

    def note_failure(path: Path, error: Exception) -> None:
        failed.append(path)
        tqdm.write(f"{called('visualize.py')}: {one_line(error)}", file=sys.stderr)

    try:
        outputs = plan_pictures(args, note_failure)
        torch.manual_seed(args.seed)
        device = choose_device(args.device)
        model = open_backbone(args.variant, args.weights).to(device)
        # Also when they are not to be drawn: this finds a stage or block that there is not.
        stages = args.stage or range(1, len(model.layers) + 1)
        kernels = {stage: read_kernels(model, stage, args.block) for stage in stages}
        drawn_kernels = {args.out / f"kernels_stage{stage}.png": stage for stage in stages if "kernels" in args.what}
        claim(drawn_kernels.items(), outputs, force=args.force)
        good = claim_outputs(outputs, force=args.force, on_error=note_failure)
    except (CheckpointError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        return fail("visualize.py", error)
    name = args.variant or ("FocalNet" if args.weights else DEFAULT_VARIANT)
    weights = f"weights {args.weights}" if args.weights else f"RANDOM weights (seed {args.seed})"
    print(f"{name}, {weights}, {len(outputs)} images, on {model.patch_embed.proj.weight.device}", flush=True)
    try:
        for path, stage in drawn_kernels.items():
            save(draw_kernels(kernels[stage]), path)
        for path in tqdm(good, unit="image", desc="drawing", disable=not good):
            try:
                draw_image(path, outputs[path], model, args)
            except ValueError as error:
                note_failure(path, error)
            except (FileNotFoundError, MemoryError, RuntimeError) as error:
                if not (isinstance(error, FileNotFoundError) or is_out_of_memory(error)):
                    raise
                note_failure(path, ValueError(f"{path}: {one_line(error)}"))
    except (ImportError, RuntimeError) as error:
        return fail("visualize.py", error)
    drawn = f"{len(set(good) - set(failed))} images drawn, {len(failed)} failed"
    print(f"{drawn if outputs or failed else 'kernels drawn'}, to {printable(args.out)}")
    return 1 if failed else 0
