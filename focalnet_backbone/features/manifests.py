"""What is in a folder of shards already: its description, and a manifest of each shard that is done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from focalnet_backbone.features.image_shards import Shard
from focalnet_backbone.features.shard_job import FORMAT, ShardJob, ShardSummary
from focalnet_backbone.features.sinks import SUFFIXES
from focalnet_backbone.features.store import Store
from focalnet_backbone.system.inputs import parse_json

DESCRIPTION = "_focalnet.json"
"""The file that says what a folder of shards holds. Readers of Parquet pass by what begins with an underscore."""
MANIFESTS = "_manifests"


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
    store.check(MANIFESTS)
    there = store.names()
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


def _read_json(store: Store, name: str) -> dict[str, Any]:
    """What a file holds; nothing if there is none, or one that is no JSON of ours."""
    content = store.read(name)
    try:
        found = parse_json(content) if content else {}
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
