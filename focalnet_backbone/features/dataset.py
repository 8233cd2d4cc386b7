"""Shards of features as datasets of torch: any row by its number, or all in their order."""

from __future__ import annotations

import bisect
import contextlib
import io
import itertools
import mmap
import tarfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from focalnet_backbone.features.addresses import is_address
from focalnet_backbone.features.manifests import DESCRIPTION, MANIFESTS
from focalnet_backbone.features.pyramid import FeaturePyramid
from focalnet_backbone.features.shard_job import FORMAT
from focalnet_backbone.features.sinks import Layout
from focalnet_backbone.features.store import Store
from focalnet_backbone.system.inputs import parse_json

_OPEN = 8
"""Shards that are held open at once."""


class FeatureDataset(Dataset):
    """The rows of a folder of shards that `focalnet extract` wrote, by number.

    A row is a dict: `key`, `height` and `width` of what the network saw, with boxes `box_id`, `category_id` and `box`
    (x, y, width, height in pixels of the photo), and for each map a tensor by its name, `(C, H, W)` or pooled `(C,)`.
    Of Arrow files and tars, which are mapped into memory, nothing but the row is read; of Parquet its row group.

    Args:
        address: the folder, or its address; of that, shards are fetched when a row of theirs is asked for.

    Attributes:
        layout: what a row holds: the maps' channels and strides, how they are pooled, their type.
        settings: the variant, the weights and what else the command line was given that features depend on.

    Raises:
        FileNotFoundError: there are no features.
        ValueError: they are damaged.
    """

    def __init__(self, address: str | Path) -> None:
        self.layout, self.settings, self._store, self._shards = _look_up(address)
        self._ends = list(itertools.accumulate(shard["rows"] for shard in self._shards))
        self._open: OrderedDict[int, tuple[contextlib.ExitStack, Any]] = OrderedDict()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        index %= len(self)
        shard = bisect.bisect_right(self._ends, index)
        return self._reader(shard)[index - (self._ends[shard] - self._shards[shard]["rows"])]

    def __getstate__(self) -> dict[str, Any]:
        # What is open stays behind when workers of a DataLoader are started.
        return {**self.__dict__, "_open": OrderedDict()}

    def stack(self, name: str) -> Tensor:
        """A pooled map of all rows, `(N, C)`, as search by neighbours needs it.

        Raises `KeyError` if there is no such map, `ValueError` if it is not pooled.
        """
        if name not in self.layout.channels:
            raise KeyError(f"no map {name!r}; there are {list(self.layout.channels)}")
        if self.layout.pool == "none":
            raise ValueError(f"{name} is not pooled, its sizes differ; take the rows one by one")
        rows = [row[name] for row in self]
        return torch.stack(rows) if rows else torch.empty(0, self.layout.channels[name])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def _reader(self, shard: int) -> Any:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard][1]
        while len(self._open) >= _OPEN:
            self._open.popitem(last=False)[1][0].close()
        stack = contextlib.ExitStack()
        self._open[shard] = stack, stack.enter_context(_reading(self._store, self.layout, self._shards[shard]))
        return self._open[shard][1]


class FeatureStream(IterableDataset):
    """The rows of `FeatureDataset` in order, shard by shard, for data that is larger than memory or far away.

    The workers of a `DataLoader`, and the ranks of `torch.distributed`, take different shards.

    Args:
        address: the folder, or its address.

    Raises as `FeatureDataset` does.
    """

    def __init__(self, address: str | Path) -> None:
        self.layout, self.settings, self._store, self._shards = _look_up(address)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        worker = get_worker_info()
        if worker is not None:
            rank, ranks = rank * worker.num_workers + worker.id, ranks * worker.num_workers
        for shard in self._shards[rank::ranks]:
            with _reading(self._store, self.layout, shard) as rows:
                for index in range(len(rows)):
                    yield rows[index]


def _look_up(address: str | Path) -> tuple[Layout, dict[str, Any], Store, list[dict[str, Any]]]:
    """What the rows hold, what they were made with, where they are, and the shards' manifests."""
    store = Store(address)
    content = store.read(DESCRIPTION)
    if content is None:
        local = not is_address(str(address)) and Path(address).is_dir()
        pyramids = local and any(Path(address).rglob("*.safetensors"))
        cure = "; FeaturePyramid.load reads its files, each of a photo" if pyramids else ""
        raise FileNotFoundError(f"there are no shards of features at {address}{cure}")
    try:
        found = parse_json(content)
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']}")
        layout = Layout(**{name: found[name] for name in Layout.__dataclass_fields__})
        names = [name for name in store.names(MANIFESTS) if name.endswith(".json")]
        shards = [parse_json(store.read(f"{MANIFESTS}/{name}") or b"") for name in names]
        shards = [{"file": shard["file"], "rows": int(shard["rows"])} for shard in shards]
        return layout, dict(found["settings"]), store, shards
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{address} holds damaged features: {error!r}") from None


