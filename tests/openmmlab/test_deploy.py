"""What of a segmenter can be exported."""

from __future__ import annotations

import pytest

from focalnet_backbone.export.sources import open_exportable
from tests.openmmlab.conftest import SAMPLE_CONFIG


def test_a_whole_segmenter_is_refused_and_its_backbone_offered():
    with pytest.raises(ValueError, match=r"upernet_focalnet_sample\.py: whole .* cannot be exported; --backbone"):
        open_exportable(str(SAMPLE_CONFIG), "iter_4.pth")
