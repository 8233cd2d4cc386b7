"""Shards of features as files: WebDataset tars, Parquet, Arrow, Zarr, or safetensors."""

from __future__ import annotations

import io
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from focalnet_backbone.features.pooling import Box
from focalnet_backbone.features.pyramid import FeaturePyramid

KINDS = {".parquet": "parquet", ".arrow": "arrow", ".wds": "wds", ".zarr": "zarr"}
"""What features are written as, by the ending of the output folder's name; any other gets safetensors."""

SUFFIXES = {"parquet": ".parquet", "arrow": ".arrow", "wds": ".tar", "zarr": "", "files": ""}
"""The ending of a shard's own name; one without is a folder."""

_BYTES = 1 << 25
"""About what a row group of Parquet, or a batch of Arrow, holds of features."""


@dataclass(frozen=True)
class Layout:
    """What every row of features holds.

    Attributes:
        kind: one of the values of `KINDS`, or "files".
        pool: one of `POOLS`.
        channels: of each map, by its name.
        strides: of each map in pixels of what the network saw.
        dtype: of what is stored: float16, float32 or float64.
    """

    kind: str
    pool: str
    channels: dict[str, int]
    strides: dict[str, int]
    dtype: str


@dataclass
class Rows:
    """What came of a batch: rows of like sizes.

    Attributes:
        keys: the images' keys, one a row.
        size: height and width of what the network saw.
        features: by map, `(N, C, H, W)` or pooled `(N, C)`.
        boxes: those of the rows, where features are pooled over boxes.
        images: what the network saw, `(N, 3, H, W)`.
    """

    keys: list[str]
    size: tuple[int, int]
    features: dict[str, np.ndarray]
    boxes: list[Box] = field(default_factory=list)
    images: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def facts(self, row: int) -> dict[str, Any]:
        """All of a row but its features."""
        found: dict[str, Any] = {"key": self.keys[row], "height": self.size[0], "width": self.size[1]}
        if self.boxes:
            box = self.boxes[row]
            found |= {"box_id": box.id, "category_id": box.category_id, "box": list(box.xywh)}
        return found


class Sink(ABC):
    """Writes one shard.

    Args:
        path: a file that is not there yet, or an empty folder.
        layout: what the rows hold.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self.layout = layout

    @abstractmethod
    def write(self, rows: Rows) -> None:
        """Add rows."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""


