"""Compare the speed and memory of FocalNets: this package's, timm's (channels-last) and transformers', same weights.

    focalnet benchmark focalnet_tiny_lrf --set "focal_windows=[9,9,9,9]"
    focalnet benchmark focalnet_tiny_lrf focalnet_base_lrf --size 512 800x1280 --batch-size 1 2 \\
        --measure forward training memory --json speed.json --plot speed.png
    focalnet benchmark focalnet_tiny_lrf --scaling 256 512 1024 2048
    focalnet benchmark focalnet_tiny_lrf --against speed.json
    focalnet benchmark extract --help
    focalnet benchmark export --help

The implementations take turns within one process. Of the times, the median is printed, and the ratio to ours with its
quartiles over the rounds. The floor is the time of the convolutions and matrix products alone, each by its fastest
kernel. "Kept" are the bytes that autograd holds from the forward to the backward pass. Each run's measurements are kept
as JSON, case by case, in a file that it names.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from matplotlib.backend_bases import FigureCanvasBase

from focalnet_backbone.benchmark import (
    Case,
    describe_environment,
    format_case,
    format_environment,
    format_scaling,
    format_table,
    measure_case,
    measure_scaling,
    plot,
)
from focalnet_backbone.benchmark.against import CASE, check_comparable, format_changes
from focalnet_backbone.benchmark.cases import GPU_MEASURES, MEASURES
from focalnet_backbone.benchmark.contenders import missing_peers
from focalnet_backbone.command import _benchmark_export, _benchmark_extract
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.system.command_line import fail, parse, positive, program
from focalnet_backbone.system.devices import choose_device
from focalnet_backbone.system.facts import cache_folder
from focalnet_backbone.system.files import whole_file
from focalnet_backbone.system.inputs import read_json
from focalnet_backbone.system.outputs import claim, result_file


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of "512" or "800x1280"."""
    try:
        height, width = map(int, text.split("x")) if "x" in text else (int(text),) * 2
    except ValueError:
        raise argparse.ArgumentTypeError(f"a size is like 512 or 800x1280, not {text!r}") from None
    if min(height, width) < 1:
        raise argparse.ArgumentTypeError(f"a size is at least 1 pixel, not {text}")
    return height, width


def parse_override(text: str) -> tuple[str, Any]:
    """Name and value of KNOB=VALUE."""
    name, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"expected KNOB=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", metavar="VARIANT")
    parser.add_argument("--size", type=parse_size, nargs="+", default=[(512, 512)], metavar="PIXELS")
    parser.add_argument("--batch-size", type=positive, nargs="+", default=[1], metavar="N")
    parser.add_argument(
        "--measure", nargs="*", choices=[*MEASURES, *GPU_MEASURES], default=["forward", "training", "memory"]
    )
    parser.add_argument("--scaling", type=positive, nargs="+", metavar="SIDE", help="also, the forward pass by side")
    parser.add_argument("--set", type=parse_override, action="append", default=[], metavar="KNOB=VALUE")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="by autocast")
    parser.add_argument("--threads", type=positive, help="CPU threads; all cores by default")
    parser.add_argument("--rounds", type=positive, default=10, help="at most (default: 10)")
    parser.add_argument("--seconds", type=float, default=20.0, help="no new round after these (default: 20)")
    parser.add_argument("--read", type=Path, metavar="FILE", help="complete the measurements of an earlier --json")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="tell what became slower or faster since an earlier --json"
    )
    parser.add_argument("--table", action="store_true", help="print the measurements as a table in Markdown too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them")
    parser.add_argument("--force", action="store_true", help="replace files that this tool did not write")
    return parser


def make_cases(args: argparse.Namespace) -> list[Case]:
    """Every variant at every size and batch size."""
    device = choose_device(args.device)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu or cuda, got {args.device}")
    if device.type == "cpu" and (asked := set(args.measure) & set(GPU_MEASURES)):
        raise ValueError(f"--measure {' '.join(asked)} needs --device cuda")
    settings = {"device": device, "dtype": getattr(torch, args.dtype), "rounds": args.rounds, "seconds": args.seconds}
    configs = {name: FocalNetConfig.from_variant(name, **dict(args.set)) for name in args.variants}
    return [
        Case(variant, config, size, batch_size, **settings)
        for variant, config in configs.items()
        for size in args.size
        for batch_size in args.batch_size
    ]


