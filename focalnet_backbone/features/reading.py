"""Photos of shards, read and decoded by threads of their own, ahead of who takes them."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from focalnet_backbone.features.addresses import is_address, open_address
from focalnet_backbone.features.batches import Photo
from focalnet_backbone.features.image_shards import Sample, Shard
from focalnet_backbone.features.images import decode_image, limit_size, load_image
from focalnet_backbone.features.pooling import Boxes
from focalnet_backbone.features.shard_job import ShardJob
from focalnet_backbone.system.command_line import is_out_of_memory, one_line

T = TypeVar("T")


def read_photos(
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
def thread_pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads, of which none begins anything more at the end, however that comes."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
