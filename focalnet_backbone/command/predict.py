"""Run a trained detector or segmenter on images: pictures of what it finds, and its results as a file.

The config decides the framework: YAML or a LazyConfig is detectron2's, a config of mmengine is mmdetection's or
mmsegmentation's.
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.system.command_line import fail


def is_mmengine(config: Path) -> bool:
    """Whether a config is one of mmengine's: Python that names a base or a default scope, or reads its base."""
    if config.suffix != ".py":
        return False
    text = config.read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(text, str(config))))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return bool(names & {"_base_", "default_scope", "read_base"})


def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, metavar="CONFIG", help="config of the model")
    parser.add_argument("weights", metavar="WEIGHTS", help="checkpoint of the whole model")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    parser.add_argument("--device", help="cuda or cpu (default: a GPU if there is one)")
    args = parser.parse_args()
    try:
        if not args.config.is_file():
            raise FileNotFoundError(f"no config at {args.config}")
        if is_mmengine(args.config):
            from focalnet_backbone.openmmlab.predict import predict
        else:
            from focalnet_backbone.detectron2.predict import predict
        written = predict(args.config, args.weights, args.images, args.out, device=args.device)
    except (CheckpointError, ImportError, KeyError, OSError, SyntaxError, TypeError, ValueError) as error:
        return fail("predict.py", error)
    print(f"wrote {', '.join(map(str, written))}")
    return 0
