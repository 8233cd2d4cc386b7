"""Training batches: detectron2's shuffles and grouping, a function of the seed and the iteration alone."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.data import get_detection_dataset_dicts
from detectron2.utils import comm

from focalnet_backbone.detectron2.datasets import read_coco, register
from focalnet_backbone.detectron2.jobs import load_job
from focalnet_backbone.detectron2.loader import BatchSampler, build_train_loader
from tests.d2.conftest import TINY


def drawn(batches) -> list[int]:
    return [index for batch in batches for _, index in batch]


def take(iterable, number: int) -> list:
    return list(itertools.islice(iterable, number))


def test_every_image_comes_once_an_epoch():
    batches = take(BatchSampler([0] * 12, batch_size=4, seed=5), 6)
    first, second = drawn(batches[:3]), drawn(batches[3:])
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second


@pytest.mark.parametrize("start", [1, 4, 17])
def test_a_later_start_gives_the_same_batches_without_the_first(start):
    groups = [i % 3 == 0 for i in range(20)]
    whole = take(BatchSampler(groups, batch_size=3, seed=1), start + 10)
    assert take(BatchSampler(groups, batch_size=3, seed=1, start=start), 10) == whole[start:]


def test_batches_hold_one_group_and_leave_no_image_out():
    groups = [i % 3 == 0 for i in range(20)]
    batches = take(BatchSampler(groups, batch_size=4, seed=2), 50)
    assert all(len({groups[index] for _, index in batch}) == 1 for batch in batches)
    counts = Counter(drawn(batches))
    assert set(counts) == set(range(20))
    assert max(counts.values()) - min(counts.values()) <= 2


def test_processes_share_the_images_of_an_epoch(monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares.append(drawn(take(BatchSampler([0] * 12, batch_size=3, seed=7), 2)))
    assert sorted(shares[0] + shares[1]) == list(range(12))


def load(sample, *, num_workers: int, start_iter: int, number: int) -> list:
    job = load_job(TINY)
    job.use_datasets(read_coco(sample / "coco" / "instances_training.json", sample / "images" / "training"), None)
    job.cfg.DATALOADER.NUM_WORKERS = num_workers
    batches = take(job.train_loader(seed=3, start_iter=start_iter), number)
    return [(image["file_name"], image["image"], image["instances"].gt_boxes.tensor) for b in batches for image in b]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_and_their_augmentation_are_the_same_wherever_loading_begins(sample, num_workers):
    whole = load(sample, num_workers=0, start_iter=0, number=6)
    np.random.seed(99)  # What was drawn before must not matter.
    resumed = load(sample, num_workers=num_workers, start_iter=2, number=4)
    assert len(resumed) == 8
    for (name, image, boxes), (expected_name, expected_image, expected_boxes) in zip(resumed, whole[4:], strict=True):
        assert name == expected_name
        assert torch.equal(image, expected_image)
        assert torch.equal(boxes, expected_boxes)
    assert len({image.shape for _, image, _ in whole}) > 1, "the augmentation must vary"


@pytest.mark.parametrize("size", [0, 3])
def test_a_batch_that_the_processes_cannot_share_is_refused(monkeypatch, size):
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match=f"batch of {size} images cannot be shared evenly by 2 processes"):
        build_train_loader([], None, size)


def test_an_empty_image_is_not_trained_on(sample, tmp_path):
    content = json.loads((sample / "coco" / "instances_training.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 1]
    (tmp_path / "some.json").write_text(json.dumps(content))
    name = register(read_coco(tmp_path / "some.json", sample / "images" / "training"))
    assert len(get_detection_dataset_dicts(name)) == 6
