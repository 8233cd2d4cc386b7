#!/usr/bin/env python3
"""Train the model of a config of mmsegmentation or mmdetection, FocalNet included."""

import sys

from focalnet_backbone.command.train import main

if __name__ == "__main__":
    sys.exit(main())
