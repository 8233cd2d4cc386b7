#!/usr/bin/env python3
"""Train the model of a config of mmsegmentation, mmdetection or mmpretrain, FocalNet included."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("train"))
