"""Shards of photos from whatever holds them: files, tars, Parquet, saved datasets, here or at an address.

A shard is what is read, computed and written as one. An address is anything that fsspec opens (`s3://`, `gs://`,
`hf://`, `https://`); a path without `://` is a local one.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from focalnet_backbone.features.images import IMAGE_SUFFIXES
from focalnet_backbone.features.to_files import plan_outputs
from focalnet_backbone.system.command_line import one_line
from focalnet_backbone.system.files import UNFINISHED

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
LIST_SUFFIXES = (".txt", ".lst")
KEY_COLUMNS = ("__key__", "key", "file_name", "id")
"""Columns of a table that name its images, the first that is there."""

_ROWS = 16
"""Rows of a table that are read at once."""


class SourceError(OSError):
    """A shard or an address cannot be read; the message says which, and why."""


@dataclass(frozen=True)
class Sample:
    """An image as it is stored: its key in the shard, and its file's content, or the address of the file."""

    key: str
    content: bytes | str


@dataclass(frozen=True)
class Shard:
    """Photos that are done as one.

    Attributes:
        name: what its output is called, without suffix.
        address: where it is read from.
    """

    name: str
    address: str

    def read(self) -> Iterator[Sample]:
        """Yield its images. Raises `SourceError` where it is broken."""
        raise NotImplementedError

    def stamp(self) -> str:
        """What says from what it is read, and that it has not changed."""
        return f"{self.address}, {_state(self.address)}"


@dataclass(frozen=True)
class ImageFiles(Shard):
    """Image files, each by its key and its address."""

    files: tuple[tuple[str, str], ...] = field(repr=False, default=())

    def read(self) -> Iterator[Sample]:
        """Yield them unopened."""
        for key, address in self.files:
            yield Sample(key, address)

    def stamp(self) -> str:
        """Of local files, also their sizes and times; of others the addresses alone."""
        digest = hashlib.sha256()
        for key, address in self.files:
            digest.update(f"{key}\n{address}\n{'' if is_address(address) else _state(address)}\n".encode())
        return f"{len(self.files)} files, {digest.hexdigest()}"


@dataclass(frozen=True)
class TarShard(Shard):
    """A tar in WebDataset's layout. An image's key is its name without the last suffix; other members are passed by."""

    def read(self) -> Iterator[Sample]:
        """Yield its images in the order in which they lie."""
        count = 0
        try:
            with open_address(self.address) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
                for member in tar:
                    path = PurePosixPath(member.name)
                    if member.isfile() and path.suffix.lower() in IMAGE_SUFFIXES:
                        yield Sample(str(path.with_suffix("")), tar.extractfile(member).read())
                        count += 1
                # A tar cut off between two members looks like one that ends there, but for the empty block.
                if self.address.endswith(".tar") and _size(self.address) < tar.offset + tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("unexpected end of data")
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise SourceError(f"{self.address} is no whole tar: {one_line(error)} after {count} images") from error


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


def find_shards(
    inputs: Sequence[str],
    *,
    shard_size: int = 1000,
    column: str | None = None,
    key_column: str | None = None,
    on_error: Callable[[Path, OSError], None] | None = None,
) -> list[Shard]:
    """The shards of all inputs, in their order, each with a name of its own.

    Args:
        inputs: images, folders, list files (`.txt`, one path or address a line), tars, Parquet files, folders of
            either, folders of `save_to_disk`, globs of any; each may be an address, with braces as in `{000..099}.tar`.
        shard_size: images of a shard where the input itself has no shards; row groups of Parquet are put together up
            to about that many.
        column: the tables' column of images; by default the one that is.
        key_column: the tables' column of keys; by default one of `KEY_COLUMNS`, else the image's path or its row.
        on_error: takes what cannot be searched, as of `find_images`.

    Raises:
        FileNotFoundError: there is nothing at an input.
        OSError: an address cannot be reached.
        ValueError: a column is not there or holds no images, or an input holds several kinds of things.
    """
    tables = {"column": column, "key_column": key_column, "shard_size": shard_size}
    shards: list[Shard] = []
    images: list[tuple[str, str]] = []
    for entry in inputs:
        for path in _expand(entry):
            kind, members = _look_into(path)
            if kind == "images":
                images += _find_image_files(path, on_error)
            elif kind == "list":
                images += _read_list(path)
            elif kind == "tar":
                shards += [TarShard(_stem(member), member) for member in members]
            elif kind == "parquet":
                for member in members:
                    shards += _cut_parquet(member, **tables)
            else:
                shards += _cut_saved(path, **tables)
    repeated = next((key for key, count in Counter(key for key, _ in images).items() if count > 1), None)
    if repeated is not None:
        raise ValueError(f"two images would be called {repeated}; name the folder that both lie in")
    for number, start in enumerate(range(0, len(images), shard_size)):
        files = tuple(images[start : start + shard_size])
        shards.append(ImageFiles(f"{number:06d}", files[0][1], files))
    return _name_apart(shards)


