"""Shards of photos in files and in tars: what is read, computed and written as one."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from focalnet_backbone.features.addresses import SourceError, is_address, open_address, size, state
from focalnet_backbone.features.images import IMAGE_SUFFIXES
from focalnet_backbone.system.command_line import one_line

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


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
        return f"{self.address}, {state(self.address)}"


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
            digest.update(f"{key}\n{address}\n{'' if is_address(address) else state(address)}\n".encode())
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
                if self.address.endswith(".tar") and size(self.address) < tar.offset + tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("unexpected end of data")
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise SourceError(f"{self.address} is no whole tar: {one_line(error)} after {count} images") from error


def name_of(path: str) -> str:
    """What the shards of a file or folder are called: its own name, without the suffix of a tar or a table."""
    name = PurePosixPath(path.split("?")[0].rstrip("/")).name
    for suffix in (*TAR_SUFFIXES, ".parquet"):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return name or "shard"
