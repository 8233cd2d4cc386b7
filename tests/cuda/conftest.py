"""Which device a test runs on. What can be is checked on the CPU too, so that the checks are known to run.

The tests here need torch and pytest, and those of `test_peers.py` timm and transformers. On another machine than this
project's own: `python -m pytest tests/cuda --confcutdir tests/cuda`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

ON_GPU = pytest.param("cuda", marks=pytest.mark.cuda)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a GPU where there is none; pytest tells how many those are."""
    if torch.cuda.is_available():
        return
    absent = [item for item in items if item.get_closest_marker("cuda")]
    config.hook.pytest_deselected(items=absent)
    items[:] = [item for item in items if item not in absent]


@pytest.fixture(params=["cpu", ON_GPU])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and the GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture
def gpu() -> torch.device:
    """The GPU, for tests with the mark `cuda`."""
    return torch.device("cuda")


@pytest.fixture(autouse=True)
def _as_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Float32 is float32, and not TF32; low precision is what the CPU computes in too."""
    monkeypatch.setenv("FOCALNET_CPU_AUTOCAST", "on")
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before
