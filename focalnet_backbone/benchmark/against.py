"""What became slower or faster since an earlier run of the benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

CASE = ("variant", "size", "batch_size", "dtype")
"""What two measurements of one case have in common."""

_NOTICED = 1.02
"""Changes of less than 2 % are none, however steady the rounds were: memory lies elsewhere in each process."""


def check_comparable(environment: dict[str, Any], earlier: dict[str, Any]) -> None:
    """Raise `ValueError` if times were taken on another processor or GPU, with other threads or another torch."""
    for what in ("device", "instruction_sets", "threads", "torch"):
        now, then = (_fact(facts, what) for facts in (environment, earlier))
        # Reports of before do not name instruction sets.
        if now != then and not (what == "instruction_sets" and then is None):
            raise ValueError(f"its times are of another machine or set-up: {what} was {then}, and is {now}")


def _fact(environment: dict[str, Any], what: str) -> Any:
    return environment["versions"].get("torch") if what == "torch" else environment.get(what)


def format_changes(cases: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> str:
    """Lines of text: each time that lies beyond the spread of the earlier one, slower ones first, with its ratio."""
    compared = list(_compare(cases, earlier))
    changes = sorted((change for change in compared if change[0]), key=lambda change: -change[0])
    lines = [
        f"  {'slower' if ratio > 1 else 'faster'} {ratio:.2f}x: {name}, {then * 1e3:.1f} ms, now {now * 1e3:.1f} ms"
        for ratio, name, then, now in changes
    ]
    title = f"{len(compared)} times compared, {len(changes)} changed beyond their spread"
    return "\n".join([title, *lines])


def _compare(cases: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> Iterator[tuple[float, str, float, float]]:
    """The ratio to the earlier time (0 if it is within the spread), what was timed, and both in seconds."""
    before = {_key(case): case for case in earlier}
    for case in cases:
        old = before.get(_key(case), {})
        height, width = case["size"]
        title = f"{case['variant']}, {case['batch_size']} x {height}x{width}, {case['dtype']}"
        for measure, entries in case.items():
            for name, entry in entries.items() if isinstance(entries, dict) else ():
                then = old.get(measure, {}).get(name)
                if isinstance(entry, dict) and "seconds" in entry and then:
                    now, then_seconds = entry["seconds"], then["seconds"]
                    ratio = now / then_seconds if _differ(entry, then) else 0.0
                    yield ratio, f"{title}, {measure}, {name}", then_seconds, now


def _key(case: dict[str, Any]) -> tuple:
    return tuple(map(str, (case[name] for name in CASE)))


def _differ(now: dict[str, Any], then: dict[str, Any]) -> bool:
    """Whether the quartiles of two times lie apart, and the medians by more than what nobody would notice."""
    (now_low, now_high), (then_low, then_high) = (e.get("spread", [e["seconds"]] * 2) for e in (now, then))
    ratio = now["seconds"] / then["seconds"]
    return (now_low > then_high and ratio > _NOTICED) or (now_high < then_low and ratio < 1 / _NOTICED)