def are_photos(inputs: Sequence[str]) -> bool:
    """Whether all inputs are image files of this machine, folders or globs of them."""
    return all(
        not is_address(entry)
        and not (os.path.isfile(entry) and entry.lower().endswith(LIST_SUFFIXES))
        and not entry.lower().endswith((*TAR_SUFFIXES, ".parquet"))
        and not (os.path.isdir(entry) and "images" not in _kinds(entry))
        for entry in inputs
    )


def is_address(path: str) -> bool:
    """Whether it is something for fsspec, not a path on this machine."""
    return "://" in path


@contextlib.contextmanager
def open_address(path: str) -> Iterator[IO[bytes]]:
    """A file at a path or an address, to read. Raises `SourceError` for one that cannot be opened."""
    if is_address(path):
        with reaching(path):
            system, place = _filesystem(path)
            file = system.open(path if place is None else place, "rb")
    else:
        file = open(path, "rb")  # noqa: SIM115
    with file:
        yield file


@contextlib.contextmanager
def reaching(address: str) -> Iterator[None]:
    """Turns the errors of whichever library serves an address into `SourceError`, which names it."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:  # Of aiohttp, botocore, huggingface_hub, ...: each has its own.
        if isinstance(error, FileNotFoundError):
            # Web servers that don't answer are not found either, as fsspec has it.
            if not isinstance(error.__cause__, OSError) or isinstance(error.__cause__, FileNotFoundError):
                raise FileNotFoundError(f"there is nothing at {address}") from None
            error = error.__cause__
        raise SourceError(f"cannot reach {address}: {one_line(error) or type(error).__name__}") from error


def _filesystem(path: str) -> tuple[Any, str]:
    import fsspec

    return fsspec.core.url_to_fs(path)


def _state(path: str) -> str:
    if is_address(path):
        with reaching(path):
            system, place = _filesystem(path)
            return system.ukey(place)
    try:
        status = os.stat(path)
    except OSError:  # Who reads it will say so.
        return "not there"
    return f"{status.st_size} bytes of {status.st_mtime_ns}"


def _size(path: str) -> float:
    if not is_address(path):
        return os.stat(path).st_size
    system, place = _filesystem(path)
    size = system.info(place).get("size")
    return float("inf") if size is None else size


def _expand(entry: str) -> list[str]:
    """The paths that an input stands for: braces expanded, globs looked up; those of images are left as they are."""
    if is_address(entry):
        from braceexpand import braceexpand

        found: list[str] = []
        for address in braceexpand(entry):
            if not any(sign in address for sign in "*?["):
                found.append(address)
                continue
            with reaching(address):
                system, place = _filesystem(address)
                found += [system.unstrip_protocol(match) for match in sorted(system.glob(place))]
        if not found:
            raise FileNotFoundError(f"there is nothing at {entry}")
        _state(found[0])  # One that does not answer is to be known now.
        return found
    if os.path.lexists(entry) or not entry.endswith((*TAR_SUFFIXES, ".parquet", *LIST_SUFFIXES)):
        return [entry]
    import glob

    from braceexpand import braceexpand

    found = [match for path in braceexpand(entry) for match in sorted(glob.glob(path, recursive=True))]
    if not found:
        raise FileNotFoundError(f"there is nothing at {entry}")
    return found


def _look_into(path: str) -> tuple[str, list[str]]:
    """What a path holds (images, list, tar, parquet, saved), and the files if these are shards."""
    name = path.lower().rstrip("/")
    folder = _is_folder(path)
    if not folder:
        for kind, suffixes in (("tar", TAR_SUFFIXES), ("parquet", (".parquet",)), ("list", LIST_SUFFIXES)):
            if name.endswith(suffixes):
                return kind, [path]
        return "images", []
    held = _kinds(path)
    if "datasets" in held:
        raise ValueError(f"{path} holds several datasets; name one of them, such as {path.rstrip('/')}/train")
    if len(held) > 1:
        raise ValueError(f"{path} holds {' and '.join(held)}; name the files of one kind, as in {path}/*.tar")
    return next(iter(held.items()))


def _kinds(folder: str) -> dict[str, list[str]]:
    """What lies directly in a folder, by kind; a folder with none of it may have images further below."""
    members = _members(folder)
    names = {PurePosixPath(member).name for member in members}
    if {"state.json", "dataset_info.json"} <= names:
        return {"saved": []}
    if "dataset_dict.json" in names:
        return {"datasets": []}
    found = {
        "tar": sorted(member for member in members if member.lower().endswith(TAR_SUFFIXES)),
        "parquet": sorted(member for member in members if member.lower().endswith(".parquet")),
        "images": [member for member in members if PurePosixPath(member).suffix.lower() in IMAGE_SUFFIXES],
    }
    return {kind: files for kind, files in found.items() if files} or {"images": []}


def _is_folder(path: str) -> bool:
    if not is_address(path):
        return os.path.isdir(path)
    if path.lower().endswith((*TAR_SUFFIXES, ".parquet", *LIST_SUFFIXES, *IMAGE_SUFFIXES)):
        return False  # Asking a web server means reading it.
    with reaching(path):
        system, place = _filesystem(path)
        return system.isdir(place)


def _members(folder: str) -> list[str]:
    """What lies directly in a folder."""
    if not is_address(folder):
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if not entry.name.startswith((UNFINISHED, "_"))]
    with reaching(folder):
        system, place = _filesystem(folder)
        return [system.unstrip_protocol(name) for name in system.ls(place, detail=False)]


def _find_image_files(path: str, on_error: Callable[[Path, OSError], None] | None) -> list[tuple[str, str]]:
    """Key and address of the images that a path means, which may be a folder, a file, or a glob."""
    if not is_address(path):
        return [(key.as_posix(), str(image)) for image, key in plan_outputs([path], "", "", on_error).items()]
    with reaching(path):
        system, place = _filesystem(path)
        if not _is_folder(path):
            return [(PurePosixPath(place).name, path)]
        found = [name for name in sorted(system.find(place)) if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            raise FileNotFoundError(f"no image at {path}")
        return [(name[len(place.rstrip("/")) :].lstrip("/"), system.unstrip_protocol(name)) for name in found]


def _read_list(path: str) -> list[tuple[str, str]]:
    """The images that a list file names, a line each; relative paths count from the list's folder."""
    with open_address(path) as file:
        try:
            lines = [line.strip() for line in file.read().decode().splitlines()]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no list of images: {error}") from None
    lines = [line for line in lines if line]
    if not lines:
        raise ValueError(f"{path} names no images")
    folder = path.rpartition("/")[0] if is_address(path) else os.path.dirname(path)
    found = []
    for line in lines:
        absolute = is_address(line) or os.path.isabs(line)
        key = line.split("://")[-1].lstrip("/") if absolute else PurePosixPath(line).as_posix()
        found.append((key, line if absolute or not folder else f"{folder}/{line}"))
    return found


