"""Features of shards of photos, shard by shard: read, decode, network, pool and write at once, resumed by manifests.

A shard of features is written whole, and its manifest after it: what has a manifest is done. Batches never reach from
one shard into the next, so that a shard's features don't depend on which shards were done before it, or by whom.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from tqdm import tqdm

from focalnet_backbone.features.batches import Photo, SizeBuffer
from focalnet_backbone.features.extractor import FeatureExtractor
from focalnet_backbone.features.image_shards import Shard
from focalnet_backbone.features.images import stack_images
from focalnet_backbone.features.manifests import MANIFESTS, prepare
from focalnet_backbone.features.pooling import Box, corners, pool_boxes, pool_image
from focalnet_backbone.features.reading import read_photos, thread_pool
from focalnet_backbone.features.shard_job import ShardJob, ShardSummary
from focalnet_backbone.features.sinks import SINKS, SUFFIXES, Rows
from focalnet_backbone.features.store import Store
from focalnet_backbone.system.command_line import is_out_of_memory
from focalnet_backbone.system.interruption import Stopped, stop_signals

_PENDING = 4
"""Batches that wait to be written at once."""


def extract_shards(
    extractor: FeatureExtractor,
    job: ShardJob,
    shards: Iterable[Shard],
    *,
    on_failure: Callable[[str], None] = lambda line: None,
    on_image: Callable[[int], object] = lambda count: None,
    stop: Sequence[int] = (),
) -> Iterator[dict[str, Any]]:
    """Do shards in their order, and yield the manifest of each.

    Reading, decoding and writing have threads of their own, beside the network in this one, and the next shard is read
    while one is finished. A shard that cannot be read is not written; its manifest, which is only yielded, has `file`
    None and the reason under `failed`.

    Args:
        extractor: what computes.
        job: what to do.
        shards: which, already prepared for.
        on_failure: takes a line about each image or shard that cannot be read, when that is found.
        on_image: takes a number of images that have just been done.
        stop: as soon as there is a signal in it, the shards in work are given up.

    Raises:
        Stopped: by `stop`; all that is written is whole.
        OSError: a shard cannot be written.
    """
    with contextlib.ExitStack() as stack:
        readers = stack.enter_context(thread_pool(job.threads))
        writer = stack.enter_context(thread_pool(1))
        events = stack.enter_context(contextlib.closing(read_photos(job, extractor.max_size, shards, readers)))
        works: deque[_Work] = deque()
        stack.callback(lambda: [work.abandon(writer) for work in works])
        for event, value in events:
            if stop:
                raise Stopped(stop[0])
            if event == "begin":
                works.append(_Work(extractor, job, *value, writer, on_image))
                while len(works) > 2:
                    yield works[0].result()
                    works.popleft()
            elif event == "photo":
                works[-1].put(value)
            elif event == "none":
                works[-1].pass_by()
            elif event == "failed":
                works[-1].failed.append(value)
                on_failure(f"{works[-1].shard.name}, {value[0]}: {value[1]}")
                on_image(1)
            elif event == "broken":
                on_failure(value)
                work = works.pop()
                work.abandon(writer)
                yield work.manifest(failed=[("", value)], images=0, rows=0, file=None)
            else:
                works[-1].finish()
        while works:
            yield works[0].result()
            works.popleft()


def extract_to_shards(
    extractor: FeatureExtractor,
    job: ShardJob,
    shards: Sequence[Shard],
    *,
    resume: bool = False,
    force: bool = False,
    report: Callable[[str], None] = tqdm.write,
) -> ShardSummary:
    """Do all shards that are not done, with a progress bar.

    Under `torch.distributed` each rank takes its share of them, and all return the summary of the whole.

    Args:
        extractor: what computes.
        job: what to do.
        shards: all shards of the inputs.
        resume, force, and what they raise: as of `prepare`.
        report: takes one line about each image or shard that cannot be read.

    Raises:
        Stopped: SIGINT or SIGTERM came; all that is written is whole.
        OSError: a shard cannot be written.
    """
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    todo, summary = _prepare_all(job, shards, rank, ranks, resume=resume, force=force)
    todo = todo[rank::ranks]
    with tqdm(unit="image", desc="extracting", disable=rank != 0) as bar, stop_signals() as stop:
        done = extract_shards(
            extractor,
            job,
            todo,
            on_failure=lambda line: report(f"skipped: {line}"),
            on_image=bar.update,
            stop=stop,
        )
        for number, manifest in enumerate(done, 1):
            summary.add(manifest)
            bar.set_postfix_str(f"{number} of {len(todo)} shards")
    return _sum_over_ranks(summary, ranks) if ranks > 1 else summary


def _prepare_all(
    job: ShardJob, shards: Sequence[Shard], rank: int, ranks: int, *, resume: bool, force: bool
) -> tuple[list[Shard], ShardSummary]:
    """What `prepare` says to rank 0, for all ranks, also its error; the others count nothing as done before."""
    answer: list[Any] = [None]
    if rank == 0:
        try:
            answer = [prepare(job, shards, resume=resume, force=force)]
        except (OSError, ValueError) as error:
            if ranks == 1:
                raise
            answer = [error]
    if ranks > 1:
        dist.broadcast_object_list(answer)
    if isinstance(answer[0], Exception):
        raise answer[0]
    todo, summary = answer[0]
    return todo, summary if rank == 0 else ShardSummary()


def _sum_over_ranks(summary: ShardSummary, ranks: int) -> ShardSummary:
    gathered: list[ShardSummary] = [summary] * ranks
    dist.all_gather_object(gathered, summary)
    total = ShardSummary()
    for part in gathered:
        for name in ("written", "skipped", "failed", "rows", "shards", "network_seconds"):
            setattr(total, name, getattr(total, name) + getattr(part, name))
    return total


class _Work:
    """A shard between its first image and its manifest."""

    def __init__(
        self,
        extractor: FeatureExtractor,
        job: ShardJob,
        shard: Shard,
        stamp: str,
        writer: ThreadPoolExecutor,
        on_image: Callable[[int], object],
    ) -> None:
        self.extractor, self.job, self.shard, self.stamp = extractor, job, shard, stamp
        self.failed: list[tuple[str, str]] = []
        self.images = self.rows = 0
        self.seconds = 0.0
        self._on_image = on_image
        self._buffer = SizeBuffer(job.batch_size)
        self._output = _Output(job, shard.name)
        self._writer = writer
        self._pending: deque[Future[Any]] = deque()
        self._last: Future[Any] | None = None

    def put(self, photo: Photo) -> None:
        """Take a photo; computes when there is a batch."""
        for batch in self._buffer.put(photo):
            self._compute(batch)

    def pass_by(self) -> None:
        """Count an image that has no boxes."""
        self.images += 1
        self._on_image(1)

    def finish(self) -> None:
        """Compute what is left, and have the shard and its manifest written."""
        for batch in self._buffer.flush():
            self._compute(batch)
        facts = self.manifest(
            failed=self.failed,
            images=self.images,
            rows=self.rows,
            file=self.job.output(self.shard.name),
        )
        self._last = self._writer.submit(self._output.publish, facts)

    def result(self) -> dict[str, Any]:
        """The manifest, once it is written."""
        while self._pending:
            self._pending.popleft().result()
        return {**self._last.result(), "network_seconds": self.seconds}

    def manifest(self, **facts: Any) -> dict[str, Any]:
        """What is to be known of the shard."""
        return {"name": self.shard.name, "stamp": self.stamp, **facts}

    def abandon(self, writer: ThreadPoolExecutor) -> None:
        """Leave nothing of it."""
        writer.submit(self._output.abandon).result()

    def _compute(self, photos: list[Photo]) -> None:
        for batch in _computed(self.extractor, self.job, photos, self._fail):
            self.seconds += batch.seconds
            self.images += batch.images
            self.rows += len(batch.rows)
            self._on_image(batch.images)
            while len(self._pending) >= _PENDING:
                self._pending.popleft().result()
            if len(batch.rows):
                self._pending.append(self._writer.submit(self._output.write, batch.rows))

    def _fail(self, photo: Photo) -> None:
        size = "x".join(map(str, photo.image.shape[-2:]))
        self.failed.append((photo.key, f"the memory is not enough for it ({size} pixels); see --max-size"))
        self._on_image(1)


class _Output:
    """A shard's output, used by the writing thread alone."""

    def __init__(self, job: ShardJob, name: str) -> None:
        self.job = job
        self.name = name
        self.store = Store(job.out)
        self._stack = contextlib.ExitStack()
        self._sink: Any = None
        self._given_up = False

    def write(self, rows: Rows) -> None:
        """Add rows."""
        with self._giving_up_on_error():
            self._open()
            self._sink.write(rows)

    def publish(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Put the shard in its place, and its manifest after it; not if rows of it could not be written."""
        with self._giving_up_on_error():
            self._open()
            self._sink.close()
        # An older manifest would be about what is replaced now.
        self.store.remove(f"{MANIFESTS}/{self.name}.json")
        self._stack.close()
        manifest = {**manifest, "bytes": self.store.size(manifest["file"])}
        self.store.write(f"{MANIFESTS}/{self.name}.json", json.dumps(manifest, indent=1).encode())
        return manifest

    def abandon(self) -> None:
        """Leave nothing."""
        if not self._given_up:
            self._give_up(RuntimeError("given up"))

    @contextlib.contextmanager
    def _giving_up_on_error(self) -> Iterator[None]:
        if self._given_up:  # The first error is the one that is told.
            raise RuntimeError(f"{self.name} was given up")
        try:
            yield
        except Exception as error:
            self._give_up(error)
            raise

    def _give_up(self, error: Exception) -> None:
        """Remove what there is of the shard. Raises the error anew where that can tell the shard's name."""
        self._given_up = True
        if self._sink is not None:
            with contextlib.suppress(Exception):
                self._sink.close()
        self._stack.__exit__(type(error), error, error.__traceback__)

    def _open(self) -> None:
        if self._sink is None:
            layout = self.job.layout
            folder = SUFFIXES[layout.kind] == ""
            path = self._stack.enter_context(self.store.whole(self.job.output(self.name), folder=folder))
            self._sink = SINKS[layout.kind](path, layout)


@dataclass
class _Computed:
    rows: Rows
    images: int
    seconds: float


def _computed(
    extractor: FeatureExtractor, job: ShardJob, photos: list[Photo], on_failure: Callable[[Photo], None]
) -> Iterator[_Computed]:
    """The rows of a batch; where the memory is not enough for all at once, photo by photo."""
    try:
        done = _compute_batch(extractor, job, photos)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        done = None
    # Outside of the handler, as the error holds on to what filled the memory.
    if done is not None:
        yield done
    elif len(photos) > 1:
        for photo in photos:
            yield from _computed(extractor, job, [photo], on_failure)
    else:
        on_failure(photos[0])


@torch.no_grad()
def _compute_batch(extractor: FeatureExtractor, job: ShardJob, photos: list[Photo]) -> _Computed:
    images = stack_images([photo.image for photo in photos], extractor.device)
    begin = time.perf_counter()
    features = extractor.features(images)
    keys = [photo.key for photo in photos]
    boxes: list[Box] = []
    if job.layout.pool == "gap":
        features = pool_image(features)
    elif job.layout.pool == "roi":
        found = [job.boxes.of(photo.key) for photo in photos]
        places = [corners(own, photo.scale) for own, photo in zip(found, photos, strict=True)]
        features = pool_boxes(features, job.layout.strides, places)
        keys = [photo.key for own, photo in zip(found, photos, strict=True) for _ in own]
        boxes = [box for own in found for box in own]
    dtype = getattr(torch, job.layout.dtype)
    arrays = {name: feature.to("cpu", dtype).contiguous().numpy() for name, feature in features.items()}
    seconds = time.perf_counter() - begin
    rows = Rows(keys, tuple(images.shape[-2:]), arrays, boxes, images if job.layout.kind == "files" else None)
    return _Computed(rows, len(photos), seconds)
