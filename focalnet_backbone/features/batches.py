"""Batches of like sizes from photos of any, by a buffer that holds no more than it may."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

_MOST_PIXELS = 1 << 26
"""Pixels that wait at once: 200 MB of RGB."""


@dataclass
class Photo:
    """A decoded image on its way to the network.

    Attributes:
        key: its name within the shard.
        image: what the network will see, uint8 `(3, H, W)`.
        scale: factors of its width and height to those of the original, for boxes in pixels of that.
    """

    key: str
    image: Tensor
    scale: tuple[float, float] = (1.0, 1.0)


class SizeBuffer:
    """Puts photos of one size together.

    What comes out depends on nothing but what was put in and in which order, so that a shard done again has the same
    batches, and with them the same numbers to the last bit.

    Args:
        batch_size: photos of a full batch.
        hold: how many batches' worth of photos may wait for others of their size.
    """

    def __init__(self, batch_size: int, hold: int = 16) -> None:
        self.batch_size = batch_size
        self._most = batch_size * hold
        self._waiting: dict[tuple[int, ...], list[Photo]] = {}  # In the order in which each size began to wait.
        self._photos = self._pixels = 0

    def put(self, photo: Photo) -> Iterator[list[Photo]]:
        """Take a photo, and yield the batches that are ready or have to make room."""
        size = tuple(photo.image.shape[-2:])
        self._waiting.setdefault(size, []).append(photo)
        self._photos += 1
        self._pixels += size[0] * size[1]
        if len(self._waiting[size]) == self.batch_size:
            yield self._take(size)
        while self._photos > self._most or self._pixels > _MOST_PIXELS:
            yield self._take(next(iter(self._waiting)))

    def flush(self) -> Iterator[list[Photo]]:
        """Yield all that is left."""
        while self._waiting:
            yield self._take(next(iter(self._waiting)))

    def _take(self, size: tuple[int, ...]) -> list[Photo]:
        batch = self._waiting.pop(size)
        self._photos -= len(batch)
        self._pixels -= len(batch) * size[0] * size[1]
        return batch
