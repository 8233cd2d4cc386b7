#!/usr/bin/env python3
"""Test a checkpoint of the model of a config of mmsegmentation or mmdetection."""

import sys

from focalnet_backbone.openmmlab.launch import test

if __name__ == "__main__":
    sys.exit(test())
