"""Export a model to ONNX, pt2, AOTInductor or TorchScript, checked against the model before the file takes its name.

    focalnet export focalnet_tiny_lrf --to onnx --out classifier.onnx
    focalnet export focalnet_tiny_lrf --backbone --to onnx --out backbone.onnx
    focalnet export upernet_focalnet_sample.py outputs/upernet/iter_1200.pth --to onnx --out upernet.onnx
    focalnet predict upernet.onnx photo.jpg --out predictions

A model with a head takes photos, uint8 RGB (N, H, W, 3), of any size, resizes and normalises them itself; a backbone
takes normalised floats (N, 3, H, W). --photo and --tensor ask for the one or the other. Beside the file come its report
and, for ONNX, an example that needs onnxruntime, numpy and Pillow alone.
The exit status is 0 if the file was written, 2 if it cannot be or does not give what the model gives.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.export.formats import SUFFIXES
from focalnet_backbone.export.sources import open_exportable
from focalnet_backbone.export.to_file import export_to_file, outputs_of
from focalnet_backbone.system.command_line import fail, parse, program
from focalnet_backbone.system.outputs import check_writable

TOOL = "focalnet export"


def make_parser() -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog=TOOL, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="a config, a variant, a checkpoint of a backbone, or a classifier's folder"
    )
    parser.add_argument("weights", nargs="?", metavar="WEIGHTS", help="checkpoint of a config's model, or of a variant")
    parser.add_argument("--to", required=True, choices=SUFFIXES, help="format of the file")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--backbone", action="store_true", help="leave the head out: the outputs are stage1, stage2, ..."
    )
    parser.add_argument("--size", type=_size, metavar="HEIGHTxWIDTH", help="the only size that the file takes (any)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--photo", action="store_true", help="the file takes photos as uint8")
    kind.add_argument("--tensor", action="store_true", help="the file takes what the network takes")
    parser.add_argument("--force", action="store_true", help="replace files that this package did not write")
    return parser


@program(TOOL)
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = make_parser()
    args = parse(parser, arguments)
    if args.out.suffix != SUFFIXES[args.to]:
        parser.error(f"a file of {args.to} ends in {SUFFIXES[args.to]}, got {args.out}")
    photos = True if args.photo else False if args.tensor else None
    try:
        for output in outputs_of(args.out, args.to):
            check_writable(output)
        exportable = open_exportable(args.source, args.weights, backbone=args.backbone, photos=photos)
        done = export_to_file(exportable, args.to, args.out, size=args.size, force=args.force)
    except (CheckpointError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        return fail(TOOL, error)
    print(done)
    print(f"written to {', '.join(map(str, done.files))}")
    return 0


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    size = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if min(size) < 2:
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH of at least 2 pixels, such as 512x512, got {text!r}")
    return size
