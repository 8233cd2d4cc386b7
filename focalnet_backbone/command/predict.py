"""Run a trained detector or segmenter on photos, and write what it finds: the same files for every framework.

    focalnet predict upernet_focalnet_sample.py outputs/upernet/iter_1200.pth photo.jpg photos/ --out predictions
    focalnet predict upernet.onnx photo.jpg photos/ --out predictions

A detector's objects go into predictions.json (COCO's results format: boxes, masks, scores, the dataset's category ids),
a segmenter's class of each pixel into NAME.png, and a picture of either into NAME_overlay.png. The config decides the
framework: YAML or a LazyConfig is detectron2's, a config of mmengine is mmdetection's or mmsegmentation's. An ONNX file
of `focalnet export` is run by onnxruntime.
The exit status is 0 if every photo was read, 1 if some were not (each is named), 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.configs import is_mmengine, open_config
from focalnet_backbone.features.predictions import PredictionPlan, Predictor, predict_to_files
from focalnet_backbone.system.command_line import fail, parse, program

TOOL = "predict.py"


def open_predictor(config: Path, weights: str | None, device: str | None = None) -> Predictor:
    """The model of a config of any framework, or of an ONNX file. Raises what the predictor raises."""
    if weights is None:
        from focalnet_backbone.export.run import OnnxPredictor

        return OnnxPredictor(config)
    config = open_config(config)
    if is_mmengine(config):
        from focalnet_backbone.openmmlab.predict import OpenMMLabPredictor

        return OpenMMLabPredictor(config, weights, device=device)
    from focalnet_backbone.detectron2.predict import Detectron2Predictor

    return Detectron2Predictor(config, weights, device=device)


def make_parser() -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "config",
        type=Path,
        metavar="CONFIG",
        help="config of the model: a file, or a name of `focalnet list configs`; or an ONNX file",
    )
    parser.add_argument("weights", nargs="?", metavar="WEIGHTS", help="checkpoint of the whole model; none for ONNX")
    parser.add_argument("images", nargs="+", metavar="INPUT", help="image files, folders or globs")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    parser.add_argument(
        "--score-threshold",
        type=_score,
        metavar="SCORE",
        help="lowest score, from 0 to 1, of what is written and drawn (all are written, those of 0.5 drawn)",
    )
    parser.add_argument("--no-overlay", dest="overlay", action="store_false", help="write no pictures of the results")
    parser.add_argument("--force", action="store_true", help="replace files that this package did not write")
    parser.add_argument("--device", help="cuda or cpu (default: a GPU if there is one)")
    return parser


@program(TOOL)
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = make_parser()
    args = parse(parser, arguments)
    if args.config.suffix == ".onnx":
        args.images, args.weights = [*filter(None, [args.weights]), *args.images], None
    elif args.weights is None:
        parser.error("the following arguments are required: WEIGHTS, INPUT")
    try:
        if args.weights is not None:
            args.config = open_config(args.config)
        plan = PredictionPlan.make(args.images, args.out, overlay=args.overlay)
        predictor = open_predictor(args.config, args.weights, args.device)
        summary = predict_to_files(
            predictor,
            plan,
            score_threshold=args.score_threshold,
            force=args.force,
            report=lambda line: tqdm.write(line, file=sys.stderr),
        )
    except (CheckpointError, ImportError, KeyError, OSError, TypeError, ValueError) as error:
        return fail(TOOL, error)
    print(f"{summary}, written to {args.out}")
    for reason in summary.failed:
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if summary.failed else 0


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return score
