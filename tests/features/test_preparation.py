"""Photos are resized as the libraries of the test pipelines do."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from focalnet_backbone.features.preparation import resize_like_opencv


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 2), (64, 64), (101, 67), (256, 192), (200, 301)])
@pytest.mark.parametrize("wanted", [(1, 1), (5, 3), (32, 32), (100, 77), (128, 96), (199, 300)])
def test_opencv_s_resize_is_reproduced_to_the_bit(size, wanted):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = cv2.resize(image, wanted[::-1], interpolation=cv2.INTER_LINEAR)
    found = resize_like_opencv(torch.from_numpy(image).permute(2, 0, 1)[None].float(), wanted)
    np.testing.assert_array_equal(found[0].permute(1, 2, 0).numpy(), expected)
