"""Shards of photos from whatever holds them: files, tars, Parquet, saved datasets, here or at an address."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from focalnet_backbone.features.addresses import (
    filesystem,
    is_address,
    members_of,
    open_address,
    reaching,
    state,
)
from focalnet_backbone.features.image_shards import TAR_SUFFIXES, ImageFiles, Shard, TarShard, name_of
from focalnet_backbone.features.images import IMAGE_SUFFIXES
from focalnet_backbone.features.tables import cut_parquet, cut_saved
from focalnet_backbone.features.to_files import plan_outputs

LIST_SUFFIXES = (".txt", ".lst")
UNREAD_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".zip", ".npy", ".npz", ".h5", ".hdf5", ".pkl", ".arrow")
"""Endings of files that hold or name images in ways that are not read, and that are no images for sure."""


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
                shards += [TarShard(name_of(member), member) for member in members]
            elif kind == "parquet":
                for member in members:
                    shards += cut_parquet(member, **tables)
            else:
                shards += cut_saved(path, **tables)
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
        and not (os.path.isfile(entry) and entry.lower().endswith((*LIST_SUFFIXES, *UNREAD_SUFFIXES)))
        and not entry.lower().endswith((*TAR_SUFFIXES, ".parquet"))
        and not (os.path.isdir(entry) and "images" not in _kinds(entry))
        for entry in inputs
    )


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
                system, place = filesystem(address)
                found += [system.unstrip_protocol(match) for match in sorted(system.glob(place))]
        if not found:
            raise FileNotFoundError(f"there is nothing at {entry}")
        state(found[0])  # One that does not answer is to be known now.
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
        if name.endswith(UNREAD_SUFFIXES):
            raise ValueError(
                f"{path} cannot be read: images lie in folders, tars or Parquet, or are listed a line each in a .txt"
            )
        return "images", []
    held = _kinds(path)
    if "datasets" in held:
        raise ValueError(f"{path} holds several datasets; name one of them, such as {path.rstrip('/')}/train")
    if len(held) > 1:
        raise ValueError(f"{path} holds {' and '.join(held)}; name the files of one kind, as in {path}/*.tar")
    return next(iter(held.items()))


def _kinds(folder: str) -> dict[str, list[str]]:
    """What lies directly in a folder, by kind; a folder with none of it may have images further below."""
    members = members_of(folder)
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
        system, place = filesystem(path)
        return system.isdir(place)


def _find_image_files(path: str, on_error: Callable[[Path, OSError], None] | None) -> list[tuple[str, str]]:
    """Key and address of the images that a path means, which may be a folder, a file, or a glob."""
    if not is_address(path):
        return [(key.as_posix(), str(image)) for image, key in plan_outputs([path], "", "", on_error).items()]
    with reaching(path):
        system, place = filesystem(path)
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


def _name_apart(shards: list[Shard]) -> list[Shard]:
    """The shards, those numbered whose names are others' too."""
    count = Counter(shard.name.lower() for shard in shards)
    return [
        replace(shard, name=f"{number:06d}-{shard.name}") if count[shard.name.lower()] > 1 else shard
        for number, shard in enumerate(shards)
    ]
