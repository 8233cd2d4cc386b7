"""Downloads: fetched once, resumed, verified, and explained when they fail; from a web server and a hub run here."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save

from focalnet_backbone.checkpoints import CheckpointError, load_checkpoint
from focalnet_backbone.checkpoints.download import download
from focalnet_backbone.create import create_backbone
from focalnet_backbone.network import variants
from tests.checkpoints.families import backbone, shrunk, transformers_model
from tests.checkpoints.server import FileServer

CONTENT = save(backbone().state_dict())
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The folder of torch.hub's cache, not there yet, that the server's files go to."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "torch" / "checkpoints" / "127.0.0.1"


@pytest.fixture
def server(cache, monkeypatch) -> Iterator[FileServer]:
    """A web server that has the backbone's weights, and is the hub too."""
    with FileServer({"/weights.pth": CONTENT}).running() as server:
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield server


@pytest.fixture
def offline(monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def assert_loads(source: str) -> None:
    model = backbone(depths=[1, 1, 1, 1])
    with torch.no_grad():
        model.patch_embed.proj.weight.zero_()
    load_checkpoint(model, source)
    assert torch.equal(model.patch_embed.proj.weight, backbone().patch_embed.proj.weight)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_an_address_is_fetched_once_into_torch_hubs_cache(server, cache):
    assert_loads(f"{server.address}/weights.pth")
    assert_loads(f"{server.address}/weights.pth")
    assert files(cache) == ["weights.pth"]
    assert len(server.requests) == 1


def test_a_connection_that_breaks_again_and_again_is_taken_up_where_it_broke(server, cache):
    server.cut_after = len(CONTENT) // 3
    assert_loads(f"{server.address}/weights.pth")
    assert files(cache) == ["weights.pth"]
    ranges = [wanted for _, _, wanted in server.requests if wanted]
    assert ranges[0] == f"bytes={server.cut_after}-"


def test_a_later_call_goes_on_with_what_an_earlier_one_got(server, cache):
    server.cut_after = 100
    with pytest.raises(CheckpointError, match=rf"cut off: 500 of {len(CONTENT)} bytes came\. Run again"):
        download(f"{server.address}/weights.pth")
    assert not (cache / "weights.pth").exists()
    server.cut_after = None
    server.requests.clear()
    assert download(f"{server.address}/weights.pth").read_bytes() == CONTENT
    assert server.requests[-1][2] == "bytes=500-"
    assert files(cache) == ["weights.pth"]


def test_the_parts_of_two_versions_are_not_joined(server, cache):
    server.cut_after = 100
    with pytest.raises(CheckpointError, match="cut off"):
        download(f"{server.address}/weights.pth")
    server.cut_after = None
    server.files["/weights.pth"] = CONTENT[::-1]
    assert download(f"{server.address}/weights.pth").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("cut_after", [None, 100])
def test_a_server_that_cannot_resume_gives_the_whole_file_or_an_error(server, cache, cut_after):
    server.resumable, server.cut_after = False, cut_after
    if cut_after is None:
        assert download(f"{server.address}/weights.pth").read_bytes() == CONTENT
    else:
        with pytest.raises(CheckpointError, match=f"cut off: 100 of {len(CONTENT)} bytes came"):
            download(f"{server.address}/weights.pth")
        assert "weights.pth" not in files(cache)


def test_a_missing_file_is_an_error_that_gives_the_servers_answer(server, cache):
    with pytest.raises(CheckpointError, match=r"other\.pth: the server answers 404 Not Found"):
        download(f"{server.address}/other.pth")
    assert files(cache) == []


def test_a_web_page_instead_of_weights_does_not_enter_the_cache(server, cache):
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(CheckpointError, match="web page"):
        download(f"{server.address}/weights.pth")
    assert files(cache) == []


@pytest.mark.parametrize("publish", ["/weights.pth#sha256={}", "/weights-{:.8}.pth", "/weights-{}.pth"])
def test_a_published_hash_is_verified(server, cache, publish):
    for sha256, is_right in ((SHA256, True), (SHA256[::-1], False)):
        address = publish.format(sha256)
        server.files[address.partition("#")[0]] = CONTENT
        if is_right:
            assert download(server.address + address).read_bytes() == CONTENT
            (cache / Path(address.partition("#")[0]).name).unlink()
        else:
            with pytest.raises(CheckpointError, match=rf"has SHA-256 {SHA256}, not the published"):
                download(server.address + address)
    assert files(cache) == []


def test_a_cached_file_that_changed_is_noticed_where_a_hash_is_published(server, cache):
    path = download(f"{server.address}/weights.pth#sha256={SHA256}")
    path.write_bytes(CONTENT[:-1] + b"\0")
    with pytest.raises(CheckpointError, match=r"weights\.pth does not have the published SHA-256.*delete it"):
        download(f"{server.address}/weights.pth#sha256={SHA256}")


def test_a_server_that_does_not_answer_is_an_error_that_says_what_to_place_where(cache):
    with FileServer().running() as server:
        address = f"{server.address}/weights.pth"
    with pytest.raises(CheckpointError, match="cannot be reached") as error:
        download(address)
    assert f"Fetch {address} on a machine with network and place it at {cache / 'weights.pth'}" in str(error.value)


def test_nothing_is_fetched_offline_but_a_placed_file_is_read(server, cache, offline):
    with pytest.raises(CheckpointError, match=r"HF_HUB_OFFLINE is set.*place it at .*weights\.pth"):
        download(f"{server.address}/weights.pth")
    cache.mkdir(parents=True)
    (cache / "weights.pth").write_bytes(CONTENT)
    assert_loads(f"{server.address}/weights.pth")
    assert not server.requests


def test_files_of_one_name_at_different_addresses_are_kept_apart(server, cache):
    server.files |= {"/a/model.pth": b"first", "/b/model.pth": b"second"}
    assert download(f"{server.address}/a/model.pth").read_bytes() == b"first"
    assert download(f"{server.address}/b/model.pth").read_bytes() == b"second"


def test_a_query_tells_addresses_apart(server, cache):
    server.files |= {"/get?id=1": b"first", "/get?id=2": b"second"}
    assert download(f"{server.address}/get?id=1").read_bytes() == b"first"
    assert download(f"{server.address}/get?id=2").read_bytes() == b"second"


def test_an_address_may_have_spaces_and_any_letters(server, cache):
    server.files["/my%20w%C3%AFghts%21.pth"] = CONTENT
    assert download(f"{server.address}/my wïghts%21.pth") == cache / "my wïghts%21.pth"


def test_a_cached_file_is_read_without_writing_to_the_cache(server, cache):
    path = download(f"{server.address}/weights.pth")
    for written in cache.glob("*.lock"):
        written.unlink()
    assert download(f"{server.address}/weights.pth") == path
    assert list(cache.iterdir()) == [path]


def test_an_address_without_encryption_is_refused(cache):
    with pytest.raises(CheckpointError, match="not an https:// address"):
        download("http://example.org/weights.pth")


def test_what_is_no_address_is_not_tried_again_and_again(cache):
    with pytest.raises(CheckpointError, match="is not a valid address: nonnumeric port: 'many'"):
        download("https://example.org:many/weights.pth")


@pytest.mark.parametrize("address", ["https://example.org", "https://example.org/", "https://example.org/a/.."])
def test_an_address_without_a_file_is_refused(cache, address):
    with pytest.raises(CheckpointError, match="names no file"):
        download(address)


def saved_by_transformers(folder: Path, shard_size: str) -> dict[str, bytes]:
    transformers_model(shrunk("focalnet_tiny_srf")).save_pretrained(folder, max_shard_size=shard_size)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shard_size", ["1GB", "20KB"])
def test_a_hub_repository_of_transformers_is_read_and_then_works_offline(server, tmp_path, monkeypatch, shard_size):
    server.add_repository("somebody/focalnet", saved_by_transformers(tmp_path / "saved", shard_size))
    model = backbone(normalize_modulator=True)
    report = load_checkpoint(model, "somebody/focalnet")
    assert report.format == "transformers"
    assert report.differs, "config.json is fetched too"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    assert load_checkpoint(backbone(normalize_modulator=True), "somebody/focalnet") == report
    assert not server.requests


def test_the_only_weight_file_of_a_hub_repository_is_taken_and_others_by_name(server):
    server.add_repository("authors/one", {"README.md": b"hello", "focalnet_lrf.pth": CONTENT})
    assert_loads("authors/one")
    server.add_repository("authors/two", {"a.pth": b"", "sub/b.pth": CONTENT})
    with pytest.raises(CheckpointError, match=r"authors/two has several weight files.*a\.pth, sub/b\.pth"):
        load_checkpoint(backbone(), "authors/two")
    assert_loads("authors/two:sub/b.pth")
    with pytest.raises(CheckpointError, match=r"authors/two has no file c\.pth"):
        load_checkpoint(backbone(), "authors/two:c.pth")


def test_a_repository_that_is_not_there_is_named(server):
    with pytest.raises(CheckpointError, match="has no repository nobody/nothing"):
        load_checkpoint(backbone(), "nobody/nothing")


def test_a_file_of_the_hubs_cache_that_changed_is_noticed(server, tmp_path):
    server.add_repository("somebody/focalnet", {"model.safetensors": CONTENT})
    assert_loads("somebody/focalnet")
    (blob,) = (tmp_path / "hub").glob(f"models--somebody--focalnet/blobs/{SHA256}")
    blob.write_bytes(CONTENT[:-1] + b"\0")
    with pytest.raises(CheckpointError, match=rf"{SHA256} does not have the SHA-256 that the hub gives; delete it"):
        load_checkpoint(backbone(), "somebody/focalnet")


def test_offline_the_error_says_which_hub_file_to_place_where_and_placing_it_works(cache, offline):
    folder = cache.parent / "somebody--focalnet"
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set") as error:
        load_checkpoint(backbone(), "somebody/focalnet")
    assert f"place it at {folder / 'model.safetensors'}" in str(error.value)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(CONTENT)
    assert_loads("somebody/focalnet")


def publish(monkeypatch, name: str, weights: dict[str, str]) -> None:
    """Make a variant of small sizes known, with these sources."""
    knobs = {"embed_dim": 4, "depths": [1, 1, 1, 1], "focal_levels": [2] * 4, "focal_windows": [3] * 4}
    variant = variants.Variant(name, knobs, 5, "nothing", 32, 0.1, weights=weights)
    known = {**variants.VARIANTS, name: variant}
    monkeypatch.setattr(variants, "VARIANTS", known)
    monkeypatch.setattr("focalnet_backbone.checkpoints.sources.VARIANTS", known)


def test_a_variant_takes_the_best_source_that_can_be_had_and_says_which(server, monkeypatch, caplog):
    model = backbone()
    server.add_repository("second/best", {"model.safetensors": CONTENT})
    publish(monkeypatch, "small", {"timm": "best/gone", "transformers": "second/best"})
    report = load_checkpoint(model, "small")
    assert report.source == "small from second/best"
    assert "has no repository best/gone" in caplog.text


def test_a_folder_of_a_variants_name_does_not_stand_in_for_the_variant(server, tmp_path, monkeypatch):
    server.add_repository("best/one", {"model.safetensors": CONTENT})
    publish(monkeypatch, "small", {"timm": "best/one"})
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "model.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert_loads("small")
    with pytest.raises(CheckpointError, match="empty"):
        load_checkpoint(backbone(), "./small")


def test_what_is_published_for_an_address_is_compared_with_the_model(server, monkeypatch):
    server.add_repository("best/one", {"model.safetensors": CONTENT})
    publish(monkeypatch, "small", {"timm": "best/one", "release": f"{server.address}/weights.pth"})
    for address in ("best/one", f"{server.address}/weights.pth"):
        assert not load_checkpoint(backbone(), address).differs
        assert load_checkpoint(backbone(normalize_modulator=True), address).differs
        with pytest.raises(CheckpointError, match="use_post_layernorm"):
            load_checkpoint(backbone(use_post_layernorm=True), address)


def test_a_variant_none_of_whose_sources_can_be_had_is_an_error_that_names_them_all(server, monkeypatch):
    publish(monkeypatch, "small", {"timm": "best/gone", "release": f"{server.address}/small.pth"})
    with pytest.raises(CheckpointError, match=r"no source of small can be had: .*best/gone.*; .*/small\.pth.*404"):
        create_backbone("small", weights="pretrained")


def test_the_environment_variable_keeps_the_command_line_tool_offline(tmp_path):
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TORCH_HOME": str(tmp_path / "torch"),
        "HF_HOME": str(tmp_path / "hf"),
    }
    command = [
        sys.executable,
        str(ROOT / "tools" / "convert_checkpoint.py"),
        "focalnet_tiny_srf",
        "out",
        "--to",
        "native",
    ]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("convert_checkpoint.py: no source of focalnet_tiny_srf can be had")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    release = "github.com--microsoft--FocalNet--releases--download--v1.0.0"
    assert str(folder / release / "focalnet_tiny_srf.pth") in last
    assert not (tmp_path / "out.safetensors").exists()
