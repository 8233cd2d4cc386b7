#!/usr/bin/env python3
"""Pretrain a FocalNet on a folder of photographs, without labels, by masked image modeling (SimMIM)."""

import sys

from focalnet_backbone.command import run

if __name__ == "__main__":
    sys.exit(run("pretrain"))
