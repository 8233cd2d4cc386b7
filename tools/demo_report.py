#!/usr/bin/env python3
"""Write one page of what `tools/demo.sh` made: every picture and number, with the command behind it.

    python tools/demo_report.py outputs/demo

The page, `index.html` in that folder, holds its pictures, and leads to the report of each training beside it.
The exit status is 0 if it was written, 1 if something that it shows is missing.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import math
import os
import platform
import re
import shlex
import string
import sys
from importlib import metadata
from pathlib import Path

from focalnet_backbone.system.command_line import fail, parse, program
from focalnet_backbone.system.outputs import claim, result_file

PAGE = string.Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>focalnet-backbone: the demo</title>
<style>
:root { color-scheme: light dark; --ink: #1d2530; --paper: #fff; --soft: #f2f4f7; --line: #d8dde4; --accent: #b2182b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dfe5ec; --paper: #14181d; --soft: #1e242b; --line: #353d47; --accent: #f4a582; }
}
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 2rem; line-height: 1.2; }
h2 { margin: 3rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: 1.35rem; }
p { max-width: 46rem; }
.numbers { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; }
.numbers div { flex: 1 1 9rem; padding: .9rem 1.1rem; border-radius: .6rem; background: var(--soft); }
.numbers b { display: block; color: var(--accent); font-size: 1.9rem; line-height: 1.2; }
pre { overflow-x: auto; padding: .7rem .9rem; border-radius: .5rem; background: var(--soft);
  font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
pre small { opacity: .65; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0 0 .5rem; }
figcaption { font-size: .85rem; opacity: .75; }
img { max-width: 100%; height: auto; border-radius: .3rem; background: #fff; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
th, td { padding: .25rem .9rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
footer { margin-top: 3rem; font-size: .85rem; opacity: .75; }
</style>
<h1>focalnet-backbone: the demo</h1>
<p>What <code>bash tools/demo.sh</code> made here, with the command behind each picture and number, to be run from the
root of the repository.</p>
<div class="numbers">$numbers</div>
$sections
<footer>$environment</footer>
</html>
""")


class Demo:
    """The folder that the demo wrote, and how to show what is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, step: str) -> str:
        """The command of a step as HTML, with the time that it took."""
        seconds, *words = (self.folder / "steps" / step).read_text(encoding="utf-8").splitlines()
        took = f"{int(seconds) // 60} min {int(seconds) % 60} s" if int(seconds) >= 60 else f"{seconds} s"
        return f"<pre>python {html.escape(shlex.join(words))}\n<small># took {took}</small></pre>"

    def seconds(self) -> int:
        """How long all steps took."""
        return sum(int(note.read_text(encoding="utf-8").split("\n")[0]) for note in (self.folder / "steps").iterdir())

    def pictures(self, pattern: str, width: int | None = None) -> str:
        """All pictures that match a pattern, embedded, with their names. `FileNotFoundError` if there is none."""
        paths = sorted(self.folder.glob(pattern))
        if not paths:
            raise FileNotFoundError(f"no pictures at {self.folder / pattern}")
        size = f' width="{width}"' if width else ""
        figures = []
        for path in paths:
            content = base64.b64encode(path.read_bytes()).decode()
            name = html.escape(str(path.relative_to(self.folder)))
            image = f'<img alt="{name}" src="data:image/png;base64,{content}"{size}>'
            figures.append(f"<figure>{image}<figcaption>{name}</figcaption></figure>")
        return f'<div class="pictures">{"".join(figures)}</div>'


def read_detection(metrics: Path) -> dict[str, float]:
    """detectron2's last evaluation, out of its `metrics.json`: values such as `bbox/AP` and `segm/AP-ball`."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    evaluations = [line for line in lines if "bbox/AP" in line]
    if not evaluations:
        raise FileNotFoundError(f"no evaluation in {metrics}")
    return evaluations[-1]


