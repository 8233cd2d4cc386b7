"""List the published models and the configs that this package carries.

focalnet list
focalnet list variants
focalnet list configs mmdet
focalnet list --weights            published detectors and networks, and where their weights are
"""

from __future__ import annotations

import argparse

from focalnet_backbone.checkpoints.published import DETECTORS
from focalnet_backbone.configs import FOLDER, describe_config, list_configs
from focalnet_backbone.network.variants import VARIANTS
from focalnet_backbone.system.command_line import program


@program("focalnet list")
def main() -> int:
    """Run the command line; returns its exit status."""
    hosts = sorted({name.partition("/")[0] for name in list_configs()})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["variants", "configs"], help="only these")
    parser.add_argument("host", nargs="?", choices=hosts, help="only the configs of this framework")
    parser.add_argument("--weights", action="store_true", help="published weights: size, accuracy, config, address")
    args = parser.parse_args()
    if args.weights:
        print_weights()
        return 0
    if args.what != "configs":
        print_table({name: _describe_variant(name) for name in VARIANTS})
    if args.what is None:
        print()
    if args.what != "variants":
        print_table({name: describe_config(FOLDER / name) for name in list_configs(args.host or "*")})
    return 0


def print_table(rows: dict[str, str]) -> None:
    """Print names, and beside each what is said of it."""
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"{name:<{width}}  {text}".rstrip())


def print_weights() -> None:
    """Print every published detector, then the networks, each with its addresses."""
    for detector in DETECTORS.values():
        # Of float32 numbers, 4 bytes each.
        size = f"{detector.gigabytes} GB" if detector.gigabytes else f"at least {detector.parameters * 4e-3:.2f} GB"
        score = f"box AP {detector.box_ap}" if detector.box_ap else "no AP on COCO"
        print(f"{detector.name}: {score}, {detector.parameters} M parameters, {size}, {detector.trained_on}")
        print(f"    config mmdet/{detector.config}.py")
        print(f"    {detector.address}")
    for name, variant in VARIANTS.items():
        print(f"{name}: {_describe_variant(name)}")
        for kind, address in variant.weights.items():
            print(f"    {kind}: {address}")


def _describe_variant(name: str) -> str:
    variant = VARIANTS[name]
    top1 = f", top-1 {variant.published_top1}" if variant.published_top1 else ""
    weights = "" if variant.weights else ", no published weights"
    return f"{variant.published_params} M parameters, {variant.pretrained_on}{top1}{weights}"
