"""Small photos in every kind of shard."""

from __future__ import annotations

import io
import tarfile
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import skimage.data
import torch
from PIL import Image

from focalnet_backbone import FeatureExtractor, FocalNet
from focalnet_backbone.features.image_shards import Shard
from focalnet_backbone.features.pooling import Boxes
from focalnet_backbone.features.shard_job import ShardJob, make_layout, new_job
from focalnet_backbone.features.shards import extract_to_shards
from focalnet_backbone.features.sources import find_shards

CAT = skimage.data.chelsea()


def photo_bytes(number: int, kind: str = "png") -> bytes:
    """A part of a photo, of one of three sizes."""
    height, width = [(32, 32), (24, 40), (40, 24)][number % 3]
    top, left = (7 * number) % 200, (13 * number) % 300
    content = io.BytesIO()
    Image.fromarray(CAT[top : top + height, left : left + width]).save(content, kind)
    return content.getvalue()


def photo_pixels(number: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(photo_bytes(number))))


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_tars(folder: Path, shards: int = 3, photos: int = 7) -> list[Path]:
    """Tars in WebDataset's layout, photo `n` under the key `n` with a label beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for shard in range(shards):
        members = {}
        for number in range(shard * photos, (shard + 1) * photos):
            members |= {f"{number:03d}.png": photo_bytes(number), f"{number:03d}.cls": b"1"}
        written.append(write_tar(folder / f"{shard:03d}.tar", members))
    return written


def write_parquet(path: Path, photos: int = 7, group: int = 3) -> Path:
    """A table as Hugging Face stores images: their bytes and a path."""
    images = [{"bytes": photo_bytes(number), "path": f"{number:03d}.png"} for number in range(photos)]
    table = pa.table({"image": images, "label": list(range(photos))})
    pq.write_table(table, path, row_group_size=group)
    return path


def small_extractor(**options: object) -> FeatureExtractor:
    torch.manual_seed(0)
    return FeatureExtractor(FocalNet(embed_dim=8, depths=[1, 1], out_indices=[1, 2]), **options)


def run(extractor: FeatureExtractor, shards: list[Shard], out: object, **options: object):
    """Extract as the command does; returns the summary."""
    job_options = {name: options.pop(name) for name in ("batch_size", "threads") if name in options}
    job = make_job(extractor, out, options.pop("pool", "gap"), options.pop("boxes", None), **job_options)
    return extract_to_shards(extractor, job, shards, report=lambda line: None, **options)


def make_job(
    extractor: FeatureExtractor, out: object, pool: str = "gap", boxes: Boxes | None = None, **options: object
) -> ShardJob:
    return new_job(extractor, str(out), make_layout(extractor, str(out), pool=pool), boxes=boxes, **options)


def content_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder that is no manifest."""
    files = (path for path in folder.rglob("*") if path.is_file() and "_manifests" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def extract_alone(tars: Path, out: Path, begun: Event) -> None:
    """What a process does until it is killed or done."""
    torch.set_num_threads(1)
    extractor = small_extractor()
    begun.set()
    run(extractor, find_shards([str(tars)]), out, resume=out.exists())
