#!/usr/bin/env python3
"""Pretrain a FocalNet on a folder of photographs, without labels, by masked image modeling (SimMIM)."""

import sys

from focalnet_backbone.command.pretrain import main

if __name__ == "__main__":
    sys.exit(main())
