"""Features of shards of photos, shard by shard: read, decode, network, pool and write at once, resumed by manifests.

A shard of features is written whole, and its manifest after it: what has a manifest is done. Batches never reach from
one shard into the next, so that a shard's features don't depend on which shards were done before it, or by whom.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from tqdm import tqdm

from focalnet_backbone.features.batches import Photo, SizeBuffer
from focalnet_backbone.features.extractor import FeatureExtractor
from focalnet_backbone.features.images import decode_image, limit_size, load_image
from focalnet_backbone.features.pooling import POOLS, Box, Boxes, corners, pool_boxes, pool_image
from focalnet_backbone.features.sinks import KINDS, SINKS, SUFFIXES, Layout, Rows
from focalnet_backbone.features.sources import Sample, Shard, is_address, open_address
from focalnet_backbone.features.store import Store
from focalnet_backbone.features.to_files import ExtractionSummary, model_digest
from focalnet_backbone.system.command_line import is_out_of_memory, one_line
from focalnet_backbone.system.interruption import Stopped, stop_signals

DESCRIPTION = "_focalnet.json"
"""The file that says what a folder of shards holds. Readers of Parquet pass by what begins with an underscore."""
MANIFESTS = "_manifests"
OUT_DTYPES = ("float16", "float32", "float64")

FORMAT = "focalnet-backbone features"
_PENDING = 4
"""Batches that wait to be written at once."""

T = TypeVar("T")


@dataclass
class ShardSummary(ExtractionSummary):
    """What became of the shards: images of those written, and of those that were done before.

    Attributes:
        rows: rows written, which with boxes are not as many as images.
        shards: number of shards written.
        network_seconds: time that the network took, and what pools its maps.
    """

    rows: int = 0
    shards: int = 0
    network_seconds: float = 0.0

    def __str__(self) -> str:
        images = f"{self.written} images written as {self.rows} rows of {self.shards} shards"
        return f"{images}, {self.skipped} skipped (done before), {len(self.failed)} failed"

    def add(self, manifest: Mapping[str, Any], *, before: bool = False) -> None:
        """Count a shard, done now or before."""
        name = manifest["name"]
        self.failed += [(name, f"{name}, {key}: {reason}" if key else reason) for key, reason in manifest["failed"]]
        if before:
            self.skipped += manifest["images"]
            return
        self.written += manifest["images"]
        self.rows += manifest["rows"]
        self.network_seconds += manifest.get("network_seconds", 0.0)
        self.shards += manifest.get("file") is not None


@dataclass(frozen=True)
class ShardJob:
    """What is done to each shard. It can be sent to other processes, where an equal extractor does the same.

    Args:
        out: folder or address; its ending says what is written (see `KINDS`).
        layout: what the rows hold, as `make_layout` gives it.
        model: digest of the network and its weights.
        settings: what else the features depend on, for the description.
        boxes: those to pool over.
        batch_size: images that go through the network at once, if they are of one size.
        threads: threads that read and decode images.
    """

    out: str
    layout: Layout
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    boxes: Boxes | None = None
    batch_size: int = 8
    threads: int = 1

    def description(self) -> dict[str, Any]:
        """What is in the folder, for readers, and for the run that resumes this one."""
        made = {"settings": json.loads(json.dumps(self.settings, default=str)), "model": self.model}
        return {"format": FORMAT, **asdict(self.layout), **made}

    def output(self, shard: str) -> str:
        """The name of a shard's file or folder."""
        return shard + SUFFIXES[self.layout.kind]


