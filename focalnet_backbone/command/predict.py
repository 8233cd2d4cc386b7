"""Run a trained detector or segmenter on images: pictures of what it finds, and its results as a file.

The config decides the framework: YAML or a LazyConfig is detectron2's, a config of mmengine is mmdetection's or
mmsegmentation's.

    focalnet predict upernet_focalnet_sample.py outputs/upernet/iter_1200.pth photo.jpg --out predictions
"""

from __future__ import annotations

import argparse
from pathlib import Path

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.configs import is_mmengine, open_config
from focalnet_backbone.system.command_line import fail, printable


def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="config of the model: a file, or a name of `focalnet list configs`"
    )
    parser.add_argument("weights", metavar="WEIGHTS", help="checkpoint of the whole model")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    parser.add_argument("--device", help="cuda or cpu (default: a GPU if there is one)")
    args = parser.parse_args()
    try:
        config = open_config(args.config)
        if is_mmengine(config):
            from focalnet_backbone.openmmlab.predict import predict
        else:
            from focalnet_backbone.detectron2.predict import predict
        written = predict(config, args.weights, args.images, args.out, device=args.device)
    except (CheckpointError, ImportError, KeyError, OSError, SyntaxError, TypeError, ValueError) as error:
        return fail("predict.py", error)
    print(f"wrote {', '.join(map(printable, written))}")
    return 0
