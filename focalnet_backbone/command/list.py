"""List the published models and the configs that this package carries.

focalnet list
focalnet list variants
focalnet list configs mmdet
"""

from __future__ import annotations

import argparse

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
    args = parser.parse_args()
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


def _describe_variant(name: str) -> str:
    variant = VARIANTS[name]
    top1 = f", top-1 {variant.published_top1}" if variant.published_top1 else ""
    weights = "" if variant.weights else ", no published weights"
    return f"{variant.published_params} M parameters, {variant.pretrained_on}{top1}{weights}"
