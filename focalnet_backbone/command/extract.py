"""Write the feature pyramid of every image as a safetensors file, mirroring the folders that they lie in.

    focalnet extract photos/ --variant focalnet_tiny_lrf --weights pretrained --out features/
    focalnet extract photos/ --variant focalnet_tiny_lrf --weights detector.pth --out features/
    torchrun --nproc-per-node 2 -m focalnet_backbone extract photos/ --out features/

Weights bring their own sizes, so that the backbone of a detector or a small model of your own is taken as it is;
--variant then names a published model of the same family.
The exit status is 0 if every image was read, 1 if some were not (each is named), 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from tqdm import tqdm

from focalnet_backbone.create import DEFAULT_VARIANT, open_backbone
from focalnet_backbone.features.extractor import FeatureExtractor
from focalnet_backbone.features.to_files import extract_to_files, plan_outputs
from focalnet_backbone.network.variants import list_variants
from focalnet_backbone.system.command_line import fail, one_line, parse, printable, program
from focalnet_backbone.system.outputs import check_writable
from focalnet_backbone.system.processes import is_distributed, is_first

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


def parse_args() -> argparse.Namespace:
    """The command line's arguments; exits with status 2 if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image files, folders or globs")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the .safetensors files")
    parser.add_argument(
        "--variant",
        metavar="NAME",
        help=f"one of {', '.join(list_variants())} (that of the weights; without any, {DEFAULT_VARIANT})",
    )
    parser.add_argument("--weights", help="'pretrained', a file, a folder or a hub id; random weights without it")
    parser.add_argument("--out-features", nargs="+", metavar="NAME", help="maps: stem, stage1, ... (all stages)")
    parser.add_argument("--max-size", type=int, metavar="PIXELS", help="shrink images whose longer side is above this")
    parser.add_argument("--batch-size", type=int, default=8, help="images taken at once (%(default)s)")
    parser.add_argument("--num-workers", type=int, default=0, help="processes that read images ahead (%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; the GPU if there is one")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="type to compute in (%(default)s)")
    parser.add_argument("--plot", action="store_true", help="write a PNG of each pyramid beside it")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="skip images done before; not if they, weights or options have changed",
    )
    parser.add_argument("--force", action="store_true", help="replace files in DIR that this tool did not write")
    parser.add_argument("--seed", type=int, default=0, help="seed of random weights (%(default)s)")
    return parse(parser)


@program("extract_features.py", resumed_by="every file written is whole, go on with --resume")
def main() -> int:
    """Run the command line; returns its exit status."""
    args = parse_args()
    unsearched: list[tuple[str, str]] = []
    try:
        distributed = is_distributed()
        outputs = plan_outputs(
            args.inputs, args.out, on_error=lambda path, error: unsearched.append((str(path), one_line(error)))
        )
        check_writable(Path(args.out, "a"))
        device = args.device
        if device is None and torch.cuda.is_available():
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.manual_seed(args.seed)
        model = open_backbone(args.variant, args.weights, args.out_features)
        extractor = FeatureExtractor(model, device=device, dtype=DTYPES[args.dtype], max_size=args.max_size)
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if is_first():
            fail("extract_features.py", error)
        return 2
    if is_first():
        name = args.variant or ("FocalNet" if args.weights else DEFAULT_VARIANT)
        weights = f"weights {args.weights}" if args.weights else f"RANDOM weights (seed {args.seed})"
        print(f"{name}, {weights}, {len(outputs)} images, on {extractor.device} in {args.dtype}", flush=True)
    names = ("variant", "weights", "out_features", "max_size", "dtype", "seed")
    settings = {name: getattr(args, name) for name in names}
    if distributed:
        dist.init_process_group("gloo")
    start = time.monotonic()
    try:
        summary = extract_to_files(
            extractor,
            outputs,
            settings=settings,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
            resume=args.resume,
            plot=args.plot,
            force=args.force,
            report=lambda line: tqdm.write(line, file=sys.stderr),
        )
    except ValueError as error:
        return fail("extract_features.py", error)
    summary.failed[:0] = unsearched
    if is_first():
        seconds = time.monotonic() - start
        rate = f"{seconds:.1f} s, {summary.written / max(seconds, 1e-9):.1f} images/s"
        print(f"{summary}, in {rate}, to {printable(args.out)}")
        for _, reason in summary.failed:
            print(f"failed: {reason}", file=sys.stderr)
    if distributed:
        dist.barrier()
        dist.destroy_process_group()
    return 1 if summary.failed else 0
