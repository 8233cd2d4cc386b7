#!/usr/bin/env python3
"""Test a checkpoint of the model of a config of mmsegmentation or mmdetection."""

import sys

from focalnet_backbone.openmmlab.launch import command_test

if __name__ == "__main__":
    sys.exit(command_test())
