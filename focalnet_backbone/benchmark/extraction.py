"""How fast shards of photos become features, in how much memory, and how much of that time is the network."""

from __future__ import annotations

import io
import multiprocessing
import os
import socket
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image

from focalnet_backbone.benchmark.memory import peak_bytes
from focalnet_backbone.create import create_backbone
from focalnet_backbone.features.extractor import FeatureExtractor
from focalnet_backbone.features.shard_job import make_layout, new_job
from focalnet_backbone.features.shards import extract_to_shards
from focalnet_backbone.features.sources import find_shards
from focalnet_backbone.network.backbone import FocalNet

SMALL = "small"
"""In place of a variant's name: a network so small that what is around it is under test."""

_DIFFERENT = 100
"""Photos that are made; shards hold them over and over, under keys of their own."""


@dataclass(frozen=True)
class ExtractionCase:
    """What is measured.

    Attributes:
        model: a variant's name, or `SMALL`.
        size: height and width of the photos in pixels.
        images: how many.
        processes: how many do it, by one thread each of the network's.
        batch_size: images that go through the network at once.
        shard_size: images of a tar.
    """

    model: str
    size: int
    images: int
    processes: int = 1
    batch_size: int = 8
    shard_size: int = 1000


def measure_extraction(case: ExtractionCase, threads: int | None = None) -> dict[str, Any]:
    """Extract pooled features of tars of JPEGs into Parquet, each process a fresh one.

    Args:
        case: what is measured.
        threads: CPU threads of each process's network; the cores shared among them by default.

    Returns:
        the case, `seconds` from the first shard to the last manifest, `images_per_second`, `network_share` (time that
        the network took, of that), and `peak_bytes` of the process that takes most beyond the program and the network
        (None where the system cannot tell).
    """
    threads = threads or max(1, (os.cpu_count() or 1) // case.processes)
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="focalnet-") as folder:
        write_tars(Path(folder, "in"), case)
        answers = spawn.SimpleQueue()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        work = [
            spawn.Process(target=_extract, args=(case, folder, rank, port, threads, answers.put), daemon=True)
            for rank in range(case.processes)
        ]
        for process in work:
            process.start()
        for process in work:
            process.join()
        if any(process.exitcode for process in work):
            raise RuntimeError(f"the extraction of {case.images} images failed")
        found = [answers.get() for _ in work]
    seconds = max(answer["seconds"] for answer in found)
    return {
        **vars(case),
        "threads": threads,
        "seconds": seconds,
        "images_per_second": case.images / seconds,
        "network_share": found[0]["network_seconds"] / case.processes / seconds,
        "peak_bytes": max(answer["peak_bytes"] or 0 for answer in found) or None,
    }


def write_tars(folder: Path, case: ExtractionCase) -> None:
    """Tars of JPEGs, in WebDataset's layout: smooth colours with some noise, which compress about as photos do."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    contents = []
    for _ in range(min(_DIFFERENT, case.images)):
        coarse = Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((case.size, case.size), Image.Resampling.BICUBIC), dtype=np.int16)
        pixels = (pixels + noise.integers(-8, 9, pixels.shape)).clip(0, 255).astype(np.uint8)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "JPEG", quality=90)
        contents.append(content.getvalue())
    for start in range(0, case.images, case.shard_size):
        with tarfile.open(folder / f"{start // case.shard_size:06d}.tar", "w") as tar:
            for number in range(start, min(start + case.shard_size, case.images)):
                member = tarfile.TarInfo(f"{number:08d}.jpg")
                content = contents[number % len(contents)]
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def format_extraction(results: Sequence[dict[str, Any]]) -> str:
    """The measurements as a table in Markdown."""
    head = "| network | photos | processes | threads each | seconds | images/s | network's share | memory taken |"
    lines = [head, "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for result in results:
        lines.append(
            f"| {result['model']} | {result['images']} of {result['size']} px | {result['processes']} | "
            f"{result['threads']} | {result['seconds']:.1f} | {result['images_per_second']:.0f} | "
            f"{result['network_share']:.2f} | {(result['peak_bytes'] or 0) / 2**20:.0f} MB |"
        )
    return "\n".join(lines)


def _extract(
    case: ExtractionCase, folder: str, rank: int, port: int, threads: int, answer: Callable[[dict[str, Any]], None]
) -> None:
    """What one process does."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if case.processes > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=case.processes)
    if case.model == SMALL:
        model = FocalNet(embed_dim=8, depths=[1, 1], out_indices=[1, 2])
    else:
        model = create_backbone(case.model, out_indices=[1, 2, 3, 4])
    extractor = FeatureExtractor(model, device="cpu")
    extractor.features(torch.zeros(case.batch_size, 3, case.size, case.size, dtype=torch.uint8))  # Warm.
    out = str(Path(folder, "out.parquet"))
    shards = find_shards([str(Path(folder, "in"))])
    job = new_job(extractor, out, make_layout(extractor, out, pool="gap"), batch_size=case.batch_size)
    found: dict[str, Any] = {}

    def extract() -> None:
        start = time.perf_counter()
        found["network_seconds"] = extract_to_shards(extractor, job, shards).network_seconds
        found["seconds"] = time.perf_counter() - start

    found["peak_bytes"] = peak_bytes(extract, torch.device("cpu"))
    if not found.get("seconds"):  # The system cannot tell of memory, and nothing was run.
        extract()
    answer(found)
    if case.processes > 1:
        dist.destroy_process_group()
