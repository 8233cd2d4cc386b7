"""Pretrain a FocalNet on a folder of photographs, without labels, by masked image modeling (SimMIM).

    focalnet pretrain photos --variant focalnet_tiny_lrf --out outputs/mim
    focalnet pretrain photos/ --variant focalnet_tiny_lrf --out outputs/mim --resume
    torchrun --nproc-per-node 8 -m focalnet_backbone pretrain photos --variant focalnet_base_lrf --out out --amp bf16

The output folder gets checkpoint.pth (for --resume), pictures/ (a row an image: the image, what the model sees of it,
how it fills the rest), tensorboard/ and, at the end, model/ (for from_pretrained, here and in transformers).
Ctrl-C ends the run after the current step, with a checkpoint; --resume then goes on along the same loss curve.
The exit status is 0 for a finished run, 130 or 143 for one that SIGINT or SIGTERM ended, 2 if it could not run.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from dataclasses import fields
from pathlib import Path

from focalnet_backbone.models.pretraining import Recipe, pretrain
from focalnet_backbone.models.pretraining.recipe import AMP_TYPES
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.network.variants import list_variants
from focalnet_backbone.system.command_line import fail, parse, program
from focalnet_backbone.system.processes import is_first

RECIPE_HELP = {
    "image_size": "side of the crops in pixels",
    "mask_ratio": "part of each image that is masked",
    "mask_block": "side of the masked blocks in pixels",
    "steps": "optimiser steps",
    "batch_size": "images a step, over all processes",
    "lr": "peak learning rate",
    "warmup_steps": "steps over which the learning rate rises",
    "weight_decay": "weight decay of AdamW",
    "clip_norm": "greatest norm of the gradients",
    "amp": "mixed precision",
    "seed": "of everything random",
}


def parse_args() -> argparse.Namespace:
    """The command line's arguments; exits with status 2 if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", metavar="FOLDER", help="folder of photographs, searched with its subfolders")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--variant", metavar="NAME", help=f"one of {', '.join(list_variants())}")
    model.add_argument("--config", metavar="FILE", help="a config.json, or the folder that it lies in")
    for field in fields(Recipe):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            **({"choices": AMP_TYPES} if field.name == "amp" else {"metavar": "N"}),
            help=f"{RECIPE_HELP[field.name]} (%(default)s)",
        )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in DIR, if there is one")
    parser.add_argument("--device", help="cpu, cuda, ...; the GPU if there is one")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that read images (%(default)s)")
    parser.add_argument("--checkpoint-every", type=int, default=500, metavar="N", help="steps (%(default)s)")
    parser.add_argument("--picture-every", type=int, default=500, metavar="N", help="steps (%(default)s)")
    return parse(parser)


@program("pretrain_mim.py", resumed_by="go on with --resume")
def main() -> int:
    """Run the command line; returns its exit status."""
    args = parse_args()
    signals = [signal.SIGINT]
    try:
        done = pretrain(
            FocalNetConfig.from_variant(args.variant) if args.variant else FocalNetConfig.from_pretrained(args.config),
            args.images,
            args.out,
            Recipe(**{field.name: getattr(args, field.name) for field in fields(Recipe)}),
            resume=args.resume,
            device=args.device,
            workers=args.workers,
            checkpoint_every=args.checkpoint_every,
            picture_every=args.picture_every,
            on_stop=lambda number: signals.insert(0, number),
        )
    except (ArithmeticError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        return fail("pretrain_mim.py", error)
    if done < args.steps:
        if is_first():
            print(f"stopped after step {done} of {args.steps}; go on with --resume", file=sys.stderr)
        return 128 + signals[0]
    if is_first():
        pictures, curves = (shlex.quote(str(Path(args.out, name))) for name in ("pictures", "tensorboard"))
        print(f"see it: {pictures}, and its curves by tensorboard --logdir {curves}")
    return 0
