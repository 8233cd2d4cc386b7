#!/usr/bin/env python3
"""Convert FocalNet weights between the formats of the release, transformers, timm, detectron2 and mmengine."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("convert"))
