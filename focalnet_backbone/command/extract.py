"""Write the feature pyramid of every image, or vectors pooled from it, as files or as shards.

    focalnet extract photos/ --variant focalnet_tiny_lrf --weights pretrained --out features/
    focalnet extract photos/ --variant focalnet_tiny_lrf --weights detector.pth --out features/
    torchrun --nproc-per-node 2 -m focalnet_backbone extract photos/ --out features/
    focalnet extract 's3://bucket/photos/{000..999}.tar' --pool gap --out s3://bucket/features.parquet --resume
    focalnet extract photos/ --pool roi --boxes instances.json --out regions.parquet

Photos are files, folders, globs, lists of files (.txt), tars in WebDataset's layout, Parquet files or saved datasets
with a column of images, here or at an address that fsspec opens. What is written follows from the ending of --out:
.parquet or .arrow (tables), .wds (tars), .zarr (arrays), each a folder of shards, with a manifest once one is whole.
Any other ending is a folder with a safetensors file an image, mirroring the folders that they lie in.

Weights bring their own sizes, so that the backbone of a detector or a small model of your own is taken as it is;
--variant then names a published model of the same family.
The exit status is 0 if every image was read, 1 if some were not (each is named), 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tqdm import tqdm

from focalnet_backbone.create import DEFAULT_VARIANT, open_backbone
from focalnet_backbone.features.extractor import FeatureExtractor
from focalnet_backbone.features.pooling import POOLS, Boxes
from focalnet_backbone.features.shard_job import OUT_DTYPES, make_layout, new_job
from focalnet_backbone.features.shards import extract_to_shards
from focalnet_backbone.features.sinks import KINDS
from focalnet_backbone.features.sources import are_photos, find_shards
from focalnet_backbone.features.to_files import ExtractionSummary, extract_to_files, plan_outputs
from focalnet_backbone.network.variants import list_variants
from focalnet_backbone.system.command_line import fail, one_line, parse, positive, printable, program
from focalnet_backbone.system.outputs import check_writable
from focalnet_backbone.system.processes import is_distributed, is_first

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


def parse_args() -> argparse.Namespace:
    """The command line's arguments; exits with status 2 if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="images, folders, globs, lists, tars, Parquet, datasets, addresses"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder or address; *.parquet, *.arrow, *.wds, *.zarr, or files"
    )
    parser.add_argument(
        "--variant",
        metavar="NAME",
        help=f"one of {', '.join(list_variants())} (that of the weights; without any, {DEFAULT_VARIANT})",
    )
    parser.add_argument("--weights", help="'pretrained', a file, a folder or a hub id; random weights without it")
    parser.add_argument(
        "--out-features", "--stages", nargs="+", metavar="NAME", help="maps: stem, stage1, ... (all stages)"
    )
    parser.add_argument("--max-size", type=int, metavar="PIXELS", help="shrink images whose longer side is above this")
    parser.add_argument("--pool", choices=POOLS, default="none", help="whole maps, or means: gap of each, roi of boxes")
    parser.add_argument("--boxes", metavar="FILE", help="COCO file of the boxes for --pool roi")
    parser.add_argument("--out-dtype", choices=OUT_DTYPES, help="type to store shards in (that of computing)")
    parser.add_argument("--shard-size", type=positive, default=1000, metavar="N", help="images a shard (%(default)s)")
    parser.add_argument("--column", metavar="NAME", help="the tables' column of images")
    parser.add_argument("--key-column", metavar="NAME", help="the tables' column that names the images")
    parser.add_argument(
        "--engine", choices=["process", "ray"], default="process", help="what does shards (%(default)s)"
    )
    parser.add_argument("--ray-workers", type=positive, metavar="N", help="of --engine ray (one a GPU, or a CPU)")
    parser.add_argument("--batch-size", type=int, default=8, help="images taken at once (%(default)s)")
    parser.add_argument(
        "--num-workers", type=int, default=0, help="processes (of shards: threads) that read images ahead (%(default)s)"
    )
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
        work = _plan(args, lambda path, error: unsearched.append((str(path), one_line(error))))
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if is_first():
            fail("extract_features.py", error)
        return 2
    if distributed:
        dist.init_process_group("gloo")
    start = time.monotonic()
    try:
        summary = work()
    except (FileExistsError, ValueError) as error:
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


def _plan(args: argparse.Namespace, on_error: Callable[[Path, OSError], None]) -> Callable[[], ExtractionSummary]:
    """Check the arguments, find the images and make the network. Returns the work that is left."""
    to_files = args.pool == "none" and are_photos(args.inputs) and not Path(args.out).name.endswith(tuple(KINDS))
    if (args.pool == "roi") != (args.boxes is not None):
        raise ValueError("--pool roi and --boxes go together")
    if args.plot and not to_files:
        raise ValueError("--plot draws files of images alone, no shards")
    if args.engine == "ray" and (to_files or is_distributed()):
        raise ValueError("--engine ray does shards, and by itself, not under torchrun")
    if to_files:
        outputs = plan_outputs(args.inputs, args.out, on_error=on_error)
        check_writable(Path(args.out, "a"))
    else:
        tables = {"column": args.column, "key_column": args.key_column}
        shards = find_shards(args.inputs, shard_size=args.shard_size, on_error=on_error, **tables)
        boxes = Boxes(args.boxes) if args.boxes else None
    extractor = _make_extractor(args)
    if to_files:
        _announce(args, extractor, f"{len(outputs)} images")
        return functools.partial(
            extract_to_files,
            extractor,
            outputs,
            settings=_settings(args),
            batch_size=args.batch_size,
            num_workers=args.num_workers,
            resume=args.resume,
            plot=args.plot,
            force=args.force,
            report=_report,
        )
    layout = make_layout(extractor, args.out, pool=args.pool, dtype=args.out_dtype)
    job = new_job(
        extractor,
        args.out,
        layout,
        settings=_settings(args),
        boxes=boxes,
        batch_size=args.batch_size,
        threads=max(1, args.num_workers),
    )
    _announce(args, extractor, f"{len(shards)} shards")
    options = {"resume": args.resume, "force": args.force, "report": _report}
    if args.engine == "process":
        return functools.partial(extract_to_shards, extractor, job, shards, **options)
    from focalnet_backbone.features.ray_engine import extract_by_ray

    return functools.partial(extract_by_ray, extractor, job, shards, workers=args.ray_workers, **options)


def _make_extractor(args: argparse.Namespace) -> FeatureExtractor:
    device = args.device
    if device is None and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    torch.manual_seed(args.seed)
    model = open_backbone(args.variant, args.weights, args.out_features)
    return FeatureExtractor(model, device=device, dtype=DTYPES[args.dtype], max_size=args.max_size)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the features depend on, besides the images."""
    names = ("variant", "weights", "out_features", "max_size", "dtype", "seed")
    return {name: getattr(args, name) for name in names}


def _announce(args: argparse.Namespace, extractor: FeatureExtractor, what: str) -> None:
    if is_first():
        name = args.variant or ("FocalNet" if args.weights else DEFAULT_VARIANT)
        weights = f"weights {args.weights}" if args.weights else f"RANDOM weights (seed {args.seed})"
        print(f"{name}, {weights}, {what}, on {extractor.device} in {args.dtype}", flush=True)


def _report(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
