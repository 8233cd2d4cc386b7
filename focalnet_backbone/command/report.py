"""Write a page of a training: curves, config, results by class, the images that it does best and worst on.

    focalnet report work_dirs/upernet_focalnet_sample --out upernet.html
    focalnet report outputs/mask_rcnn --annotations val.json --images val/ --predictions found/predictions.json
    focalnet report work_dirs/a work_dirs/b work_dirs/c --out compared.html

A training may have ended, be running, or have been interrupted; several stand in one plot, with the table of how their
configs and their results differ. Predictions are what `focalnet predict` writes: a JSON file of a detector, or the
folder of a segmenter's label images, whose true labels --annotations then names.
The page needs no network. The exit status is 0 if it was written, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.configs import find_config
from focalnet_backbone.features.images import find_images, load_image
from focalnet_backbone.report.detection import Detection, compare_detections
from focalnet_backbone.report.runs import Run, flatten, read_run
from focalnet_backbone.report.segmentation import Segmentation, compare_labels
from focalnet_backbone.report.training import write_report
from focalnet_backbone.system.command_line import fail, parse, program
from focalnet_backbone.system.outputs import claim

TOOL = "focalnet report"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folder of a training")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="the page (report.html in the first RUN)")
    parser.add_argument("--data", action="store_true", help="add a table of what the training's data hold")
    found = parser.add_argument_group("what the model finds")
    found.add_argument("--predictions", type=Path, metavar="PATH", help="predictions.json, or a folder of label PNGs")
    found.add_argument("--annotations", type=Path, metavar="PATH", help="COCO file, or the folder of the true labels")
    found.add_argument("--images", type=Path, metavar="DIR", help="folder of the photos, to show some")
    found.add_argument("--classes", type=Path, metavar="FILE", help="class names of labels, one a line (the config's)")
    found.add_argument("--ignore", type=int, default=255, metavar="N", help="true label to leave out (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a file that is not known as ours")
    return parser


@program(TOOL)
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    args = parse(make_parser(), arguments)
    out = args.out or args.runs[0] / "report.html"
    try:
        if (args.predictions is None) != (args.annotations is None):
            raise ValueError("--predictions and --annotations go together")
        runs = [read_run(folder) for folder in args.runs]
        name_apart(runs)
        claim([(out, "the page")], force=args.force)
        detection, segmentation = _compare(args, runs[0])
        write_report(
            runs,
            out,
            data=_describe_data(runs[0]) if args.data else None,
            base=_base_of(runs[0]) if len(runs) == 1 else None,
            detection=detection,
            segmentation=segmentation,
            open_image=_opener(args.images) if args.images else None,
        )
    except ImportError as error:
        return fail(TOOL, ImportError(f'{error}; pip install "focalnet-backbone[viz]" has what reports need'))
    except (CheckpointError, OSError, TypeError, ValueError) as error:
        return fail(TOOL, error)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB); open it in a browser")
    return 0


def name_apart(runs: Sequence[Run]) -> None:
    """Give runs whose folders have one name the names of as many folders above them as tell them apart."""
    depth = 1
    while len({run.name for run in runs}) < len({run.folder.resolve() for run in runs}):
        depth += 1
        for run in runs:
            run.name = "/".join(run.folder.resolve().parts[-depth:])


def _compare(args: argparse.Namespace, run: Run) -> tuple[Detection | None, Segmentation | None]:
    if args.predictions is None:
        return None, None
    if not args.predictions.is_dir():
        return compare_detections(args.annotations, args.predictions), None
    if not args.annotations.is_dir():
        raise ValueError(
            f"--predictions is a folder of label images; {args.annotations} must be the one of the true ones"
        )
    zero_is_ignored = bool(_find(run, "reduce_zero_label"))
    labels = compare_labels(
        args.annotations, args.predictions, _classes(args, run), ignore=args.ignore, zero_is_ignored=zero_is_ignored
    )
    return None, labels


def _classes(args: argparse.Namespace, run: Run) -> list[str]:
    if args.classes:
        return args.classes.read_text(encoding="utf-8").split("\n")[:-1]
    classes = _find(run, "metainfo.classes")
    if not classes:
        raise ValueError(f"the config in {run.folder} names no classes; give them by --classes")
    return list(classes)


def _find(run: Run, ending: str) -> Any:
    """A dataset's value in the config of a run, of the validation before that of the training."""
    for loader in ("val_dataloader", "test_dataloader", "train_dataloader"):
        for key, value in run.config.items():
            if key.startswith(f"{loader}.dataset") and key.endswith(f".{ending}"):
                return value
    return None


def _base_of(run: Run) -> tuple[str, dict[str, Any]] | None:
    """What the config of a run is compared with: detectron2's defaults, or this package's config of the same name."""
    if run.host == "detectron2":
        from detectron2.config import get_cfg

        from focalnet_backbone.detectron2 import add_focalnet_config

        cfg = get_cfg()
        add_focalnet_config(cfg)
        known = flatten(cfg)
        # As in the file, where what YAML has no type for is text.
        given = {key: _from_text(value) for key, value in run.config.items()}
        run.config = {key: value for key, value in given.items() if key in known} or given
        return "detectron2's defaults", known
    from mmengine.config import Config

    for file in run.folder.glob("*.py"):
        try:
            config = Config.fromfile(find_config(file.stem), import_custom_modules=False)
        except (FileNotFoundError, ValueError):
            continue
        return f"the package's {file.stem}", flatten(config.to_dict())
    return None


def _from_text(value: Any) -> Any:
    try:
        return ast.literal_eval(value) if isinstance(value, str) and value[:1] in "([" else value
    except (SyntaxError, ValueError):
        return value


def _describe_data(run: Run) -> str:
    if run.host == "detectron2":
        from focalnet_backbone.data_check.detectron2 import check_job
        from focalnet_backbone.detectron2.jobs import load_job

        return check_job(load_job(run.folder / "config.yaml")).table()
    from focalnet_backbone.data_check.openmmlab import check_config
    from focalnet_backbone.openmmlab.runners import load_config

    return check_config(load_config(next(run.folder.glob("*.py")))).table()


def _opener(folder: Path) -> Callable[[str], Image.Image]:
    by_name = {}
    for path in find_images(folder):
        by_name[path.name] = by_name[path.stem] = path

    def open_image(name: str) -> Image.Image:
        path = by_name.get(Path(name).name)
        if path is None:
            raise FileNotFoundError(f"no photo {name} in {folder}")
        return Image.fromarray(load_image(path).permute(1, 2, 0).numpy())

    return open_image
