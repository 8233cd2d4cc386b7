"""What is done to shards of photos: what is computed, how it is written, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from focalnet_backbone.features.extractor import FeatureExtractor
from focalnet_backbone.features.pooling import POOLS, Boxes
from focalnet_backbone.features.sinks import KINDS, SUFFIXES, Layout
from focalnet_backbone.features.to_files import ExtractionSummary, model_digest
from focalnet_backbone.system.inputs import parse_json

OUT_DTYPES = ("float16", "float32", "float64")

FORMAT = "focalnet-backbone features"


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
        made = {"settings": parse_json(json.dumps(self.settings, default=str)), "model": self.model}
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


def new_job(extractor: FeatureExtractor, out: str, layout: Layout, **options: Any) -> ShardJob:
    """A job for an extractor; the options are those of `ShardJob`."""
    return ShardJob(out, layout, model_digest(extractor), **options)
