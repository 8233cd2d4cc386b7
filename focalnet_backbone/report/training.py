"""One page of what trainings did: their curves, configs, results, and the images that they do best and worst on."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from focalnet_backbone.features import images
from focalnet_backbone.report.detection import CONFIDENT_FROM, MATCHED_FROM, Detection, group_by_image
from focalnet_backbone.report.figures import COLOURS, draw_confusion, draw_curves, draw_precision
from focalnet_backbone.report.runs import Run, differences
from focalnet_backbone.report.segmentation import Segmentation
from focalnet_backbone.system.outputs import result_file

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MAIN = (
    "bbox/AP",
    "segm/AP",
    "coco/bbox_mAP",
    "coco/segm_mAP",
    "coco_panoptic/PQ",
    "mIoU",
    "aAcc",
    "mAcc",
    "accuracy/top1",
)
_SIDE = 320
"""Pixels of a picture's longer side."""
_EACH = 4
"""Pictures of the best, the middle and the worst images, and of mistakes."""


def write_report(
    runs: Sequence[Run],
    path: str | Path,
    *,
    data: str | None = None,
    base: tuple[str, dict[str, Any]] | None = None,
    detection: Detection | None = None,
    segmentation: Segmentation | None = None,
    open_image: Callable[[str], Image.Image] | None = None,
) -> Path:
    """Write the page of one training, or of several beside each other.

    Args:
        runs: what `read_run` gave.
        path: the HTML file. It holds all that it shows.
        data: a text about the training's data.
        base: name and values of the config that a single run's config came from.
        detection: a comparison of predictions with the truth...
        segmentation: ...or of label images.
        open_image: gives the picture of a file name, for pictures of images.

    Returns its path.
    """
    parts = [_states(runs), _validation(runs), _curves(runs), _configs(runs, base)]
    if data:
        parts.append(_section("The data", f"<pre>{html.escape(data)}</pre>"))
    if detection:
        parts.append(_detection(detection, open_image))
    if segmentation:
        parts.append(_segmentation(segmentation, open_image))
    from plotly.offline import get_plotlyjs

    page = (resources.files(__package__) / "training.html").read_text(encoding="utf-8")
    style = (resources.files(__package__) / "training.css").read_text(encoding="utf-8")
    title = html.escape(", ".join(run.name for run in runs))
    for mark, text in (
        ("<!-- TITLE -->", title),
        ("/* STYLE */", style),
        ("<!-- PARTS -->", "\n".join(filter(None, parts))),
        ("/* PLOTLY */", get_plotlyjs()),
    ):
        page = page.replace(mark, text)
    with result_file(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return Path(path)


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>\n" + "\n".join(filter(None, parts)) + "\n</section>"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def line(tag: str, cells: Sequence[Any]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(_text(cell))}</{tag}>" for cell in cells) + "</tr>"

    return f'<div class="wide"><table>{line("th", head)}{"".join(line("td", row) for row in rows)}</table></div>'


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return "-" if value is None else str(value)


def _plot(figure: Figure | None) -> str:
    return (
        "" if figure is None else figure.to_html(include_plotlyjs=False, full_html=False, config={"responsive": True})
    )


def _states(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        times = [value for _, value in run.times.get("time", [])]
        waits = [value for _, value in run.times.get("data_time", [])]
        seconds = sum(times) / len(times) if times else float("nan")
        waiting = sum(waits) / sum(times) if times and waits and sum(times) else float("nan")
        memory = max((value for _, value in run.memory), default=float("nan"))
        rows.append([run.name, run.host, run.state, seconds, f"{waiting:.0%}" if waiting == waiting else "-", memory])
    head = ["training", "host", "state", "seconds an iteration", "of it waiting for data", "GPU memory, MB"]
    return _section("Trainings", _table(head, rows))


def _validation(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run.validation))
    if not names:
        return _section("Validation", "<p>No validation has been logged yet.</p>")
    names.sort(key=lambda name: _MAIN.index(name) if name in _MAIN else len(_MAIN))
    last = [{name: curve[-1][1] for name, curve in run.validation.items()} for run in runs]
    rows = [[name, *(values.get(name) for values in last)] for name in names]
    if len(runs) > 1:
        for row in rows:
            known = [value for value in row[1:] if value is not None]
            row.append(max(known) - min(known) if len(known) > 1 else None)
    head = ["measure", *(run.name for run in runs), *(["spread"] if len(runs) > 1 else [])]
    plot = draw_curves(runs, "validation", "Validation", "value", _MAIN)
    return _section("Validation", "<p>The last values:</p>", _table(head, rows), _plot(plot))


