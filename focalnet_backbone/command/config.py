"""Write one whole config, without bases, that any tool of its framework takes.

    focalnet config upernet_focalnet_tiny_lrf_160k_ade20k_512x512 > mine.py
    focalnet config mmdet/mask_rcnn_focalnet_tiny_lrf_1x train_dataloader.batch_size=4 --out mine.py
    focalnet config detectron2/mask_rcnn_focalnet_tiny_srf_1x.yaml SOLVER.IMS_PER_BATCH=8 > mine.yaml
    focalnet config upernet_focalnet_sample --train-images photos/ --train-labels labels/ --val-images more/ \\
        --val-labels their_labels/ --classes names.txt --out mine.py

For mmengine it imports this package's plugin by itself, so that mmsegmentation's and mmdetection's own tools/train.py
run it as it is. For detectron2, who reads it calls add_focalnet_config before; a LazyConfig is written as YAML.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from importlib import import_module
from pathlib import Path

from focalnet_backbone import own_data
from focalnet_backbone.configs import is_mmengine, open_config
from focalnet_backbone.system.command_line import fail, program
from focalnet_backbone.system.outputs import claim, result_file


@program("focalnet config")
def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", metavar="CONFIG", help="a file, or the name of a config (`focalnet list configs`)")
    parser.add_argument("values", nargs="*", metavar="KEY=VALUE", help="values that replace the config's")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it; the standard output if not given")
    parser.add_argument("--force", action="store_true", help="replace FILE even if it is none that this wrote")
    own_data.add_arguments(parser)
    args = parser.parse_args()
    try:
        config = open_config(args.config)
        if args.out:
            claim([(args.out, "the config")], [config], force=args.force)
        wrong = [value for value in args.values if "=" not in value]
        if wrong:
            raise ValueError(f"expected KEY=VALUE, got {wrong[0]}")
        data = own_data.read_arguments(args)
        host = "openmmlab" if is_mmengine(config) else "detectron2"
        # The standard output is the config's alone, and mmengine logs there.
        with contextlib.redirect_stdout(sys.stderr):
            text = import_module(f"focalnet_backbone.{host}.flat").flatten(config, args.values, data)
        if args.out:
            with result_file(args.out) as unfinished:
                unfinished.write_text(text, encoding="utf-8")
        else:
            print(text, end="")
    except (KeyError, OSError, TypeError, ValueError) as error:
        return fail("focalnet config", error)
    return 0
