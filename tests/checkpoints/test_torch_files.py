"""PyTorch's files: nothing in them is run, damage does not go unseen, and no file asks for more than it has."""

from __future__ import annotations

import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.checkpoints.files import read_file
from tests.checkpoints.hostile import HOSTILE

SUFFIXES = (".pth", ".safetensors", ".bin", ".pkl", ".ckpt")
WEIGHTS = {"a": torch.arange(300.0), "b": torch.arange(12).reshape(3, 4)}


@pytest.mark.parametrize("reached", ["by its path", "by a link"])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", HOSTILE)
def test_code_in_a_file_is_refused_in_one_line_and_not_run(tmp_path, kind, suffix, reached):
    marker, path = tmp_path / "code_was_run", tmp_path / f"weights{suffix}"
    HOSTILE[kind](path, marker)
    if reached == "by a link":
        path = path.rename(tmp_path / "elsewhere")
        (tmp_path / f"link{suffix}").symlink_to(path)
        path = tmp_path / f"link{suffix}"
    with pytest.raises(CheckpointError) as error:
        read_file(path)
    assert not marker.exists()
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)


def test_code_is_refused_even_where_pytorch_is_told_to_load_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    HOSTILE["zip"](tmp_path / "weights.pth", tmp_path / "code_was_run")
    with pytest.raises(CheckpointError, match=r"asks for posix\.mkdir"):
        read_file(tmp_path / "weights.pth")
    assert not (tmp_path / "code_was_run").exists()


def overlapping() -> torch.Tensor:
    return torch.zeros(100_000).as_strided((50_000, 50_000), (1, 1))


BOMBS = {
    "a value repeated": lambda: torch.zeros(1).expand(100_000, 100_000),
    "rows that overlap": overlapping,
    "names of the same": lambda: {str(i): torch.zeros(1).expand(1 << 20) for i in range(20)},
    "sparse": lambda: torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (10**5, 10**5)),
    "without values": lambda: torch.empty(10**5, 10**5, device="meta"),
    "a tensor by its size": lambda: Call(torch.Tensor, (10**5, 10**5)),
    "bytes by their number": lambda: Call(bytearray, (10**11,)),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
}


class Call:
    """Pickles into a call."""

    def __init__(self, function, arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.filterwarnings("ignore:.*parse invariant", "ignore:.*uantiz", "ignore:.*TypedStorage")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_that_asks_for_gigabytes_is_refused(tmp_path, bomb, zipped):
    path = tmp_path / "weights.pth"
    torch.save({"model": BOMBS[bomb]()}, path, _use_new_zipfile_serialization=zipped)
    assert path.stat().st_size < 10**6
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        read_file(path)


def test_tensors_that_share_memory_are_read(tmp_path):
    tied = torch.randn(64, 64)
    torch.save({"model": {"a": tied, "b": tied, "c": tied.T, "d": tied[:2]}, "ema": {"a": tied}}, tmp_path / "tied.pth")
    content = read_file(tmp_path / "tied.pth")
    assert torch.equal(content["model"]["c"], tied.T)
    assert torch.equal(content["ema"]["a"], tied)


def test_attributes_that_a_file_gives_to_a_dict_do_not_stand_before_its_methods(tmp_path):
    class Shadowed:
        def __reduce__(self):
            return OrderedDict, (), {"items": 5}, None, iter({"a": torch.zeros(2)}.items())

    torch.save(Shadowed(), tmp_path / "weights.pth")
    assert dict(read_file(tmp_path / "weights.pth").items()).keys() == {"a"}


def test_a_compressed_zip_is_called_one_and_not_damaged(tmp_path):
    torch.save(WEIGHTS, tmp_path / "weights.pth")
    with (
        zipfile.ZipFile(tmp_path / "weights.pth") as stored,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    with pytest.raises(CheckpointError, match=r"small\.pth is a compressed zip .*zip -0"):
        read_file(tmp_path / "small.pth")


def test_another_zip_is_called_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(CheckpointError, match=r"is a zip, but not of torch\.save"):
        read_file(tmp_path / "weights.pth")


def test_a_file_that_was_saved_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(WEIGHTS, tmp_path / "weights.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_file(tmp_path / "weights.pth")["a"], WEIGHTS["a"])


def saved(suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"weights{suffix}")
        (save_file if suffix == ".safetensors" else torch.save)(WEIGHTS, path)
        return path.read_bytes()


WHOLE = {suffix: saved(suffix) for suffix in (".pth", ".safetensors")}


def read_bytes(content: bytes) -> dict | None:
    """What a file with these bytes holds; None if it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights")
        path.write_bytes(content)
        try:
            found = read_file(path)
        except CheckpointError:
            return None
        return {name: tensor.clone() for name, tensor in found.items()}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, len(WHOLE[".pth"]) - 1), st.integers(0, 7))
def test_a_flipped_bit_of_a_pth_is_refused_or_changes_nothing(position, bit):
    damaged = bytearray(WHOLE[".pth"])
    damaged[position] ^= 1 << bit
    found = read_bytes(bytes(damaged))
    if found is not None:
        assert found.keys() == WEIGHTS.keys()
        assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


@pytest.mark.parametrize("suffix", WHOLE)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(suffix, data):
    whole = WHOLE[suffix]
    assert read_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, len(WHOLE[".pth"]) - 1), st.binary(min_size=1, max_size=64))
def test_bytes_put_over_others_in_a_pth_are_refused_or_change_nothing(position, other):
    damaged = (WHOLE[".pth"][:position] + other + WHOLE[".pth"][position + len(other) :])[: len(WHOLE[".pth"])]
    found = read_bytes(damaged)
    if found is not None:
        assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)
