"""Measure a model's exported files beside the model, eager and compiled, in turns, on one image.

    focalnet benchmark export focalnet_tiny_lrf --size 224 512 --contenders torch.compile onnx pt2 aoti "onnx int8"
    focalnet benchmark export upernet_focalnet_sample.py work_dirs/upernet_focalnet_sample/iter_1200.pth --size 512

Of a variant it is the backbone, with random weights, on which no time depends. A config and its checkpoint are the
whole model, from a photo's bytes on. Files go into a folder that is removed at the end, or into that of --files, where
another run finds them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from focalnet_backbone.benchmark import describe_environment, format_environment
from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.create import create_backbone
from focalnet_backbone.export.formats import SUFFIXES
from focalnet_backbone.export.sources import from_backbone, open_exportable
from focalnet_backbone.export.speed import COMPILED, INT8, format_formats, measure_formats
from focalnet_backbone.network.variants import find_variant
from focalnet_backbone.system.command_line import fail, parse, positive
from focalnet_backbone.system.outputs import claim, result_file

TOOL = "focalnet benchmark export"


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=TOOL, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE", help="a variant, or a config")
    parser.add_argument("weights", nargs="?", metavar="WEIGHTS", help="checkpoint of a config's model")
    parser.add_argument("--size", type=positive, nargs="+", default=[224], metavar="PIXELS", help="(%(default)s)")
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=[COMPILED, *SUFFIXES, INT8],
        default=["onnx", "pt2"],
        metavar="NAME",
        help=f"of {', '.join([COMPILED, *SUFFIXES, INT8])} (onnx pt2)",
    )
    parser.add_argument("--rounds", type=positive, default=20, help="calls of each at most (%(default)s)")
    parser.add_argument("--seconds", type=positive, default=30, help="a size's rounds end then (%(default)s)")
    parser.add_argument("--files", type=Path, metavar="DIR", help="keep the files, of one model, for another run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements")
    parser.add_argument("--force", action="store_true", help="replace a file that this tool did not write")
    args = parse(parser, arguments)
    try:
        claim([(args.json, "--json")] if args.json else [], force=args.force)
        if find_variant(args.source) is not None:
            torch.manual_seed(0)  # Files that are kept are of the same weights.
            network = create_backbone(args.source, weights=None, out_indices=[1, 2, 3, 4])
            exportable = from_backbone(network)
        else:
            exportable = open_exportable(args.source, args.weights)
        environment = describe_environment(torch.device("cpu"))
        print(format_environment(environment), flush=True)
        results = {}
        with tempfile.TemporaryDirectory() as folder:
            files = args.files or Path(folder)
            files.mkdir(parents=True, exist_ok=True)
            for size in args.size:
                results[size] = measure_formats(
                    exportable, (size, size), args.contenders, files, rounds=args.rounds, seconds=args.seconds
                )
                print(f"{size}x{size}\n{format_formats(results[size])}", flush=True)
                if args.json:
                    with result_file(args.json) as unfinished:
                        unfinished.write_text(json.dumps({"environment": environment, "sizes": results}))
    except (CheckpointError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        return fail(TOOL, error)
    return 0
