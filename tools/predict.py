#!/usr/bin/env python3
"""Run a trained detector or segmenter on images: pictures of what it finds, and its results as a file."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("predict"))
