#!/usr/bin/env python3
"""Write a small dataset in COCO's and ADE20K's formats: drawn objects on photographs."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("sample"))
