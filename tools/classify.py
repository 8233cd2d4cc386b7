#!/usr/bin/env python3
"""Print the most probable classes of photographs."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("classify"))
