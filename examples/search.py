#!/usr/bin/env python3
"""Search by picture or by region: an HTML page of what lies nearest in a folder of features.

    focalnet extract photos --pool gap --out photos.parquet
    python examples/search.py photos.parquet photos --picture cat.jpg --out search.html

    focalnet extract photos --pool roi --boxes instances.json --out regions.parquet
    python examples/search.py regions.parquet photos --row 0 25 --boxes instances.json --out search.html
    python examples/search.py regions.parquet photos --picture cat.jpg --box 40 30 200 180 --out search.html

Nearness is the cosine of one stage's vectors. Queries are rows of the features themselves, or a picture, whose features
are computed by the network that computed those. With a COCO file, categories are named.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from focalnet_backbone import FeatureExtractor
from focalnet_backbone.create import open_backbone
from focalnet_backbone.features.dataset import FeatureDataset
from focalnet_backbone.features.images import limit_size, to_rgb
from focalnet_backbone.features.pooling import Box, corners, pool_boxes, pool_image
from focalnet_backbone.system.command_line import fail, parse, positive, program
from focalnet_backbone.system.outputs import claim, result_file

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #222 }
section { border-top: 1px solid #ddd; padding: 1rem 0; display: flex; gap: .8rem; flex-wrap: wrap }
figure { margin: 0; width: 7.4rem } figure.query { margin-right: 1.2rem }
img { width: 7.2rem; height: 7.2rem; object-fit: contain; background: #f3f3f3; border: 2px solid transparent }
.query img { border-color: #00796b } figcaption { font-size: .8rem; overflow-wrap: anywhere }
"""


def find_photo(folder: Path, key: str) -> Image.Image:
    """The photo of a key: of a folder it is the path, of a tar that without its suffix."""
    path = folder / key
    if not path.is_file():
        path = next(iter(sorted(path.parent.glob(f"{path.name}.*"))), path)
    return Image.fromarray(to_rgb(path).permute(1, 2, 0).numpy())


def draw(photo: Image.Image, box: list[float] | None, caption: str, kind: str = "") -> str:
    """A figure of a photo, or of a box (x, y, width, height) of it with some of what is around."""
    if box is not None:
        x, y, width, height = box
        margin = 0.1 * max(width, height) + 2
        left, top = max(0, x - margin), max(0, y - margin)
        photo = photo.crop(tuple(map(round, (left, top, x + width + margin, y + height + margin))))
    photo.thumbnail((256, 256))
    content = io.BytesIO()
    photo.save(content, "JPEG", quality=85)
    source = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    text = html.escape(caption)
    return f'<figure class="{kind}"><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def describe(features: FeatureDataset, picture: str, box: list[float] | None, stage: str) -> np.ndarray:
    """The vector of a picture, or of a box of it, by the network that the features are from."""
    made = features.settings
    torch.manual_seed(made["seed"])
    model = open_backbone(made["variant"], made["weights"], made["out_features"])
    extractor = FeatureExtractor(model, dtype=getattr(torch, made["dtype"]), max_size=made["max_size"])
    whole = to_rgb(picture)
    image = limit_size(whole, extractor.max_size)
    maps = extractor.features(image[None])
    if box is None:
        return pool_image(maps)[stage].cpu().numpy()
    scale = (image.shape[-1] / whole.shape[-1], image.shape[-2] / whole.shape[-2])
    place = corners([Box(0, 0, tuple(box))], scale)
    return pool_boxes(maps, extractor.model.strides, [place])[stage].cpu().numpy()


def search(args: argparse.Namespace) -> list[str]:
    """The page's sections, one a query."""
    features = FeatureDataset(args.features)
    if not len(features):
        raise ValueError(f"{args.features} holds no features")
    stage = args.stage or list(features.layout.channels)[-1]
    vectors = features.stack(stage).float().numpy()
    index = NearestNeighbors(n_neighbors=min(args.neighbours + 1, len(vectors)), metric="cosine").fit(vectors)
    names = {}
    if args.boxes:
        names = {entry["id"]: entry["name"] for entry in json.loads(Path(args.boxes).read_text())["categories"]}

    def figure(row: int, note: str, kind: str = "") -> str:
        facts = features[row]
        words = [names.get(facts.get("category_id"), ""), note, facts["key"]]
        return draw(find_photo(args.photos, facts["key"]), facts.get("box"), ", ".join(filter(None, words)), kind)

    def neighbours(vector: np.ndarray, own: int | None = None) -> list[str]:
        distances, rows = index.kneighbors(vector)
        found = [(row, far) for row, far in zip(rows[0], distances[0], strict=True) if row != own]
        return [figure(int(row), f"{1 - far:.3f}") for row, far in found[: args.neighbours]]

    sections = []
    for row in args.row:
        if not 0 <= row < len(vectors):
            raise ValueError(f"row {row} of {len(vectors)}")
        sections.append("".join([figure(row, f"row {row}", "query"), *neighbours(vectors[row : row + 1], row)]))
    if args.picture:
        photo = Image.fromarray(to_rgb(args.picture).permute(1, 2, 0).numpy())
        query = draw(photo, args.box, Path(args.picture).name, "query")
        sections.append("".join([query, *neighbours(describe(features, args.picture, args.box, stage))]))
    return sections


@program("search.py")
def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", help="what focalnet extract wrote with --pool gap or roi")
    parser.add_argument("photos", type=Path, help="the folder of the photos")
    parser.add_argument("--row", type=int, nargs="+", default=[], metavar="N", help="rows of the features to search by")
    parser.add_argument("--picture", metavar="FILE", help="a picture to search by")
    parser.add_argument("--box", type=float, nargs=4, metavar=("X", "Y", "W", "H"), help="the picture's region")
    parser.add_argument("--boxes", metavar="FILE", help="COCO file that names the categories")
    parser.add_argument("--stage", help="whose vectors to compare (the last)")
    parser.add_argument("--neighbours", type=positive, default=8, metavar="N", help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("search.html"), metavar="FILE", help="(%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a file that no program of this package wrote")
    args = parse(parser)
    try:
        if not args.row and not args.picture:
            raise ValueError("--row or --picture says what to search by")
        claim([(args.out, "the page")], force=args.force)
        sections = search(args)
    except (OSError, KeyError, TypeError, ValueError) as error:
        return fail("search.py", error)
    body = "".join(f"<section>{section}</section>" for section in sections)
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Nearest neighbours</title><style>{STYLE}</style>"
    with result_file(args.out) as unfinished:
        unfinished.write_text(f"{page}<h1>Nearest neighbours</h1>{body}</html>", encoding="utf-8")
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
