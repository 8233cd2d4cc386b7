#!/usr/bin/env python
"""Train or evaluate a FocalNet detector with detectron2; `--help` tells how."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("train_net", "run_command"))
