#!/usr/bin/env python3
"""Print the most probable classes of photographs."""

import sys

from focalnet_backbone.command.classify import main

if __name__ == "__main__":
    sys.exit(main())