@contextlib.contextmanager
def _reading(store: Store, layout: Layout, shard: dict[str, Any]) -> Iterator[Any]:
    with store.local(shard["file"]) as path, contextlib.closing(_READERS[layout.kind](path, layout)) as rows:
        if len(rows) != shard["rows"]:
            raise ValueError(f"{path} holds {len(rows)} rows, where {shard['rows']} were written")
        yield rows


class _Rows:
    """The rows of one shard."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.layout = layout

    def close(self) -> None:
        """Let go of the file."""


class _Tables(_Rows):
    """Of Parquet and Arrow; one row group, or batch, is held."""

    def __init__(self, path: Path, layout: Layout) -> None:
        super().__init__(path, layout)
        import pyarrow as pa
        import pyarrow.parquet as pq

        if layout.kind == "parquet":
            self._file = pq.ParquetFile(path, memory_map=True)
            counts = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        else:
            self._map = pa.memory_map(str(path))
            self._file = pa.ipc.open_file(self._map)
            counts = [self._file.get_batch(batch).num_rows for batch in range(self._file.num_record_batches)]
        self._ends = list(itertools.accumulate(counts))
        self._held: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        group = bisect.bisect_right(self._ends, index)
        if self._held[0] != group:
            one = self._file.read_row_group if self.layout.kind == "parquet" else self._file.get_batch
            self._held = group, one(group)
        table = self._held[1]
        at = index - (self._ends[group - 1] if group else 0)
        row = {}
        for name in table.schema.names:
            if name in self.layout.channels:
                value = torch.tensor(table[name][at].values.to_numpy(zero_copy_only=False))
                pooled = self.layout.pool != "none"
                row[name] = value if pooled else value.reshape(table[f"{name}_shape"][at].as_py())
            elif not name.endswith("_shape"):
                row[name] = table[name][at].as_py()
        return row

    def close(self) -> None:
        """Let go of the file."""
        self._held = (-1, None)
        if self.layout.kind == "parquet":
            self._file.close()
        else:
            self._map.close()


class _Tar(_Rows):
    """Of tars, by where each member lies."""

    def __init__(self, path: Path, layout: Layout) -> None:
        super().__init__(path, layout)
        self._samples: dict[str, dict[str, tuple[int, int]]] = {}
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, slash, name = member.name.rpartition("/")
                key, _, kind = name.partition(".")
                place = member.offset_data, member.offset_data + member.size
                self._samples.setdefault(folder + slash + key, {})[kind] = place
        self._order = list(self._samples)
        with open(path, "rb") as file:
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        places = self._samples[self._order[index]]
        begin, end = places["json"]
        row = parse_json(self._content[begin:end])
        for name in self.layout.channels:
            begin, end = places[f"{name}.npy"]
            row[name] = torch.from_numpy(np.load(io.BytesIO(self._content[begin:end]), allow_pickle=False))
        return row

    def close(self) -> None:
        """Let go of the file."""
        self._content.close()


class _Zarr(_Rows):
    """Of Zarr groups, one size after the other."""

    def __init__(self, path: Path, layout: Layout) -> None:
        super().__init__(path, layout)
        import zarr

        group = zarr.open_group(path, mode="r")
        self._sizes = [(dict(part.attrs)["rows"], part) for _, part in sorted(group.groups())]
        self._ends = list(itertools.accumulate(len(facts) for facts, _ in self._sizes))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        size = bisect.bisect_right(self._ends, index)
        facts, part = self._sizes[size]
        at = index - (self._ends[size] - len(facts))
        return dict(facts[at]) | {name: torch.from_numpy(part[name][at]) for name in self.layout.channels}


class _Files(_Rows):
    """Of folders of safetensors, by name."""

    def __init__(self, path: Path, layout: Layout) -> None:
        super().__init__(path, layout)
        self._paths = sorted(path.rglob("*.safetensors"))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pyramid = FeaturePyramid.load(self._paths[index])
        height, width = pyramid.image_size
        return {"key": pyramid.metadata["source"], "height": height, "width": width, **pyramid}


_READERS = {"parquet": _Tables, "arrow": _Tables, "wds": _Tar, "zarr": _Zarr, "files": _Files}
