#!/usr/bin/env python3
"""Test a checkpoint of the model of a config of mmsegmentation or mmdetection."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("test"))