def make_layout(extractor: FeatureExtractor, out: str, *, pool: str = "none", dtype: str | None = None) -> Layout:
    """What the features of an extractor are written as.

    Args:
        extractor: what computes them.
        out: where they go; the ending of its name decides on the kind.
        pool: one of `POOLS`.
        dtype: one of `OUT_DTYPES`; by default that in which they are computed, and float32 for bfloat16.

    Raises:
        ValueError: the arguments are wrong, or don't go together.
    """
    if pool not in POOLS:
        raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {pool!r}")
    name = out.rstrip("/").lower()
    kind = next((kind for suffix, kind in KINDS.items() if name.endswith(suffix)), "files")
    if name.endswith((".tar", ".tgz", ".safetensors")):
        raise ValueError(f"the output is a folder, whose ending says what is in it; name it *.wds for tars, not {out}")
    if kind == "files" and pool != "none":
        raise ValueError(f"pooled features need an output that ends in {', '.join(KINDS)}; {out} does not")
    if dtype is None:
        dtype = str(extractor.dtype).removeprefix("torch.").replace("bfloat16", "float32")
    if dtype not in OUT_DTYPES:
        raise ValueError(f"the stored type must be one of {', '.join(OUT_DTYPES)}, got {dtype!r}")
    model = extractor.model
    return Layout(kind, pool, dict(model.channels), dict(model.strides), dtype)


def prepare(
    job: ShardJob, shards: Sequence[Shard], *, resume: bool = False, force: bool = False
) -> tuple[list[Shard], ShardSummary]:
    """Make the output ready. For one process, before the others begin.

    Args:
        job: what is to be done.
        shards: all of them.
        resume: go on with what an earlier run left.
        force: begin anew, over whatever is there.

    Returns:
        the shards that are to be done, and what became of the others when they were.

    Raises:
        FileExistsError: there is something that this package did not write, or features, and neither `resume` nor
            `force`.
        ValueError: what is there was made otherwise, or of other inputs.
        OSError: nothing can be written there.
    """
    store = Store(job.out)
    store.check()
    there = [name for name in store.names() if not name.startswith(".unfinished-")]
    described = _read_json(store, DESCRIPTION)
    if described.get("format") != FORMAT:
        if there and not force:
            raise FileExistsError(f"{job.out} exists already and was not written by this program; --force replaces it")
        described = {}
    # A run of which no input could be read leaves a description alone, which holds up nobody.
    held = bool(described) and bool(set(there) - {DESCRIPTION, MANIFESTS, "zarr.json"} or store.names(MANIFESTS))
    if held and not force:
        if not resume:
            raise FileExistsError(f"{job.out} holds features already; --resume goes on with them, --force begins anew")
        _check_same(job, described)
        _check_known(job, store, shards)
    if not held or force:
        for name in _own_names(job, store, shards):
            store.remove(name)
        if job.layout.kind == "zarr":  # So that the whole is a group that zarr opens.
            store.write("zarr.json", json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}).encode())
        store.write(DESCRIPTION, json.dumps(job.description(), indent=1).encode())
    todo, summary = [], ShardSummary()
    with ThreadPoolExecutor(16) as pool:  # At an address, each answer takes its time.
        for shard, manifest in zip(shards, pool.map(lambda shard: done_before(job, store, shard), shards), strict=True):
            if manifest is None:
                todo.append(shard)
            else:
                summary.add(manifest, before=True)
    return todo, summary


