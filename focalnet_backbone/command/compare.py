"""Compare FocalNets with other networks, or whole detectors and segmenters: what they cost, in one table and plot.

    focalnet compare focalnet_tiny_srf focalnet_tiny_lrf swin_tiny convnext_tiny resnet_50 --out comparison
    focalnet compare mask_rcnn_focalnet_tiny_lrf_1x mask_rcnn_swin_tiny_1x mask_rcnn_resnet_50_1x --out detectors
    focalnet compare upernet_focalnet_tiny_lrf_160k_ade20k_512x512 my_config.py --size 512 --out segmenters

    focalnet compare mask_rcnn_focalnet_tiny_lrf_1x mask_rcnn_focalnet_tiny_lrf_1x@timm --measure forward --out peers

Written are comparison.md, comparison.json and comparison.png. Networks are those of `focalnet receptive-field`; configs
are mmdetection's and mmsegmentation's, by their names here or their paths. All have random weights. Parameters and
multiply-accumulates stand beside the published ones, in brackets. For the times, all take turns within this process;
given are the median and the quartiles. Mask R-CNN's heads get 1000 boxes and 100 masks, as in published counts.

Of whole models on a CPU, a second table has the times of backbone, neck and heads. CONFIG@timm and CONFIG@transformers
are a config's model around their FocalNet.

What is measured is kept in the JSON: the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from focalnet_backbone.benchmark import describe_environment, format_environment
from focalnet_backbone.benchmark.compare import MEASURES, SIZES, Settings, Subject, find_subject, measure
from focalnet_backbone.benchmark.compare_report import format_comparison, format_parts, plot_comparison
from focalnet_backbone.command.benchmark import parse_size
from focalnet_backbone.system.command_line import fail, parse, positive, printable, program
from focalnet_backbone.system.devices import choose_device
from focalnet_backbone.system.inputs import read_json
from focalnet_backbone.system.outputs import claim, result_file


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "subjects", nargs="+", metavar="NETWORK_OR_CONFIG", help="all networks, or all of one framework"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="NAME", help="of the files, without their endings")
    sizes = ", ".join(f"{kind} {height}x{width}" for kind, (height, width) in SIZES.items())
    parser.add_argument("--size", type=parse_size, metavar="PIXELS", help=f"512 or 800x1280 (the papers': {sizes})")
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N", help="images at once (%(default)s)")
    parser.add_argument("--measure", nargs="+", choices=MEASURES, default=MEASURES, help="what (all)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; the GPU if there is one")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads; all cores by default")
    parser.add_argument("--rounds", type=positive, default=10, metavar="N", help="at most (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="no new round after these (%(default)s)")
    parser.add_argument("--force", action="store_true", help="begin anew, and replace files that this did not write")
    return parser


def find_subjects(names: list[str]) -> list[Subject]:
    """What the names mean. Raises `ValueError` if not all are of one kind, and what `find_subject` raises."""
    subjects = [find_subject(name) for name in dict.fromkeys(names)]
    kinds = {subject.kind: subject.name for subject in subjects}
    if len(kinds) > 1:
        found = ", ".join(f"{name} ({kind})" for kind, name in kinds.items())
        raise ValueError(f"what is compared must be of one kind, got {found}")
    return subjects


def read_earlier(path: Path, report: dict[str, Any], *, force: bool) -> dict[str, Any]:
    """The report with what an earlier run of the same settings measured.

    Raises `ValueError` if the file holds something else and is not to be replaced.
    """
    if force or not path.exists():
        return report
    try:
        earlier = read_json(path, most=None)
        same = all(earlier[key] == report[key] for key in ("settings", "environment"))
        results = earlier["results"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is no comparison; --force replaces it") from None
    if not same:
        raise ValueError(f"{path} was measured with other settings or elsewhere; --force begins anew")
    return {**report, "results": results}


@program("compare.py", resumed_by="the same command goes on")
def main() -> int:
    """Run the command line; returns its exit status."""
    args = parse(make_parser())
    # Not by `with_suffix`: a name may have a dot.
    outputs = {ending: args.out.with_name(f"{args.out.name}.{ending}") for ending in ("json", "md", "png")}
    try:
        subjects = find_subjects(args.subjects)
        device = choose_device(args.device)
        claim([(path, "the comparison") for path in outputs.values()], force=args.force)
        if args.threads:
            torch.set_num_threads(args.threads)
        size = args.size or SIZES[subjects[0].kind]
        settings = Settings(size, args.batch_size, device, args.rounds, args.seconds)
        report = {
            "settings": {"size": list(size), "batch_size": args.batch_size, "device": str(device)},
            "environment": describe_environment(device),
            "results": {},
        }
        report = read_earlier(outputs["json"], report, force=args.force)
    except (KeyError, OSError, TypeError, ValueError) as error:
        return fail("compare.py", error)
    title = f"{args.batch_size} x {size[0]}x{size[1]}, {format_environment(report['environment'])}"
    print(title, flush=True)

    def keep() -> None:
        with result_file(outputs["json"]) as unfinished:
            unfinished.write_text(json.dumps(report, indent=1), encoding="utf-8")

    try:
        measure(subjects, settings, report["results"], keep, args.measure)
    except (AttributeError, TypeError, ValueError) as error:
        return fail("compare.py", error)
    names = [subject.name for subject in subjects]
    tables = format_comparison(names, report["results"]), format_parts(names, report["results"])
    table = "\n\n".join(filter(None, tables))
    print(table)
    with result_file(outputs["md"]) as unfinished:
        unfinished.write_text(f"{title}\n\n{table}\n", encoding="utf-8")
    with result_file(outputs["png"]) as unfinished:
        plot_comparison(names, report["results"]).savefig(unfinished, dpi=120)
    print(f"written to {', '.join(printable(path) for path in outputs.values())}")
    return 0
