"""Race FocalNet against Swin, ConvNeXt and ResNet of equal size, from random weights, in one detector or segmenter.

    focalnet sample data/sample
    focalnet race upernet_focalnet_sample.py --iterations 400 --out race
    focalnet race mask_rcnn_focalnet_sample.py --iterations 400 --out race
    focalnet race upernet_focalnet_sample.py --name camvid --size 160x120 --classes classes.txt --out race \\
        --train-images images/train --train-labels annotations/train \\
        --val-images images/val --val-labels annotations/val

The config, one of mmsegmentation or mmdetection, gives everything but the backbone: data, heads, optimizer, schedule.
Each backbone (1.3 M parameters) trains with each seed. Every result is kept in OUT/NAME: what is there is not run
again, and a training that was interrupted goes on. All races in OUT are written to OUT/race.md, .json and .png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from focalnet_backbone import own_data
from focalnet_backbone.benchmark import describe_environment, format_environment
from focalnet_backbone.benchmark.race import ENTRANTS, Race, read_result, run
from focalnet_backbone.benchmark.race_report import format_race, group, plot_races
from focalnet_backbone.command.data import fail_data, tell_findings
from focalnet_backbone.command.openmmlab import CONFIG_ERRORS, add_config_options
from focalnet_backbone.configs import open_config, require_mmengine
from focalnet_backbone.data_check.findings import DataError
from focalnet_backbone.data_check.openmmlab import check_config
from focalnet_backbone.system.command_line import fail, parse, positive, printable, program
from focalnet_backbone.system.devices import choose_device
from focalnet_backbone.system.inputs import read_json
from focalnet_backbone.system.outputs import claim, is_own, result_file

TOOL = "focalnet race"


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config of mmsegmentation or mmdetection, a file or its name here")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of results")
    parser.add_argument("--name", help="of the race (that of the config)")
    parser.add_argument("--backbones", nargs="+", choices=ENTRANTS, default=list(ENTRANTS), help="(all)")
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help="trainings of each (%(default)s)")
    parser.add_argument("--iterations", type=positive, metavar="N", help="of each training (the config's)")
    parser.add_argument("--force", action="store_true", help="replace race.md, race.json and race.png of others")
    add_config_options(parser)
    own_data.add_arguments(parser)
    return parser


@program(TOOL, resumed_by="the same command goes on")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    args = parse(make_parser(), arguments)
    try:
        config = open_config(args.config)
        require_mmengine(config, "races are run in mmsegmentation and mmdetection")
        name, data = args.name or config.stem, own_data.read_arguments(args)
        race = Race(name, config, args.out, data, args.iterations, args.options or {})
        if Path(race.name).name != race.name or race.name.startswith("."):
            raise ValueError(f"--name names a folder in {args.out}, got {race.name!r}")
        summaries = {ending: args.out / f"race.{ending}" for ending in ("md", "json", "png")}
        claim([(path, "the races") for path in summaries.values()], force=args.force)
        # The seed in the outer loop: an interrupted race has as many results of one backbone as of another.
        todo = [(entrant, seed) for seed in range(args.seeds) for entrant in args.backbones]
        todo = [each for each in todo if read_result(race, *each) is None]
        for number, (entrant, seed) in enumerate(todo, start=1):
            print(f"{TOOL}: {race.name}: {entrant}, seed {seed} ({number} of {len(todo)} to do)", flush=True)
            # Once is enough, of data that stay.
            result = run(race, entrant, seed, check_data if number == 1 else None)
            metrics = ", ".join(f"{name} {value:.1f}" for name, value in result["metrics"].items())
            print(f"{TOOL}: {race.name}: {entrant}, seed {seed}: {metrics}", flush=True)
            write_summaries(args.out, summaries)
        write_summaries(args.out, summaries)
    except DataError as error:
        return fail_data(TOOL, error)
    except CONFIG_ERRORS as error:
        return fail(TOOL, error)
    print(summaries["md"].read_text(encoding="utf-8").rpartition("\n<!--")[0])
    print(f"written to {', '.join(printable(path) for path in summaries.values())}")
    return 0


def check_data(config: Config, loaders: tuple[str, ...]) -> None:
    """Tell what is odd about the data of a config. Raises `DataError` if something is wrong."""
    tell_findings(TOOL, check_config(config, loaders).findings)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All results of races in a folder, the backbones of each in our order."""
    order = list(ENTRANTS)
    found = [read_json(path, most=None) for path in sorted(folder.glob("*/*-*.json")) if is_own(path)]
    found = [result for result in found if isinstance(result, dict) and result.get("entrant") in order]
    return sorted(found, key=lambda result: (result["race"], order.index(result["entrant"]), result["seed"]))


def write_summaries(folder: Path, summaries: dict[str, Path]) -> None:
    """Write all races of a folder as Markdown, JSON and a picture."""
    results = read_results(folder)
    for result in results:  # Where the data lie is of no use to who reads it, and may not be theirs to know.
        result["settings"].pop("data")
    races = group(results)
    environment = describe_environment(choose_device(None))
    tables = "\n\n".join(format_race(name, entrants) for name, entrants in races.items())
    with result_file(summaries["md"]) as unfinished:
        unfinished.write_text(f"{format_environment(environment)}\n\n{tables}\n", encoding="utf-8")
    with result_file(summaries["json"]) as unfinished:
        unfinished.write_text(json.dumps({"environment": environment, "results": results}, indent=1), encoding="utf-8")
    with result_file(summaries["png"]) as unfinished:
        plot_races(races).savefig(unfinished, dpi=120)
