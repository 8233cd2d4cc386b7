#!/usr/bin/env python3
"""Check the datasets of a config of detectron2 or OpenMMLab before training; `--help` tells how."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("check_data"))
