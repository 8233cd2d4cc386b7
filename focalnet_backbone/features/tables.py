"""Shards of photos in tables: Parquet files, and datasets that Hugging Face's `save_to_disk` wrote."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from focalnet_backbone.features.addresses import SourceError, is_address, open_address, reaching, state
from focalnet_backbone.features.image_shards import Sample, Shard, name_of
from focalnet_backbone.system.command_line import one_line

KEY_COLUMNS = ("__key__", "key", "file_name", "id")
"""Columns of a table that name its images, the first that is there."""

_ROWS = 16
"""Rows of a table that are read at once."""


@dataclass(frozen=True)
class ParquetRows(Shard):
    """Row groups of a Parquet file, with a column of images."""

    column: str = "image"
    key_column: str | None = None
    groups: tuple[int, ...] = ()
    first_row: int = 0

    def read(self) -> Iterator[Sample]:
        """Yield the images of its rows."""
        import pyarrow
        import pyarrow.parquet

        columns = [self.column, *([self.key_column] if self.key_column else [])]
        row = self.first_row
        try:
            with open_address(self.address) as file:
                table = pyarrow.parquet.ParquetFile(file)
                for batch in table.iter_batches(_ROWS, row_groups=list(self.groups), columns=columns):
                    for value in batch.to_pylist():
                        key = value[self.key_column] if self.key_column else None
                        yield _row_sample(value[self.column], key, row, self.address)
                        row += 1
        except pyarrow.ArrowException as error:
            raise SourceError(f"{self.address} cannot be read as Parquet: {one_line(error)}") from error


@dataclass(frozen=True)
class SavedRows(Shard):
    """Rows of a Hugging Face dataset that `save_to_disk` wrote."""

    column: str = "image"
    key_column: str | None = None
    start: int = 0
    stop: int = 0

    def read(self) -> Iterator[Sample]:
        """Yield the images of its rows."""
        rows = _load_saved(self.address, self.column).select(range(self.start, self.stop))
        for row, value in enumerate(rows, self.start):
            key = value[self.key_column] if self.key_column else None
            yield _row_sample(value[self.column], key, row, self.address)

    def stamp(self) -> str:
        """By the dataset's fingerprint, which changes with its content."""
        return f"{self.address}, {_load_saved(self.address, self.column)._fingerprint}, {self.start} to {self.stop}"


def cut_parquet(path: str, *, column: str | None, key_column: str | None, shard_size: int) -> list[Shard]:
    """A Parquet file's row groups, put together to shards."""
    import pyarrow
    import pyarrow.parquet

    try:
        with open_address(path) as file:
            table = pyarrow.parquet.ParquetFile(file)
            schema = table.schema_arrow
            rows = [table.metadata.row_group(index).num_rows for index in range(table.num_row_groups)]
    except pyarrow.ArrowException as error:
        raise SourceError(f"{path} cannot be read as Parquet: {one_line(error)}") from error
    images = _image_column(path, dict(zip(schema.names, schema.types, strict=True)), column)
    whole = ParquetRows(name_of(path), path, images, _key_column(path, schema.names, key_column))
    shards: list[Shard] = []
    groups: list[int] = []
    first = held = 0
    for index, count in enumerate(rows):
        groups.append(index)
        held += count
        if held >= shard_size or index == len(rows) - 1:
            shards.append(replace(whole, groups=tuple(groups), first_row=first))
            first, held, groups = first + held, 0, []
    if len(shards) > 1:
        shards = [replace(shard, name=f"{shard.name}-{number:05d}") for number, shard in enumerate(shards)]
    return shards


def cut_saved(path: str, *, column: str | None, key_column: str | None, shard_size: int) -> list[Shard]:
    """A saved dataset's rows, cut into shards of `shard_size`."""
    with reaching(path):
        from datasets import load_from_disk

        rows = load_from_disk(path)
    schema = rows.features.arrow_schema
    images = _image_column(path, dict(zip(schema.names, schema.types, strict=True)), column)
    key = _key_column(path, rows.column_names, key_column)
    name = name_of(path)
    return [
        SavedRows(f"{name}-{number:05d}", path, images, key, start, min(start + shard_size, len(rows)))
        for number, start in enumerate(range(0, len(rows), shard_size))
    ]


def _load_saved(path: str, column: str) -> Any:
    """A dataset of `save_to_disk`, its images not decoded, as that is not left to who stored them."""
    return _load_state(path, column, state(f"{path.rstrip('/')}/state.json"))


@functools.lru_cache(maxsize=4)
def _load_state(path: str, column: str, stamp: str) -> Any:
    """The dataset as its `state.json` has it, which each shard would open anew, and twice."""
    from datasets import Image, load_from_disk

    with reaching(path):
        rows = load_from_disk(path)
        return rows.cast_column(column, Image(decode=False)) if isinstance(rows.features[column], Image) else rows


def _image_column(path: str, types: dict[str, Any], wanted: str | None) -> str:
    """The column of images: binary, or what Hugging Face's `Image` is, binary `bytes` and a `path`."""
    import pyarrow

    def holds_images(kind: pyarrow.DataType) -> bool:
        if pyarrow.types.is_struct(kind):
            return "bytes" in {kind.field(index).name for index in range(kind.num_fields)}
        return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)

    listed = ", ".join(f"{name} ({kind})" for name, kind in types.items())
    if wanted is not None:
        if wanted not in types:
            raise ValueError(f"{path} has no column {wanted}; it has {listed}")
        if not holds_images(types[wanted]):
            raise ValueError(f"the column {wanted} of {path} holds {types[wanted]}, no images")
        return wanted
    fitting = [name for name, kind in types.items() if holds_images(kind)]
    if not fitting:
        raise ValueError(f"{path} has no column of images; it has {listed}")
    if len(fitting) > 1 and "image" not in fitting:
        raise ValueError(
            f"{path} has the columns {', '.join(fitting)}, each of which may hold images; --column names one"
        )
    return fitting[0] if len(fitting) == 1 else "image"


def _key_column(path: str, names: Iterable[str], wanted: str | None) -> str | None:
    names = list(names)
    if wanted is not None and wanted not in names:
        raise ValueError(f"{path} has no column {wanted}; it has {', '.join(names)}")
    return wanted or next((name for name in KEY_COLUMNS if name in names), None)


def _row_sample(value: Any, key: Any, row: int, table: str) -> Sample:
    """The image of a table's row: its bytes, or `bytes` and `path` by name, as Hugging Face's `Image` stores it."""
    path = None
    if isinstance(value, dict):
        value, path = value.get("bytes"), value.get("path")
    if key is None:
        key = f"{row:08d}" if path is None else path
    if value is None and path:  # A relative one is beside the table.
        folder = table.rpartition("/")[0] if is_address(table) else os.path.dirname(table)
        value = path if is_address(path) or os.path.isabs(path) or not folder else f"{folder}/{path}"
    return Sample(str(key), b"" if value is None else value)