def _cut_parquet(path: str, *, column: str | None, key_column: str | None, shard_size: int) -> list[Shard]:
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
    whole = ParquetRows(_stem(path), path, images, _key_column(path, schema.names, key_column))
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


def _cut_saved(path: str, *, column: str | None, key_column: str | None, shard_size: int) -> list[Shard]:
    with reaching(path):
        from datasets import load_from_disk

        rows = load_from_disk(path)
    schema = rows.features.arrow_schema
    images = _image_column(path, dict(zip(schema.names, schema.types, strict=True)), column)
    key = _key_column(path, rows.column_names, key_column)
    name = _stem(path)
    return [
        SavedRows(f"{name}-{number:05d}", path, images, key, start, min(start + shard_size, len(rows)))
        for number, start in enumerate(range(0, len(rows), shard_size))
    ]


def _load_saved(path: str, column: str) -> Any:
    """A dataset of `save_to_disk`, its images not decoded, as that is not left to who stored them."""
    return _load_state(path, column, _state(f"{path.rstrip('/')}/state.json"))


@functools.lru_cache(maxsize=4)
def _load_state(path: str, column: str, state: str) -> Any:
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


def _stem(path: str) -> str:
    name = PurePosixPath(path.split("?")[0].rstrip("/")).name
    for suffix in (*TAR_SUFFIXES, ".parquet"):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return name or "shard"


def _name_apart(shards: list[Shard]) -> list[Shard]:
    """The shards, those numbered whose names are others' too."""
    count = Counter(shard.name.lower() for shard in shards)
    return [
        replace(shard, name=f"{number:06d}-{shard.name}") if count[shard.name.lower()] > 1 else shard
        for number, shard in enumerate(shards)
    ]
