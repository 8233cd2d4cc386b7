#!/usr/bin/env python3
"""Draw what the network sees in photographs: the pictures of the paper (arXiv 2203.11926)."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("see"))