def done_before(job: ShardJob, store: Store, shard: Shard) -> dict[str, Any] | None:
    """The manifest of a shard that is done, from what it is read from now; None if there is something to do."""
    manifest = _read_json(store, f"{MANIFESTS}/{shard.name}.json")
    if manifest and manifest["stamp"] == shard.stamp() and manifest["bytes"] == store.size(manifest["file"]):
        return manifest
    return None


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
        readers = stack.enter_context(_pool(job.threads))
        writer = stack.enter_context(_pool(1))
        events = stack.enter_context(contextlib.closing(_decoded(job, extractor.max_size, shards, readers)))
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

    def write(self, rows: Rows) -> None:
        """Add rows."""
        self._open()
        self._sink.write(rows)

    def publish(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Put the shard in its place, and its manifest after it."""
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
        if self._sink is not None:
            with contextlib.suppress(Exception):
                self._sink.close()
        given_up = RuntimeError("given up")
        self._stack.__exit__(RuntimeError, given_up, None)

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
    images = torch.stack([photo.image for photo in photos])
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


def _decoded(
    job: ShardJob, max_size: int | None, shards: Iterable[Shard], readers: ThreadPoolExecutor
) -> Iterator[tuple[str, Any]]:
    """What is in the shards, in order: `begin` with the shard and its stamp; for each image `photo`, `none` (it has no
    boxes) or `failed`; and `end`, or `broken` and why."""
    ahead = max(2 * job.batch_size, 2 * job.threads)
    pending: deque[Any] = deque()
    for event, value in _in_thread(_samples(shards), ahead):
        if event == "sample":
            value = readers.submit(_decode, job.boxes, max_size, value)
        pending.append((event, value))
        if len(pending) > ahead:
            yield _wait(pending.popleft())
    while pending:
        yield _wait(pending.popleft())


def _wait(entry: tuple[str, Any]) -> tuple[str, Any]:
    event, value = entry
    return value.result() if event == "sample" else entry


def _samples(shards: Iterable[Shard]) -> Iterator[tuple[str, Any]]:
    for shard in shards:
        broken = None
        stamp = ""
        try:
            # Before it is read: what changes while it is read is done again by the next run.
            stamp = shard.stamp()
        except OSError as error:
            broken = one_line(error)
        yield "begin", (shard, stamp)
        if broken is not None:
            yield "broken", broken
            continue
        try:
            for sample in shard.read():
                yield "sample", sample
        except OSError as error:
            yield "broken", one_line(error)
        else:
            yield "end", None


def _decode(boxes: Boxes | None, max_size: int | None, sample: Sample) -> tuple[str, Any]:
    if boxes is not None and not boxes.of(sample.key):
        return "none", None
    try:
        content = sample.content
        if isinstance(content, bytes):
            whole = decode_image(content)
        elif is_address(content):
            with open_address(content) as file:
                whole = decode_image(file.read(), content)
        else:
            whole = load_image(content)
        image = limit_size(whole, max_size)
    except (OSError, ValueError) as error:
        return "failed", (sample.key, one_line(error))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return "failed", (sample.key, "the memory is not enough to read it")
    scale = (image.shape[-1] / whole.shape[-1], image.shape[-2] / whole.shape[-2])
    return "photo", Photo(sample.key, image, scale)


def _in_thread(items: Iterator[T], ahead: int) -> Iterator[T]:
    """The items, made by a thread of their own up to `ahead` of them before they are asked for."""
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(ahead)
    closed = threading.Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(entry, timeout=0.2)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            more, value = ready.get()
            if more:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        closed.set()


@contextlib.contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _read_json(store: Store, name: str) -> dict[str, Any]:
    """What a file holds; nothing if there is none, or one that is no JSON of ours."""
    content = store.read(name)
    try:
        found = json.loads(content) if content else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _own_names(job: ShardJob, store: Store, shards: Sequence[Shard]) -> set[str]:
    """What lies in the output folder that this package wrote, or that it is about to write."""
    suffix = SUFFIXES[job.layout.kind]
    manifests = (_read_json(store, f"{MANIFESTS}/{name}") for name in store.names(MANIFESTS))
    listed = {str(manifest.get("file")) for manifest in manifests} | {job.output(shard.name) for shard in shards}
    own = {name for name in store.names() if name in listed or (suffix and name.endswith(suffix))}
    return own | {DESCRIPTION, MANIFESTS, "zarr.json"}


def _check_same(job: ShardJob, described: dict[str, Any]) -> None:
    wanted = job.description()
    for name in wanted:
        if described.get(name) != wanted[name]:
            found, now = described.get(name), wanted[name]
            if name == "settings":
                knob = next(knob for knob in {**found, **now} if found.get(knob) != now.get(knob))
                name, found, now = knob, found.get(knob), now.get(knob)
            differs = "other weights" if name == "model" else f"{name}={found}, not {now}"
            raise ValueError(f"{job.out} holds features made with {differs}; --force begins anew")


def _check_known(job: ShardJob, store: Store, shards: Sequence[Shard]) -> None:
    known = {f"{shard.name}.json" for shard in shards}
    other = [name for name in store.names(MANIFESTS) if name.endswith(".json") and name not in known]
    if other:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        raise ValueError(
            f"{job.out} holds {other[0].removesuffix('.json')}{more}, which the inputs do not have; name all inputs, "
            "or begin anew with --force"
        )


def new_job(extractor: FeatureExtractor, out: str, layout: Layout, **options: Any) -> ShardJob:
    """A job for an extractor; the options are those of `ShardJob`."""
    return ShardJob(out, layout, model_digest(extractor), **options)
