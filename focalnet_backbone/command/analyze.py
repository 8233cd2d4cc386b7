"""Print parameters and multiply-accumulates (MACs, counted by fvcore) of FocalNets.

    focalnet analyze                                      all variants beside the published numbers
    focalnet analyze focalnet_tiny_lrf                    a table a stage
    focalnet analyze focalnet_tiny_lrf --size 800 1280 --set "focal_windows=[9,9,9,9]"
    focalnet analyze path/to/config.json                  a model saved by transformers or by this package
    focalnet analyze dino_focalnet_sample.py --memory     what training a config of OpenMMLab takes of a GPU
    focalnet analyze dino_focalnet_sample.py --memory --size 800 1333 --batch-size 1 --set model.backbone.with_cp=True

Counted is the classification model, head included, as the published columns do. The head of the models trained on
22k classes is left out, as it is there.
"""

from __future__ import annotations

import argparse
import ast
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from focalnet_backbone.analysis import analyze
from focalnet_backbone.configs import open_config, require_mmengine
from focalnet_backbone.models import FocalNetForImageClassification
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.network.variants import VARIANTS, list_variants
from focalnet_backbone.system.command_line import fail, parse, positive, program


def parse_override(text: str) -> tuple[str, Any]:
    """Name and value of `name=value`, the value as Python reads it, or as text if it does not; None without `=`."""
    name, found, value = text.partition("=")
    try:
        return name, ast.literal_eval(value) if found else None
    except (SyntaxError, ValueError):
        return name, value


def read_config(model: str, overrides: dict[str, Any]) -> FocalNetConfig:
    """The config of a variant or of a `config.json`, changed; the models of ImageNet-22k without their head."""
    if Path(model).exists():
        return FocalNetConfig.from_pretrained(model, **overrides)
    config = FocalNetConfig.from_variant(model, **overrides)
    return config.replace(num_labels=0) if config.num_labels == 21842 else config


def build_empty(config: FocalNetConfig) -> FocalNetForImageClassification:
    """The model without memory for its weights."""
    with torch.device("meta"):
        return FocalNetForImageClassification(config)


def print_overview(names: list[str], size: tuple[int, int], overrides: dict[str, Any]) -> None:
    """Print a line a model: parameters and MACs at a size (height, width), beside what was published."""
    title = f"MACs (G) at {size[0]}x{size[1]}"
    print(f"{'variant':<20}{'parameters':>13}{'published (M)':>15}{title:>23}{'published at 224x224':>22}")
    for name in names:
        analysis = analyze(build_empty(read_config(name, overrides)), size)
        published = VARIANTS[name].published_macs or "-"
        row = f"{name:<20}{analysis.parameters:>13,}{VARIANTS[name].published_params:>15}"
        print(f"{row}{analysis.macs / 1e9:>23.2f}{published:>22}", flush=True)


def print_memory(
    configs: list[str], size: tuple[int, int] | None, batch_size: int | None, overrides: dict[str, Any]
) -> None:
    """Print what training each config takes. Raises `ValueError` if there is none, or it is not one of mmengine."""
    if not configs:
        raise ValueError("--memory is for configs of mmsegmentation and mmdetection; name one")
    # mmengine is imported only for configs.
    estimate = import_module("focalnet_backbone.benchmark.training_memory").estimate
    for name in configs:
        path = open_config(name)
        require_mmengine(path, "--memory takes those of mmsegmentation and mmdetection")
        print(f"{name}\n{estimate(path, size=size, batch_size=batch_size, options=overrides)}\n", flush=True)


@program("analyze_model.py")
def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="variants or config.json files; all variants if none"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="side, or height and width (224; with --memory, the config's)",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", help="change a knob of the config")
    parser.add_argument("--memory", action="store_true", help="of configs: parameters, optimizer and activations in GB")
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="with --memory, images on a GPU (the config's)"
    )
    args = parse(parser)
    try:
        if args.size and (len(args.size) > 2 or min(args.size) < 1):
            raise ValueError(f"--size must be one or two numbers of at least 1, got {args.size}")
        given = (args.size[0], args.size[-1]) if args.size else None
        size = given or (224, 224)
        overrides = dict(map(parse_override, args.set))
        if args.memory:
            print_memory(args.models, given, args.batch_size, overrides)
            return 0
        if args.batch_size:
            raise ValueError("--batch-size goes with --memory")
        if not args.models:
            print_overview(list_variants(), size, overrides)
        for model in args.models:
            print(f"{model}\n{analyze(build_empty(read_config(model, overrides)), size)}\n")
    except (ImportError, OSError, KeyError, TypeError, ValueError) as error:
        return fail("analyze_model.py", error)
    return 0
