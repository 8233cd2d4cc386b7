#!/usr/bin/env python3
"""Compare the speed and memory of FocalNets: this package's, timm's (channels-last) and transformers', same weights."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("benchmark"))
