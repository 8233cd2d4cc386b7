#!/usr/bin/env python
"""Train or evaluate a FocalNet detector with detectron2; `--help` tells how."""

from focalnet_backbone.command.train_net import run_command

if __name__ == "__main__":
    run_command()
