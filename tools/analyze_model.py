#!/usr/bin/env python3
"""Print parameters and multiply-accumulates (MACs, counted by fvcore) of FocalNets."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("analyze"))
