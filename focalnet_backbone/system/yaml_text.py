"""YAML that a reader can be given without fear for its memory or its stack."""

from __future__ import annotations

import yaml

LARGEST = 1 << 20
"""Bytes of the largest YAML that is read; the lists of a thousand classes' names are a tenth of it."""
MOST_VALUES = 100_000
"""Values that a YAML may stand for once its aliases are written out."""
DEEPEST = 50
"""Levels that a YAML may be nested."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_yaml(text: str) -> None:
    """Raise `ValueError` unless a YAML is of a config's size, with its aliases written out; none of it is made.

    A few lines of aliases to aliases ("billion laughs") stand for more values than there is memory for, as soon as
    somebody copies them.

    Raises `yaml.YAMLError` if it is no YAML.
    """
    if len(text) > LARGEST:
        raise ValueError(f"it has {len(text)} characters, and a config of more than {LARGEST} is not read")
    sizes: dict[str, int] = {}
    anchors: list[str | None] = [None]
    counts = [0]
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            anchors.append(event.anchor)
            counts.append(1)
        elif isinstance(event, yaml.CollectionEndEvent):
            count, anchor = counts.pop(), anchors.pop()
            counts[-1] += count
            if anchor:
                sizes[anchor] = count
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in anchors:
                raise ValueError(f"*{event.anchor} contains itself")
            counts[-1] += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            counts[-1] += 1
        if len(counts) > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        if sum(counts) > MOST_VALUES:
            raise ValueError(f"with its aliases written out, it has more than {MOST_VALUES} values")
