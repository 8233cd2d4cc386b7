#!/usr/bin/env python3
"""Write the feature pyramid of every image as a safetensors file, mirroring the folders that they lie in."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("extract"))
