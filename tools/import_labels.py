#!/usr/bin/env python3
"""Convert the labels of labelling programs; `--help` tells how."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("import_labels"))
