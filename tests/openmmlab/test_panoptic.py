"""Panoptic quality where panopticapi is missing: a case worked out by hand, and torchmetrics' own matching."""

from __future__ import annotations

import json
from pathlib import Path

import focalnet_backbone.openmmlab  # noqa: F401  # isort: skip  (lets mmdet be imported)
import numpy as np
import pytest
import torch
from mmdet.evaluation import INSTANCE_OFFSET, CocoPanopticMetric
from panopticapi import evaluation, utils
from PIL import Image
from torchmetrics.detection import PanopticQuality

META = {"classes": ("cat", "dog", "sky"), "thing_classes": ("cat", "dog"), "stuff_classes": ("sky",)}
CATEGORIES = [
    {"id": 10 * (i + 1), "name": name, "isthing": int(name != "sky")} for i, name in enumerate(META["classes"])
]


def write_truth(folder: Path, segments: np.ndarray, labels: dict[int, int], crowds: tuple[int, ...] = ()) -> None:
    """A COCO panoptic file of one image: segment ids of each pixel (0 is void), and the class of each id."""
    (folder / "masks").mkdir()
    Image.fromarray(utils.id2rgb(segments)).save(folder / "masks" / "1.png")
    info = [
        {
            "id": segment,
            "category_id": CATEGORIES[label]["id"],
            "iscrowd": int(segment in crowds),
            "area": int((segments == segment).sum()),
        }
        for segment, label in labels.items()
    ]
    height, width = segments.shape
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": height, "width": width}],
        "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": info}],
        "categories": CATEGORIES,
    }
    (folder / "truth.json").write_text(json.dumps(content))


def evaluate(folder: Path, predicted: np.ndarray) -> dict[str, float]:
    """mmdetection's metric for a map of `label + 1000 * instance`, where label 3 is void."""
    metric = CocoPanopticMetric(str(folder / "truth.json"), str(folder / "masks"), classwise=True, nproc=1)
    metric.dataset_meta = META
    sample = {
        "img_id": 1,
        "img_path": "1.jpg",
        "ori_shape": predicted.shape,
        "pred_panoptic_seg": {"sem_seg": torch.from_numpy(predicted.copy())[None]},
    }
    metric.process({}, [sample])
    return metric.evaluate(1)


def test_the_quality_is_that_of_a_case_worked_out_by_hand(tmp_path):
    truth = np.zeros((4, 10), np.int64)
    truth[0] = 1  # A cat of 10 pixels, of which 8 are found.
    truth[1, :6] = 2  # A cat that nobody finds.
    truth[1, 6:] = 4  # A crowd of cats.
    truth[2:, :5] = 3  # Sky, found without an error: IoU 1.
    # The rest is void.
    write_truth(tmp_path, truth, {1: 0, 2: 0, 3: 2, 4: 0}, crowds=(4,))
    found = np.full((4, 10), 3, np.int64)
    found[0, :8] = 0 + INSTANCE_OFFSET
    found[3, 8:] = 0 + INSTANCE_OFFSET  # On void, where it costs nothing: IoU 8 / 10.
    found[1, 6:] = 0 + 2 * INSTANCE_OFFSET  # A cat in the crowd: neither right nor wrong.
    found[2:, :5] = 2
    found[1, :3] = 1  # A dog that is none.
    found[2:, 6:8] = 1 + INSTANCE_OFFSET  # Another, on void alone: not counted.

    results = evaluate(tmp_path, found)

    # Cats: one of two found. PQ 0.8 / (1 + 0.5). Dogs: one found that is none. Sky: 1.
    cat, dog, sky = 0.8 / 1.5, 0.0, 1.0
    assert results["coco_panoptic/PQ"] == pytest.approx(100 * (cat + dog + sky) / 3)
    assert results["coco_panoptic/PQ_th"] == pytest.approx(100 * (cat + dog) / 2)
    assert results["coco_panoptic/PQ_st"] == pytest.approx(100 * sky)
    assert results["coco_panoptic/SQ_th"] == pytest.approx(100 * 0.8 / 2)
    assert results["coco_panoptic/RQ"] == pytest.approx(100 * (1 / 1.5 + 0 + 1) / 3)


def test_without_crowds_and_void_it_is_torchmetrics_own(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 7, (6, 6)).repeat(8, 0).repeat(8, 1)
    labels = {segment: segment % 3 if segment < 6 else 2 for segment in range(1, 7)}
    labels[2] = 1  # Of stuff there is one segment an image.
    labels[5] = 0
    labels[6] = 2
    write_truth(tmp_path, truth, labels)
    noisy = np.where(rng.random(truth.shape) < 0.3, np.roll(truth, 5, 1), truth)
    classes = np.vectorize(labels.get)
    found = classes(noisy) + INSTANCE_OFFSET * np.where(classes(noisy) == 2, 0, noisy)

    results = evaluate(tmp_path, found)

    metric = PanopticQuality({0, 1}, {2}, return_sq_and_rq=True)

    def stack(label, instance):
        return torch.from_numpy(np.stack([label, np.where(label == 2, 0, instance)], -1))[None]

    pq, sq, rq = metric(stack(found % INSTANCE_OFFSET, found // INSTANCE_OFFSET), stack(classes(truth), truth))
    assert 0 < pq < 1
    for name, value in {"PQ": pq, "SQ": sq, "RQ": rq}.items():
        assert results[f"coco_panoptic/{name}"] == pytest.approx(100 * float(value))


def test_nothing_at_all_has_quality_0():
    means, by_category = evaluation.PQStat().pq_average({category["id"]: category for category in CATEGORIES}, None)
    assert means == {"pq": 0.0, "sq": 0.0, "rq": 0.0, "n": 0}
    assert by_category[10] == {"pq": 0.0, "sq": 0.0, "rq": 0.0}


def test_sums_of_processes_add_up():
    total = evaluation.PQStat()
    for iou in (0.6, 0.9):
        part = evaluation.PQStat()
        part[10].tp += 1
        part[10].iou += iou
        part[20].fp += 1
        total += part
    means, by_category = total.pq_average({category["id"]: category for category in CATEGORIES}, True)
    assert by_category[10]["sq"] == pytest.approx(0.75)
    assert means["pq"] == pytest.approx(0.375)
    assert means["n"] == 2


def test_colours_and_ids_are_each_other_s_inverse():
    ids = np.array([[0, 255, 256], [65535, 65536, 256**3 - 1]])
    colours = utils.id2rgb(ids)
    assert colours.shape == (2, 3, 3)
    assert colours[1, 1].tolist() == utils.id2rgb(65536) == [0, 0, 1]
    assert np.array_equal(utils.rgb2id(colours), ids)
    assert utils.rgb2id([1, 2, 3]) == 1 + 2 * 256 + 3 * 256**2


def test_what_is_not_lent_says_so_when_it_is_called():
    from panopticapi.evaluation import pq_compute

    with pytest.raises(NotImplementedError, match="pq_compute needs panopticapi itself"):
        pq_compute()
