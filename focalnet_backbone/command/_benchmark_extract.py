"""Measure how fast tars of photos become features: images a second, peak memory, and the network's share of the time.

    focalnet benchmark extract --images 1000 10000 --size 64
    focalnet benchmark extract --variant focalnet_tiny_srf --images 100 --size 224
    focalnet benchmark extract --images 2000 --processes 1 2

Without --variant the network is so small that what is around it is under test. Photos are made up; features are means
over each map, written as Parquet.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from focalnet_backbone.benchmark import describe_environment, format_environment
from focalnet_backbone.benchmark.extraction import SMALL, ExtractionCase, format_extraction, measure_extraction
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.system.command_line import fail, parse, positive
from focalnet_backbone.system.outputs import claim, result_file


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="focalnet benchmark extract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--variant", default=SMALL, metavar="NAME", help="a published model (one that is small)")
    parser.add_argument("--images", type=positive, nargs="+", default=[1000], metavar="N", help="(%(default)s)")
    parser.add_argument("--size", type=positive, default=64, metavar="PIXELS", help="of photos (%(default)s)")
    parser.add_argument("--processes", type=positive, nargs="+", default=[1], metavar="N", help="(%(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads of each network; all cores, shared, by default")
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help="(%(default)s)")
    parser.add_argument("--shard-size", type=positive, default=1000, metavar="N", help="images a tar (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements")
    parser.add_argument("--force", action="store_true", help="replace a file that this tool did not write")
    args = parse(parser, arguments)
    try:
        if args.variant != SMALL:
            FocalNetConfig.from_variant(args.variant)
        claim([(args.json, "--json")] if args.json else [], force=args.force)
    except (KeyError, OSError, ValueError) as error:
        return fail("focalnet benchmark extract", error)
    environment = describe_environment(torch.device("cpu"))
    print(format_environment(environment), flush=True)
    results = []
    for processes in args.processes:
        for images in args.images:
            case = ExtractionCase(args.variant, args.size, images, processes, args.batch_size, args.shard_size)
            results.append(measure_extraction(case, args.threads))
    print(format_extraction(results))
    if args.json:
        with result_file(args.json) as unfinished:
            unfinished.write_text(json.dumps({"environment": environment, "cases": results}), encoding="utf-8")
    return 0
