#!/usr/bin/env python3
"""Draw the feature pyramids of two photographs that scikit-image brings along."""

from __future__ import annotations

import argparse
from pathlib import Path

import skimage.data
import torch

from focalnet_backbone.extraction import save_plot
from focalnet_backbone.features import FeatureExtractor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"), help="folder for the PNGs (%(default)s)")
    parser.add_argument("--variant", default="focalnet_tiny_lrf", help="which model (%(default)s)")
    parser.add_argument("--weights", help="'pretrained' or a file; random weights without it")
    args = parser.parse_args()

    torch.manual_seed(0)
    extractor = FeatureExtractor(args.variant, weights=args.weights)
    weights = f"weights {args.weights}" if args.weights else "random weights: shapes and edges, not learned features"
    print(f"Feature pyramids by {args.variant} ({weights})")
    for name in ("chelsea", "astronaut"):
        pyramid = extractor(getattr(skimage.data, name)())
        path = args.out / f"pyramid_{name}.png"
        save_plot(pyramid, path)
        print(f"  {path}: {pyramid}")


if __name__ == "__main__":
    main()