class TarSink(Sink):
    """A tar that WebDataset reads: `KEY.json`, and `KEY.stage1.npy` for each map. Equal rows give equal bytes."""

    def __init__(self, path: Path, layout: Layout) -> None:
        super().__init__(path, layout)
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._names: set[str] = set()

    def write(self, rows: Rows) -> None:
        """Add a sample for each row."""
        for row in range(len(rows)):
            facts = rows.facts(row)
            name = self._name(facts)
            self._add(f"{name}.json", json.dumps(facts).encode())
            for stage, values in rows.features.items():
                content = io.BytesIO()
                np.save(content, values[row], allow_pickle=False)
                self._add(f"{name}.{stage}.npy", content.getvalue())

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()

    def _name(self, facts: Mapping[str, Any]) -> str:
        """The key as WebDataset has it: what comes before a file's first dot, and no other sample's."""
        folder, slash, name = facts["key"].rpartition("/")
        name = folder + slash + name.replace(".", "_")
        if "box_id" in facts:
            name += f"-{facts['box_id']}"
        free, number = name, 1
        while free in self._names:
            number += 1
            free = f"{name}~{number}"
        self._names.add(free)
        return free

    def _add(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._tar.addfile(member, io.BytesIO(content))


class TableSink(Sink):
    """A Parquet file, or an Arrow file that can be mapped into memory.

    A column for each map: fixed-size lists where features are pooled; for whole maps lists of all values, channel by
    channel, with `NAME_shape` beside it.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        super().__init__(path, layout)
        import pyarrow.ipc
        import pyarrow.parquet

        schema = table_schema(layout)
        if layout.kind == "parquet":
            # Features are noise to a compressor, and a dictionary of them is longer than they are.
            self._writer = pyarrow.parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False)
        else:
            self._writer = pyarrow.ipc.new_file(path, schema)
        self._schema = schema
        self._waiting: list[Any] = []
        self._bytes = 0

    def write(self, rows: Rows) -> None:
        """Add a row for each, once there are enough to be worth a row group."""
        import pyarrow as pa

        count = len(rows)
        columns: list[Any] = [rows.keys, [rows.size[0]] * count, [rows.size[1]] * count]
        if rows.boxes:
            columns += [
                [box.id for box in rows.boxes],
                [box.category_id for box in rows.boxes],
                [list(box.xywh) for box in rows.boxes],
            ]
        for values in rows.features.values():
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            length = values[0].size
            if values.ndim == 2:
                columns.append(pa.FixedSizeListArray.from_arrays(flat, length))
            else:
                ends = pa.array(np.arange(count + 1) * length, type=pa.int32())  # Which refuses what is beyond 2 GiB.
                columns.append(pa.ListArray.from_arrays(ends, flat))
                columns.append([list(values.shape[1:])] * count)
            self._bytes += values.nbytes
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, type=kind)
            for column, kind in zip(columns, self._schema.types, strict=True)
        ]
        self._waiting.append(pa.record_batch(arrays, schema=self._schema))
        if self._bytes > _BYTES:
            self._flush()

    def close(self) -> None:
        """Write the last rows and the table's end."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            table = pa.Table.from_batches(self._waiting).combine_chunks()
            self._writer.write_table(table)
        self._waiting, self._bytes = [], 0


def table_schema(layout: Layout) -> Any:
    """The columns of a table of features, as pyarrow's schema; what they are of is in its metadata."""
    import pyarrow as pa

    number = pa.from_numpy_dtype(layout.dtype)
    fields = [pa.field("key", pa.string()), pa.field("height", pa.int32()), pa.field("width", pa.int32())]
    if layout.pool == "roi":
        fields += [pa.field("box_id", pa.int64()), pa.field("category_id", pa.int64())]
        fields.append(pa.field("box", pa.list_(pa.float64(), 4)))
    for name, channels in layout.channels.items():
        if layout.pool == "none":
            fields += [pa.field(name, pa.list_(number)), pa.field(f"{name}_shape", pa.list_(pa.int32(), 3))]
        else:
            fields.append(pa.field(name, pa.list_(number, channels)))
    return pa.schema(fields, metadata={"pool": layout.pool, "strides": json.dumps(layout.strides)})


class ZarrSink(Sink):
    """A Zarr group: below it one for each size of image, `HEIGHTxWIDTH`, with an array a map, rows first.

    The rows' keys, and boxes where there are some, are in the attribute `rows` of that size's group.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        super().__init__(path, layout)
        import zarr

        self._group = zarr.open_group(path, mode="w", zarr_format=3)
        self._facts: dict[str, list[dict[str, Any]]] = {}

    def write(self, rows: Rows) -> None:
        """Append to the arrays of that size."""
        size = f"{rows.size[0]}x{rows.size[1]}"
        for name, values in rows.features.items():
            if size not in self._facts:
                # A chunk is what a reader takes at once: one image's map, or many vectors.
                chunk = (1 if values.ndim == 4 else 1024, *values.shape[1:])
                array = self._group.create_array(
                    f"{size}/{name}", shape=values.shape, chunks=chunk, dtype=values.dtype, compressors=None
                )
                array[:] = values
            else:
                self._group[f"{size}/{name}"].append(values)
        self._facts.setdefault(size, []).extend(rows.facts(row) for row in range(len(rows)))

    def close(self) -> None:
        """Write the attributes."""
        for size, facts in self._facts.items():
            self._group[size].attrs["rows"] = facts


class FileSink(Sink):
    """A folder of safetensors files that `FeaturePyramid.load` reads."""

    def write(self, rows: Rows) -> None:
        """Write a file for each row."""
        for row, key in enumerate(rows.keys):
            path = self.path / f"{key.lstrip('/')}.safetensors"
            if self.path.resolve() not in path.resolve().parents:
                raise ValueError(f"an image's key, {key}, leads out of the folder")
            maps = {name: torch.from_numpy(values[row]) for name, values in rows.features.items()}
            FeaturePyramid(maps, self.layout.strides, rows.images[row], {"source": key}).save(path)

    def close(self) -> None:
        """Nothing is left."""


SINKS = {"wds": TarSink, "parquet": TableSink, "arrow": TableSink, "zarr": ZarrSink, "files": FileSink}
