"""The modules `panopticapi`, `panopticapi.evaluation` and `panopticapi.utils`, where that package is missing.

It is on no package index, and mmdetection's panoptic datasets and metric import from it. They match segments by
themselves and leave three things to it: colours of segment ids, sums by category, and their average, which is
torchmetrics' panoptic quality (arXiv 1801.00868) here. Any other name is a function that raises `NotImplementedError`.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch

OFFSET = 256**3
VOID = 0
_PLACES = np.array([1, 256, 256**2])


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """A stand-in for what is not here."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"{name} needs panopticapi itself: pip install git+https://github.com/cocodataset/panopticapi.git"
        )

    return missing


def rgb2id(color: np.ndarray | Sequence[int]) -> np.ndarray | int:
    """Segment ids `(H, W)` of an RGB image `(H, W, 3)`, or the id of one colour."""
    ids = np.asarray(color, np.int64) @ _PLACES
    return ids if ids.ndim else int(ids)


def id2rgb(id_map: np.ndarray | int) -> np.ndarray | list[int]:
    """The RGB image `(H, W, 3)` uint8 of segment ids `(H, W)`, or the colour of one id."""
    colors = (np.asarray(id_map, np.int64)[..., None] // _PLACES % 256).astype(np.uint8)
    return colors if isinstance(id_map, np.ndarray) else colors.tolist()


@dataclass
class PQStatCat:
    """Sums of one category: IoU of the matched segments, their number, and the segments without a match."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: PQStatCat) -> PQStatCat:
        self.iou += other.iou
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn
        return self


class PQStat:
    """Sums by category id, and the panoptic quality that they amount to."""

    def __init__(self) -> None:
        self.pq_per_cat: dict[int, PQStatCat] = defaultdict(PQStatCat)

    def __getitem__(self, category: int) -> PQStatCat:
        return self.pq_per_cat[category]

    def __iadd__(self, other: PQStat) -> PQStat:
        for category, sums in other.pq_per_cat.items():
            self.pq_per_cat[category] += sums
        return self

    def pq_average(
        self, categories: Mapping[int, Mapping[str, Any]], isthing: bool | None
    ) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """Panoptic, segmentation and recognition quality from 0 to 1.

        Args:
            categories: COCO's categories by id.
            isthing: only those that are things, only those that are not, or all (None).

        Returns:
            `{"pq", "sq", "rq", "n"}`, the averages over the n categories that occur; and the first three by category.
        """
        chosen = [i for i, info in categories.items() if isthing is None or (info["isthing"] == 1) == isthing]
        names = ("pq", "sq", "rq")
        by_category = {}
        for category, values in zip(chosen, self._qualities(chosen), strict=True):
            by_category[category] = dict(zip(names, values, strict=True))
        occurring = [i for i in chosen if self[i].tp + self[i].fp + self[i].fn]
        means = {name: np.mean([by_category[i][name] for i in occurring]) if occurring else 0.0 for name in names}
        return {name: float(mean) for name, mean in means.items()} | {"n": len(occurring)}, by_category

    def _qualities(self, categories: list[int]) -> Iterator[list[float]]:
        from torchmetrics.detection import PanopticQuality

        if not categories:
            return
        metric = PanopticQuality(set(categories), set(), return_sq_and_rq=True, return_per_class=True)
        # Its own matching knows no crowds; mmdetection has matched with them.
        for state, sums in (
            ("iou_sum", "iou"),
            ("true_positives", "tp"),
            ("false_positives", "fp"),
            ("false_negatives", "fn"),
        ):
            values = [getattr(self[category], sums) for category in categories]
            setattr(metric, state, torch.tensor(values, dtype=torch.float64))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # That it has not matched itself.
            yield from metric.compute().reshape(-1, 3).tolist()