def _curves(runs: Sequence[Run]) -> str:
    figures = [
        draw_curves(runs, "losses", "Losses (click a name to show or hide it)", "loss", ["loss"]),
        draw_curves(runs, "rates", "Learning rate", "learning rate", ["lr"]),
        draw_curves(runs, "times", "Time", "seconds an iteration"),
    ]
    return _section("Curves", *map(_plot, figures))


def _configs(runs: Sequence[Run], base: tuple[str, dict[str, Any]] | None) -> str:
    known = [(run.name, run.config) for run in runs if run.config]
    if len(runs) == 1 and base:
        known = [base, *known]
    if len(known) < 2:
        rows = [[key, value] for name, config in known for key, value in sorted(config.items())]
        return _section("Config", _fold(f"{len(rows)} values", _table(["key", "value"], rows))) if rows else ""
    rows = [[key, *values] for key, values in differences(config for _, config in known)]
    table = _table(["key", *(name for name, _ in known)], rows)
    words = "Where the configs differ" if len(runs) > 1 else f"Where the config differs from {known[0][0]}"
    return _section(
        "Config", f"<p>{html.escape(words)}: {len(rows)} values.</p>", _fold("Show them", table) if rows else ""
    )


def _fold(title: str, content: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>{content}</details>"


def _detection(detection: Detection, open_image: Callable[[str], Image.Image] | None) -> str:
    kind = {"bbox": "boxes", "segm": "masks"}[detection.kind]
    rows = [*detection.overall.items(), *((f"AP {size}", value) for size, value in detection.by_size.items())]
    classes = list(zip(detection.classes, detection.precision, strict=True))
    names = [*detection.classes, "background"]
    parts = [
        f"<p>Average precision of {kind} by COCO's evaluation, of 100:</p>",
        _table(["", "AP"], [*rows, *classes]),
        _plot(draw_precision(detection)),
        _plot(
            draw_confusion(detection.confusion, names, f"Confusion, IoU {MATCHED_FROM} and score {CONFIDENT_FROM} up")
        ),
    ]
    if open_image:
        for title, entries in _pick(detection.ranking):
            pictures = [_detected(open_image, entry) for entry in entries]
            parts.append(f"<h3>{title} images</h3><p>Truth left, found right; F1 score.</p>{_gallery(pictures)}")
        mistakes = list(group_by_image(detection.mistakes).items())[:_EACH]
        pictures = [_mistaken(open_image, name, found[:3]) for name, found in mistakes]
        parts.append(f"<h3>The most confident mistakes</h3>{_gallery(pictures)}")
    return _section("What it finds", *parts)


def _segmentation(segmentation: Segmentation, open_image: Callable[[str], Image.Image] | None) -> str:
    iou = segmentation.iou
    known = [value for value in iou if not math.isnan(value)]
    rows = [("mean", sum(known) / max(len(known), 1)), *zip(segmentation.classes, iou, strict=True)]
    parts = [
        _table(["class", "IoU, %"], rows),
        _plot(draw_confusion(segmentation.confusion, segmentation.classes, "Confusion of pixels")),
    ]
    for title, entries in _pick(segmentation.ranking):
        pictures = [_segmented(open_image, entry) for entry in entries]
        parts.append(f"<h3>{title} images</h3><p>Truth and prediction; mean IoU.</p>{_gallery(pictures)}")
    return _section("What it finds", *parts)


def _pick(ranking: Sequence[dict[str, Any]]) -> list[tuple[str, Sequence[dict[str, Any]]]]:
    """The best, the middle and the worst of a ranking, none twice."""
    count = min(_EACH, len(ranking) // 3) or 1
    middle = max(count, len(ranking) // 2 - count // 2)
    picked = [("The best", ranking[:count]), ("Middling", ranking[middle : middle + count])]
    worst = list(reversed(ranking[max(middle + count, len(ranking) - count) :]))
    return [(title, entries) for title, entries in [*picked, ("The worst", worst)] if entries]


def _gallery(pictures: Sequence[str]) -> str:
    return f'<div class="pictures">{"".join(filter(None, pictures))}</div>'


def _figure(images: Sequence[Image.Image], caption: str) -> str:
    height = max(image.height for image in images)
    canvas = Image.new("RGB", (sum(image.width for image in images) + 6 * (len(images) - 1), height), "white")
    left = 0
    for image in images:
        canvas.paste(image, (left, 0))
        left += image.width + 6
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=88)
    text = html.escape(caption)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return f'<figure><img alt="{text}" src="{source}"><figcaption>{text}</figcaption></figure>'


def _detected(open_image: Callable[[str], Image.Image], entry: dict[str, Any]) -> str:
    photo = _open(open_image, entry["file_name"])
    if photo is None:
        return ""
    pictures = [_with_boxes(photo, entry["truth"], scores=False), _with_boxes(photo, entry["found"], scores=True)]
    return _figure(pictures, f"{entry['file_name']}: {entry['score']:.2f}")


def _mistaken(open_image: Callable[[str], Image.Image], name: str, mistakes: Sequence[dict[str, Any]]) -> str:
    photo = _open(open_image, name)
    words = "; ".join(f"{item['class']} {item['score']:.2f} ({item['actual']})" for item in mistakes)
    return "" if photo is None else _figure([_with_boxes(photo, mistakes, scores=True)], f"{name}: {words}")


def _open(open_image: Callable[[str], Image.Image], name: str) -> Image.Image | None:
    try:
        return open_image(name).convert("RGB")
    except (OSError, ValueError):
        return None


def _with_boxes(photo: Image.Image, items: Sequence[dict[str, Any]], *, scores: bool) -> Image.Image:
    scale = _SIDE / max(photo.size)
    picture = photo.resize((max(1, round(photo.width * scale)), max(1, round(photo.height * scale))))
    draw = ImageDraw.Draw(picture)
    for item in items:
        left, top, width, height = (value * scale for value in item["box"])
        colour = COLOURS[2] if item["right"] else COLOURS[1]
        draw.rectangle([left, top, left + max(width, 1), top + max(height, 1)], outline=colour, width=2)
        text = f"{item['class']} {item['score']:.2f}" if scores else item["class"]
        place = (left + 3, max(0, top - 12))
        draw.rectangle(draw.textbbox(place, text), fill="black")
        draw.text(place, text, fill="white")
    return picture


def _segmented(open_image: Callable[[str], Image.Image] | None, entry: dict[str, Any]) -> str:
    pictures = []
    photo = _open(open_image, entry["name"]) if open_image else None
    if photo is not None:
        pictures.append(photo)
    for kind in ("truth", "found"):
        labels = images.open_image(entry[kind])
        pictures.append(_coloured(labels))
    scale = _SIDE / max(max(picture.size) for picture in pictures)
    size = [(max(1, round(p.width * scale)), max(1, round(p.height * scale))) for p in pictures]
    shrunk = [p.resize(s, Image.Resampling.NEAREST) for p, s in zip(pictures, size, strict=True)]
    return _figure(shrunk, f"{entry['name']}: {entry['score']:.2f}")


def _coloured(labels: Image.Image) -> Image.Image:
    """A label image in its own palette, or in one that tells neighbouring numbers apart."""
    if labels.mode == "P":
        return labels.convert("RGB")
    picture = labels.convert("L").convert("P")
    palette = [value for i in range(256) for value in ((37 * i + 40) % 256, (97 * i + 90) % 256, (173 * i + 140) % 256)]
    picture.putpalette(palette)
    return picture.convert("RGB")
