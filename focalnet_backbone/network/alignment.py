"""Knobs of which one tells the other: outputs by name or by index, classes by number, index or name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from focalnet_backbone.system.numbers import as_int, is_int

MOST_LABELS = 1_000_000
"""What no classifier tells apart; naming them would keep the machine busy for long."""


def align_outputs(names: Sequence[str], features: Any, indices: Any) -> tuple[list[str], list[int]]:
    """`out_features` and `out_indices` from either of them, in the network's order; with neither, the last map.

    Args:
        names: what maps there are.
        features: None or names among them.
        indices: None or places among them, from the end if negative.

    Raises:
        TypeError, ValueError: one is no list, empty or of what there is not, has duplicates, or contradicts the other.
    """
    by_name = None if features is None else _named(names, features)
    by_index = None if indices is None else _counted(names, indices)
    for knob, given, found in (("out_features", features, by_name), ("out_indices", indices, by_index)):
        if found is not None and len(set(found)) != len(found):
            raise ValueError(f"{knob} has duplicates: {list(given)}")
        if found is not None and not found:
            raise ValueError(f"{knob} is empty; valid names are {list(names)}")
    if by_name is not None and by_index is not None and sorted(by_name) != sorted(by_index):
        raise ValueError(
            f"out_features={list(features)} and out_indices={list(indices)} contradict each other (indices count in "
            f"{list(names)}); give one of them"
        )
    chosen = sorted(by_name or by_index or [len(names) - 1])
    return [names[i] for i in chosen], chosen


def _named(names: Sequence[str], features: Any) -> list[int]:
    if isinstance(features, str) or not isinstance(features, Iterable):
        raise TypeError(f"out_features must be a list of names, got {features!r}")
    features = list(features)
    unknown = [name for name in features if name not in names]
    if unknown:
        raise ValueError(f"out_features has {unknown}, which are not among {list(names)}")
    return [names.index(name) for name in features]


def _counted(names: Sequence[str], indices: Any) -> list[int]:
    if isinstance(indices, str) or not isinstance(indices, Iterable):
        raise TypeError(f"out_indices must be a list of ints, got {indices!r}")
    indices = list(indices)
    unknown = [i for i in indices if not is_int(i) or not -len(names) <= i < len(names)]
    if unknown:
        raise ValueError(f"out_indices has {unknown}, valid are 0 to {len(names) - 1}, counting in {list(names)}")
    return [int(i) % len(names) for i in indices]


def align_labels(num_labels: Any, id2label: Any, label2id: Any) -> tuple[int, dict[int, str], dict[str, int]]:
    """`num_labels`, `id2label` and `label2id` from those of them that are given; 2 classes without names if none is.

    Raises:
        TypeError, ValueError: one is of another type, numbers its classes with a gap, or contradicts another.
    """
    for name, given in (("id2label", id2label), ("label2id", label2id)):
        if not isinstance(given, (Mapping, type(None))):
            raise TypeError(f"{name} must be a dict, got {given!r}")
    if id2label is None and label2id is not None:
        id2label = {index: label for label, index in label2id.items()}
        if len(id2label) < len(label2id):
            raise ValueError(f"label2id must give each class an index of its own, got {label2id!r}")
    if id2label is None:
        num_labels = as_int("num_labels", 2 if num_labels is None else num_labels, minimum=0)
        if num_labels > MOST_LABELS:
            raise ValueError(f"num_labels must be at most {MOST_LABELS}, got {num_labels}")
        id2label = {i: f"LABEL_{i}" for i in range(num_labels)}
    if not all(str(index).isdecimal() for index in id2label):
        raise ValueError(f"id2label must have class indices for keys, got {id2label!r}")
    # JSON has strings for keys.
    id2label = {int(index): label for index, label in id2label.items()}
    if sorted(id2label) != list(range(len(id2label))):
        raise ValueError(f"id2label must number the classes from 0 without a gap, got {sorted(id2label)}")
    if num_labels is not None and len(id2label) != num_labels:
        raise ValueError(f"num_labels={num_labels}, but id2label has {len(id2label)} entries")
    if label2id is None:
        label2id = {label: index for index, label in id2label.items()}
    return len(id2label), id2label, {label: int(index) for label, index in label2id.items()}