def read_report(path: Path) -> dict[str, Any]:
    """What an earlier run wrote."""
    report = read_json(path, most=None)
    if not isinstance(report, dict) or not {"environment", "cases", "scaling"} <= set(report):
        raise ValueError(f"{path} is no report of this tool")
    return report


def claim_results(args: argparse.Namespace) -> None:
    """Check that the results can be written, before they are measured."""
    results = [path for path in (args.json, args.plot) if path]
    for path in results:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"no folder {path.parent}")
    if args.plot and args.plot.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(f"--plot {args.plot}: no picture can have the ending {args.plot.suffix!r}; take .png")
    # What is completed is read and written by one call.
    read = [path for path in (args.read, args.against) if path and path != args.json]
    claim([(path, f"--{name}") for name in ("json", "plot") if (path := getattr(args, name))], read, force=args.force)


def add_case(report: dict[str, Any], result: dict[str, Any]) -> None:
    """Add a case's measurements, to those of the same case if there are some."""
    for case in report["cases"]:
        if all(case[name] == result[name] for name in CASE):
            case.update(result)
            return
    report["cases"].append(result)


def read_earlier(args: argparse.Namespace, environment: dict[str, Any]) -> list[dict[str, Any]]:
    """The cases of `--against`.

    Raises `ValueError` if its times cannot be compared with those of this environment.
    """
    earlier = read_report(args.against)
    try:
        check_comparable(environment, earlier["environment"])
    except ValueError as error:
        raise ValueError(f"--against {args.against}: {error}") from None
    return earlier["cases"]


def measure(args: argparse.Namespace, cases: list[Case], report: dict[str, Any]) -> None:
    """Measure what was asked for, print it, and add it to the report, of which a copy is kept after each case."""
    kept = cache_folder() / "benchmarks" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.getpid()}.json"

    def keep() -> None:
        with contextlib.suppress(OSError), whole_file(kept) as unfinished:
            unfinished.write_text(json.dumps(report, indent=1), encoding="utf-8")

    for case in cases if args.measure else []:
        result = measure_case(case, args.measure)
        print(format_case(result), flush=True)
        add_case(report, result)
        keep()
    if cases and args.scaling:
        report["scaling"] = measure_scaling(cases[0], args.scaling)
        print(format_scaling(report["scaling"]))
        keep()
    if kept.exists():
        print(f"kept as {kept}")


@program("benchmark.py")
def main() -> int:
    """Run the command line; returns its exit status."""
    if sys.argv[1:2] == ["extract"]:
        return _benchmark_extract.main(sys.argv[2:])
    if sys.argv[1:2] == ["export"]:
        return _benchmark_export.main(sys.argv[2:])
    args = parse(make_parser())
    try:
        if not args.variants and not args.read:
            raise ValueError("a variant or --read is needed")
        cases = make_cases(args)
        report: dict[str, Any] = {"cases": [], "scaling": None}
        if args.read:
            report = read_report(args.read)
        if args.threads:
            torch.set_num_threads(args.threads)
        if cases:
            report["environment"] = describe_environment(cases[0].device)
        earlier = read_earlier(args, report["environment"]) if args.against else None
        claim_results(args)
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        return fail("benchmark.py", error)
    for name in missing_peers():
        print(f"{name} is not installed, and left out")
    print(format_environment(report["environment"]), flush=True)
    measure(args, cases, report)
    if not cases:
        print("\n".join(map(format_case, report["cases"])))
    if args.table:
        print(format_table(report["cases"]))
    if earlier is not None:
        print(f"against {args.against}: {format_changes(report['cases'], earlier)}")
    if args.json:
        with result_file(args.json) as unfinished:
            unfinished.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if args.plot:
        with result_file(args.plot) as unfinished:
            plot(report["cases"], report["scaling"]).savefig(unfinished, dpi=150)
    return 0