def read_segmentation(work_dir: Path) -> tuple[dict[str, float], list[tuple[str, str, str]]]:
    """mmengine's last test, out of its logs: the means, and class, IoU and accuracy of each class."""
    logs = sorted(work_dir.glob("*/*.log"))
    results = [path for path in sorted(work_dir.glob("*/*.json")) if "mIoU" in path.read_text(encoding="utf-8")]
    if not results or not logs:
        raise FileNotFoundError(f"no results in {work_dir}")
    table = logs[-1].read_text(encoding="utf-8").rpartition("per class results:")[2]
    rows = re.findall(r"^\| +([^|]+?) +\| +([\d.]+|nan) +\| +([\d.]+|nan) +\|$", table, re.MULTILINE)
    return json.loads(results[-1].read_text(encoding="utf-8").splitlines()[-1]), rows


def read_last_scalar(work_dir: Path, key: str) -> float:
    """The last value of that name that a training of mmengine logged."""
    for scalars in sorted(work_dir.glob("*/vis_data/scalars.json"), reverse=True):
        lines = map(json.loads, scalars.read_text(encoding="utf-8").splitlines())
        values = [line[key] for line in lines if key in line]
        if values:
            return values[-1]
    raise FileNotFoundError(f"no {key} in {work_dir}")


def make_table(head: list[str], rows: list[tuple[str, ...]]) -> str:
    """An HTML table of a head and rows of text."""

    def line(tag: str, cells: list[str] | tuple[str, ...]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line('th', head)}{''.join(line('td', row) for row in rows)}</table>"


def number(value: float) -> str:
    """A number with one decimal, or `-` for NaN."""
    return "-" if math.isnan(value) else f"{value:.1f}"


def section(title: str, *parts: str) -> str:
    """An HTML section of a title and parts, which are HTML."""
    return f"<h2>{title}</h2>\n" + "\n".join(parts)


def describe_environment() -> str:
    """One line of HTML: the versions of Python and the packages, and the number of CPU cores."""
    packages = ("torch", "torchvision", "detectron2", "sal-detectron2", "mmengine", "mmsegmentation")
    versions = []
    for name in packages:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return html.escape(f"Python {platform.python_version()}, {', '.join(versions)}; {os.cpu_count()} CPU cores")


def link(page: str, text: str) -> str:
    """A paragraph that leads to a page beside this one."""
    return f'<p><a href="{html.escape(page)}">{html.escape(text)}</a></p>'


def show_pyramids(demo: Demo) -> str:
    """The section on feature pyramids."""
    return section(
        "Feature pyramids",
        "<p>The four stages of FocalNet-T, at strides 4 to 32: the three principal components of each map as red, "
        "green and blue. The weights are random, so what shows is structure, not meaning.</p>",
        demo.command("photos"),
        demo.command("pyramids"),
        demo.pictures("pyramids/*.png"),
    )


def show_detector(demo: Demo, detection: dict[str, float]) -> str:
    """The section on the Mask R-CNN, with its average precisions."""
    things = [key.removeprefix("bbox/AP-") for key in detection if key.startswith("bbox/AP-")]
    rows = [
        (name, *(number(detection[f"{task}/AP{suffix}"]) for task in ("bbox", "segm")))
        for name, suffix in [("all", ""), *((thing, f"-{thing}") for thing in things)]
    ]
    return section(
        "Mask R-CNN by detectron2",
        "<p>A small FocalNet under a feature pyramid network, trained from nothing on drawn objects on "
        "photographs; the validation images show other photographs. COCO's average precision:</p>",
        demo.command("dataset"),
        demo.command("mask_rcnn"),
        make_table(["class", "box AP", "mask AP"], rows),
        demo.command("mask_rcnn_predictions"),
        demo.pictures("mask_rcnn/predictions/0000[1-4]_overlay.png", 256),
        demo.command("mask_rcnn_report"),
        link("mask_rcnn/report.html", "Its report: curves, precision over recall, confusions, best and worst images"),
    )


