"""Shards on many machines by Ray Data, which schedules, retries and holds back; the map over blocks of shards is ours.

An actor that dies has its block done again by another: what has a manifest by then is not done twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

from tqdm import tqdm

from focalnet_backbone.features.extractor import FeatureExtractor
from focalnet_backbone.features.image_shards import Shard
from focalnet_backbone.features.manifests import done_before, prepare
from focalnet_backbone.features.shard_job import ShardJob, ShardSummary
from focalnet_backbone.features.shards import extract_shards
from focalnet_backbone.features.store import Store
from focalnet_backbone.system.command_line import printable
from focalnet_backbone.system.inputs import parse_json
from focalnet_backbone.system.interruption import Stopped, stop_signals

_BLOCKS = 16
"""Blocks a worker, so that one that is slow or lost does not hold up the rest."""


def extract_by_ray(
    extractor: FeatureExtractor,
    job: ShardJob,
    shards: Sequence[Shard],
    *,
    workers: int | None = None,
    resume: bool = False,
    force: bool = False,
    report: Callable[[str], None] = tqdm.write,
) -> ShardSummary:
    """Do all shards that are not done, by the workers of a Ray cluster, which must reach the inputs and the output.

    The cluster is that of `RAY_ADDRESS`, or one started on this machine for as long as it takes.

    Args:
        extractor: what computes; each worker gets a copy of it, on a GPU of its own if it is on one.
        job: what to do.
        shards: all shards of the inputs.
        workers: how many; by default one a GPU, or one a CPU of the cluster.
        resume, force, and what they raise: as of `prepare`.
        report: takes one line about each image or shard that cannot be read.

    Raises:
        Stopped: SIGINT or SIGTERM came; all that is written is whole.
        OSError: a shard cannot be written, or Ray failed.
    """
    todo, summary = prepare(job, shards, resume=resume, force=force)
    if not todo:
        return summary
    with _cluster() as ray, tqdm(unit="image", desc="extracting") as bar, stop_signals() as stop:
        seen = set()
        try:
            for row in _map(ray, extractor, job, todo, workers):
                manifest = parse_json(row["manifest"])
                if manifest["name"] not in seen:
                    seen.add(manifest["name"])
                    summary.add(manifest)
                    bar.update(manifest["images"])
                    bar.set_postfix_str(f"{len(seen)} of {len(todo)} shards")
                    for key, reason in manifest["failed"]:
                        report(f"skipped: {manifest['name']}, {key}: {reason}" if key else f"skipped: {reason}")
                if stop:
                    raise Stopped(stop[0])
        except ray.exceptions.RayError as error:
            if stop:
                raise Stopped(stop[0]) from None
            reason = str(getattr(error, "cause", None) or error).strip().splitlines() or [type(error).__name__]
            raise OSError(f"Ray could not do it: {printable(reason[-1])}") from error
    return summary


def _map(ray: Any, extractor: FeatureExtractor, job: ShardJob, todo: list[Shard], workers: int | None) -> Iterator[Any]:
    """The manifests of the shards, as they are done."""
    on_gpu = extractor.device.type == "cuda"
    workers = workers or int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 1))
    copy = deepcopy(extractor)
    copy.model.cpu()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = [{"shard": pickle.dumps(shard)} for shard in todo]
    blocks = ray.data.from_items(rows, override_num_blocks=min(len(rows), workers * _BLOCKS))
    done = blocks.map_batches(
        _Worker,
        fn_constructor_args=(ray.put(copy), job, "cuda" if on_gpu else "cpu"),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
        num_cpus=1,
        num_gpus=1 if on_gpu else 0,
    )
    yield from done.iter_rows()


class _Worker:
    """What an actor holds: the network, and what to do."""

    def __init__(self, extractor: Any, job: ShardJob, device: str) -> None:
        import ray

        self.extractor: FeatureExtractor = ray.get(extractor)
        self.extractor.model.to(device)
        self.job = job

    def __call__(self, block: dict[str, Any]) -> dict[str, list[str]]:
        """The manifests of a block's shards."""
        shards = [pickle.loads(shard) for shard in block["shard"]]
        store = Store(self.job.out)
        # Of a block that is done again.
        before = [done_before(self.job, store, shard) for shard in shards]
        todo = [shard for shard, manifest in zip(shards, before, strict=True) if manifest is None]
        done = [manifest for manifest in before if manifest is not None]
        done += extract_shards(self.extractor, self.job, todo)
        return {"manifest": [json.dumps(manifest) for manifest in done]}


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected; what was started for it ends with it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    import ray.data
    import ray.exceptions

    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()
