"""Check the datasets of a config before training: photos, labels, annotation files and classes against each other.

Prints a table of what is there, and one line for each kind of fault. What was found out about a file is remembered as
long as it stays the same. The exit status is 2 if a training would stop or go wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from focalnet_backbone import own_data
from focalnet_backbone.command.data import fail_data, tell_findings
from focalnet_backbone.configs import is_mmengine, open_config
from focalnet_backbone.data_check.findings import DataError
from focalnet_backbone.data_check.report import Report
from focalnet_backbone.system.command_line import fail, parse, program

TOOL = "check_data.py"

EXAMPLES = """examples:
  the config of a detector of detectron2, YAML or LazyConfig, on your own data:
    focalnet check-data mask_rcnn_focalnet_tiny_srf_1x.yaml \\
        --train-json train.json --train-images train/ --val-json val.json --val-images val/
  a config of mmsegmentation, mmdetection or mmpretrain:
    focalnet check-data my_config.py --cfg-options train_dataloader.dataset.data_root=data/mine
"""


def _check_openmmlab(args: argparse.Namespace) -> Report:
    from focalnet_backbone.command.openmmlab import add_config_options
    from focalnet_backbone.data_check.openmmlab import check_config
    from focalnet_backbone.openmmlab.runners import load_config

    parser = argparse.ArgumentParser(prog=TOOL)
    add_config_options(parser)
    options = parser.parse_args(["--cfg-options", *args.cfg_options]).options if args.cfg_options else None
    loaders = ("train_dataloader", "val_dataloader", "test_dataloader")
    cfg = load_config(args.config, options, own_data.read_arguments(args))
    if not any(map(cfg.get, loaders)):
        raise ValueError(f"{args.config} has no {', '.join(loaders)}")
    return check_config(cfg, loaders)


def _check_detectron2(args: argparse.Namespace) -> Report:
    from focalnet_backbone.command.train_net import use_datasets_of_arguments
    from focalnet_backbone.data_check.detectron2 import check_job
    from focalnet_backbone.detectron2.datasets import check_registered
    from focalnet_backbone.detectron2.jobs import load_job

    job = load_job(args.config, args.overrides)
    use_datasets_of_arguments(job, args)
    check_registered([*job.train_names, *job.test_names])
    return check_job(job)


@program(TOOL, resumed_by="what was found out is remembered")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a file, or a name of `focalnet list configs`")
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="for detectron2: values that replace the config's"
    )
    options = parser.add_argument_group("for OpenMMLab")
    options.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", help="values that replace the config's")
    own_data.add_arguments(parser)
    args = parse(parser, arguments)
    try:
        args.config = open_config(args.config)
        report = _check_openmmlab(args) if is_mmengine(args.config) else _check_detectron2(args)
        if report.splits:
            print(report.table())
        tell_findings(TOOL, report.findings)
    except DataError as error:
        return fail_data(TOOL, error)
    except (ImportError, KeyError, OSError, TypeError, ValueError) as error:
        return fail(TOOL, error)
    return 0