def show_segmenter(demo: Demo, means: dict[str, float], classes: list[tuple[str, str, str]]) -> str:
    """The section on the UPerNet, with its intersections over union."""
    rows = [("mean", number(means["mIoU"]), number(means["mAcc"])), *classes]
    return section(
        "UPerNet by mmsegmentation",
        "<p>A small FocalNet with UPerNet's head on the same images, by pixels. Intersection over union:</p>",
        demo.command("upernet"),
        demo.command("upernet_test"),
        make_table(["class", "IoU", "accuracy"], rows),
        demo.command("upernet_predictions"),
        demo.pictures("upernet/predictions/0000[1-4]_overlay.png", 270),
        demo.command("upernet_report"),
        link("upernet/report.html", "Its report: curves, confusions of pixels, best and worst images"),
    )


def show_transformers(demo: Demo) -> str:
    """The section on DINO and Mask2Former, if `--all` trained them."""
    if not (demo.folder / "steps" / "dino").exists():
        return ""
    average_precision = read_last_scalar(demo.folder / "dino", "coco/bbox_mAP")
    panoptic_quality = read_last_scalar(demo.folder / "mask2former", "coco_panoptic/PQ")
    return section(
        "DINO and Mask2Former by mmdetection",
        "<p>Small ones, on the same images. Such networks learn slowly from nothing: "
        f"box AP {100 * average_precision:.1f} and panoptic quality {panoptic_quality:.1f}.</p>",
        demo.command("dino"),
        demo.command("dino_predictions"),
        demo.pictures("dino/predictions/0000[1-4]_overlay.png", 256),
        demo.command("mask2former"),
        demo.command("mask2former_predictions"),
        demo.pictures("mask2former/predictions/0000[1-4]_overlay.png", 256),
    )


def show_modulation(demo: Demo) -> str:
    """The section on what the UPerNet's backbone sees."""
    return section(
        "What the network sees",
        "<p>Focal modulation in the backbone of that UPerNet. Gates weigh, at each position, the context that each "
        "focal level gathers, and the average of the whole image; what they gather becomes the modulator, which "
        "multiplies the query. Below, the last block of each stage.</p>",
        demo.command("seen"),
        "<h3>Gates of the focal levels and of the global context</h3>",
        demo.pictures("seen/*.gates.png"),
        "<h3>Magnitude of the modulator</h3>",
        demo.pictures("seen/*.modulator.png"),
        demo.command("seen_over"),
        demo.pictures("seen/overlay/*.modulator.png"),
        "<h3>Depth-wise kernels of a stage</h3>",
        demo.pictures("seen/kernels_stage3.png"),
        demo.command("explore"),
        link(
            "explore.html",
            "Explore a photograph: click a place and see what is alike, what is gathered, and from where",
        ),
    )


def make_page(demo: Demo) -> str:
    """The page. Raises `FileNotFoundError` if something that it shows is missing."""
    for page in ("mask_rcnn/report.html", "upernet/report.html", "explore.html"):
        if not (demo.folder / page).is_file():
            raise FileNotFoundError(f"no page at {demo.folder / page}")
    detection = read_detection(demo.folder / "mask_rcnn" / "metrics.json")
    means, classes = read_segmentation(demo.folder / "upernet" / "test")
    numbers = {
        "box AP, Mask R-CNN": number(detection["bbox/AP"]),
        "mask AP, Mask R-CNN": number(detection["segm/AP"]),
        "mIoU, UPerNet": number(means["mIoU"]),
        "minutes for all steps": number(demo.seconds() / 60),
    }
    sections = [
        show_pyramids(demo),
        show_detector(demo, detection),
        show_segmenter(demo, means, classes),
        show_transformers(demo),
        show_modulation(demo),
    ]
    return PAGE.substitute(
        numbers="".join(f"<div><b>{value}</b>{name}</div>" for name, value in numbers.items()),
        sections="\n".join(sections),
        environment=describe_environment(),
    )


@program("demo_report.py")
def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what tools/demo.sh wrote")
    args = parse(parser)
    try:
        page = make_page(Demo(args.folder))
        claim([(args.folder / "index.html", "the report")])
        with result_file(args.folder / "index.html") as unfinished:
            unfinished.write_text(page, encoding="utf-8")
    except OSError as error:
        return fail("demo_report.py", error)
    print(f"Done. All pictures and numbers: {(args.folder / 'index.html').resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
