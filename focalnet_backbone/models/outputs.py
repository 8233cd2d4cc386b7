"""What the models return: dataclasses whose fields can also be read by key and by position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor


@dataclass(eq=False)
class ModelOutput(Mapping[str, Any]):
    """Fields as attributes, by key and by position, the latter two without the fields that are None."""

    def to_tuple(self) -> tuple:
        """The values of the fields that are not None, in order."""
        return tuple(self.values())

    def __getitem__(self, key: str | int | slice) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in list(self):
            raise KeyError(f"{type(self).__name__} has no {key!r}, only {list(self)}")
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return (field.name for field in fields(self) if getattr(self, field.name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(eq=False)
class FocalNetModelOutput(ModelOutput):
    """Result of `FocalNetModel`.

    Attributes:
        last_hidden_state: `(N, L, C)`, the last stage's map as L = H * W tokens, normalised.
        pooler_output: `(N, C)`, its mean over the tokens.
        hidden_states: `(N, L_i, C_i)` for the stem and after each stage's downsampling.
        reshaped_hidden_states: the same as maps `(N, C_i, H_i, W_i)`.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    reshaped_hidden_states: tuple[Tensor, ...] | None = None


@dataclass(eq=False)
class FocalNetImageClassifierOutput(ModelOutput):
    """Result of `FocalNetForImageClassification`.

    Attributes:
        loss: scalar, if labels were given.
        logits: `(N, num_labels)`, before softmax.
        hidden_states: `(N, L_i, C_i)` for the stem and after each stage's downsampling.
        reshaped_hidden_states: the same as maps `(N, C_i, H_i, W_i)`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    reshaped_hidden_states: tuple[Tensor, ...] | None = None


@dataclass(eq=False)
class FocalNetMaskedImageModelingOutput(ModelOutput):
    """Result of `FocalNetForMaskedImageModeling`.

    Attributes:
        loss: scalar, if a mask was given.
        reconstruction: `(N, num_channels, H, W)`, the predicted pixels.
        hidden_states: `(N, L_i, C_i)` for the stem and after each stage's downsampling.
        reshaped_hidden_states: the same as maps `(N, C_i, H_i, W_i)`.
    """

    loss: Tensor | None = None
    reconstruction: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    reshaped_hidden_states: tuple[Tensor, ...] | None = None

    @property
    def logits(self) -> Tensor | None:
        """The reconstruction, under the name that transformers' documentation reads it by."""
        return self.reconstruction
