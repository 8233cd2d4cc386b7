"""Shards by a cluster of Ray on this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import ray

from focalnet_backbone.features.dataset import FeatureDataset
from focalnet_backbone.features.ray_engine import extract_by_ray
from focalnet_backbone.features.sources import find_shards
from tests.features.shard_inputs import content_below, make_job, run, small_extractor, write_tar, write_tars


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def workers() -> list[int]:
    """The processes below this one that do shards."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except (OSError, ValueError):
            continue

    def is_below(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_below(parents[pid]))

    return [pid for pid, name in names.items() if name.startswith("ray::MapWorker") and is_below(pid)]


def test_a_killed_worker_loses_nothing_and_nothing_is_done_twice(cluster, tmp_path):
    write_tars(tmp_path / "tars", shards=30, photos=8)
    write_tar(tmp_path / "tars" / "999.tar", {"bad.png": b"bad"})
    shards = find_shards([str(tmp_path / "tars")])
    extractor, out = small_extractor(), tmp_path / "out.parquet"
    manifests, killed = out / "_manifests", []

    def kill_one() -> None:
        while len(list(manifests.glob("[!.]*"))) < 2 or not workers():
            time.sleep(0.005)
        killed.append(workers()[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    job = make_job(extractor, out)
    summary = extract_by_ray(extractor, job, shards, workers=2, report=lambda line: None)
    killer.join(timeout=1)
    assert killed, "the work was over before a worker could be killed"
    assert (summary.written, summary.shards, len(summary.failed)) == (240, 31, 1)
    assert sorted(row["key"] for row in FeatureDataset(out)) == [f"{number:03d}" for number in range(240)]
    run(extractor, shards, tmp_path / "alone.parquet")
    assert content_below(out) == content_below(tmp_path / "alone.parquet")
    again = extract_by_ray(extractor, job, shards, workers=2, resume=True)
    assert (again.written, again.skipped) == (0, 240)
