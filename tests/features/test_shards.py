"""Features of shards: what is written, how it is resumed, and what bad input does."""

from __future__ import annotations

import errno
import json
import multiprocessing
import random
import re
import shutil
import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.dataset
import pytest
import torch
import webdataset as wds
import zarr
from torch.utils.data import DataLoader

from focalnet_backbone import FeaturePyramid
from focalnet_backbone.features.batches import Photo, SizeBuffer
from focalnet_backbone.features.dataset import FeatureDataset, FeatureStream
from focalnet_backbone.features.pooling import Boxes
from focalnet_backbone.features.sinks import SINKS
from focalnet_backbone.features.sources import find_shards
from tests.features.shard_inputs import (
    content_below,
    extract_alone,
    photo_bytes,
    photo_pixels,
    run,
    small_extractor,
    write_parquet,
    write_tar,
    write_tars,
)

KINDS = [".parquet", ".arrow", ".wds", ".zarr"]


@pytest.fixture(scope="module")
def extractor():
    return small_extractor()


@pytest.fixture(scope="module")
def tars(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tars")
    write_tars(folder)
    return folder


@pytest.fixture(scope="module")
def shards(tars):
    return find_shards([str(tars)])


def expected(extractor, number: int, pool: str) -> dict[str, torch.Tensor]:
    maps = extractor(photo_pixels(number))
    return {name: value if pool == "none" else value.mean((1, 2)) for name, value in maps.items()}


@pytest.mark.parametrize("pool", ["none", "gap"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_image_is_a_row_with_its_features(extractor, shards, tmp_path, kind, pool):
    out = tmp_path / f"out{kind}"
    summary = run(extractor, shards, out, pool=pool, batch_size=4)
    assert (summary.written, summary.rows, summary.shards, summary.failed) == (21, 21, 3, [])
    dataset = FeatureDataset(out)
    assert sorted(row["key"] for row in dataset) == [f"{number:03d}" for number in range(21)]
    for row in dataset:
        number = int(row["key"])
        assert (row["height"], row["width"]) == photo_pixels(number).shape[:2]
        for name, value in expected(extractor, number, pool).items():
            assert torch.allclose(row[name], value, atol=1e-5)
    assert [row["key"] for row in FeatureStream(out)] == [row["key"] for row in dataset]


def test_other_programs_read_the_shards(extractor, shards, tmp_path):
    for kind, pool in ((".parquet", "gap"), (".arrow", "gap"), (".wds", "none"), (".zarr", "none")):
        run(extractor, shards, tmp_path / f"out{kind}", pool=pool)
    want = {f"{number:03d}": expected(extractor, number, "none") for number in range(21)}
    for kind, form in (("parquet", "parquet"), ("arrow", "ipc")):
        table = pyarrow.dataset.dataset(tmp_path / f"out.{kind}", format=form).to_table()
        assert table.schema.field("stage2").type == pyarrow.list_(pyarrow.float32(), 16)
        for key, vector in zip(table["key"].to_pylist(), table["stage2"].to_pylist(), strict=True):
            assert np.allclose(vector, want[key]["stage2"].mean((1, 2)), atol=1e-5)
    urls = [str(path) for path in sorted((tmp_path / "out.wds").glob("*.tar"))]
    for sample in wds.WebDataset(urls, shardshuffle=False).decode():
        assert np.allclose(sample["stage1.npy"], want[sample["json"]["key"]]["stage1"], atol=1e-5)
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")["001"]["24x40"]
    for row, maps in zip(group.attrs["rows"], group["stage1"][:], strict=True):
        assert np.allclose(maps, want[row["key"]]["stage1"], atol=1e-5)


def test_files_are_pyramids_in_a_folder_a_shard(extractor, shards, tmp_path):
    run(extractor, shards, tmp_path / "out", pool="none")
    pyramid = FeaturePyramid.load(tmp_path / "out" / "001" / "010.safetensors")
    assert torch.equal(pyramid.image.permute(1, 2, 0), torch.tensor(photo_pixels(10)))
    assert torch.allclose(pyramid["stage2"], extractor(photo_pixels(10))["stage2"], atol=1e-5)
    assert len(FeatureDataset(tmp_path / "out")) == 21


def test_workers_of_a_loader_share_the_shards(extractor, shards, tmp_path):
    run(extractor, shards, tmp_path / "out.arrow")
    alone = FeatureDataset(tmp_path / "out.arrow")
    alone[0]
    stacked = alone.stack("stage2")
    assert stacked.shape == (21, 16)
    for dataset in (alone, FeatureStream(tmp_path / "out.arrow")):
        loader = DataLoader(dataset, batch_size=None, num_workers=2)
        assert sorted(row["key"] for row in loader) == [f"{number:03d}" for number in range(21)]


def test_boxes_are_pooled_from_the_pyramid_at_their_places(extractor, tmp_path):
    """A box that is a whole photo, and one whose features must not depend on what is far from it."""
    write_tar(tmp_path / "a.tar", {"dir/x.png": photo_bytes(0), "dir/none.png": photo_bytes(1)})
    coco = {
        "images": [{"id": 5, "file_name": "x.png"}, {"id": 6, "file_name": "dir/none.png"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 3, "bbox": [0, 0, 32, 32]},
            {"id": 2, "image_id": 5, "category_id": 4, "bbox": [8, 8, 4, 4]},
        ],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(coco))
    shards = find_shards([str(tmp_path / "a.tar")])
    boxes = Boxes(tmp_path / "boxes.json")
    summary = run(extractor, shards, tmp_path / "out.parquet", pool="roi", boxes=boxes)
    assert (summary.written, summary.rows, summary.failed) == (2, 2, [])
    whole, small = FeatureDataset(tmp_path / "out.parquet")
    assert (whole["key"], whole["box_id"], whole["category_id"], whole["box"]) == ("dir/x", 1, 3, [0, 0, 32, 32])
    maps = extractor(photo_pixels(0))
    # The box of 8 to 12 pixels is the one position (2, 2) of the map of stride 4: RoIAlign interpolates around it.
    near = maps["stage1"][:, 1:4, 1:4].flatten(1)
    assert ((small["stage1"] >= near.amin(1)) & (small["stage1"] <= near.amax(1))).all()
    assert torch.allclose(whole["stage1"], maps["stage1"].mean((1, 2)), atol=0.15)
    halved = small_extractor(max_size=16)
    run(halved, shards, tmp_path / "half.parquet", pool="roi", boxes=boxes)
    shrunk = FeatureDataset(tmp_path / "half.parquet")[0]
    assert shrunk["box"] == [0, 0, 32, 32]
    assert torch.allclose(shrunk["stage1"], halved(photo_pixels(0))["stage1"].mean((1, 2)), atol=0.3)


def test_bad_coco_files_are_named(tmp_path):
    path = tmp_path / "boxes.json"
    image = {"id": 1, "file_name": "a.jpg"}
    for content, message in (
        ("{", "is not valid JSON"),
        (json.dumps({"images": [image], "annotations": []}), "holds no boxes"),
        (
            json.dumps({"images": [image], "annotations": [{"id": 4, "image_id": 2, "bbox": [0, 0, 1, 1]}]}),
            "is no COCO",
        ),
        (json.dumps({"images": [image], "annotations": [{"id": 4, "image_id": 1, "bbox": [0, 0, -1, 1]}]}), "is none"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            Boxes(path)


def test_half_precision_is_stored_where_it_is_asked_for(extractor, shards, tmp_path):
    from focalnet_backbone.features.shard_job import make_layout, new_job
    from focalnet_backbone.features.shards import extract_to_shards

    out = str(tmp_path / "out.parquet")
    job = new_job(extractor, out, make_layout(extractor, out, pool="gap", dtype="float16"))
    extract_to_shards(extractor, job, shards)
    row = FeatureDataset(out)[0]
    assert row["stage1"].dtype == torch.float16
    wanted = expected(extractor, int(row["key"]), "gap")["stage1"]
    assert torch.allclose(row["stage1"].float(), wanted, atol=2e-3)


def test_an_undecodable_image_is_named_and_the_rest_written(extractor, tmp_path):
    members = {"a.png": photo_bytes(0), "b.jpg": b"<html>", "c.png": photo_bytes(2)[:80], "d.png": photo_bytes(3)}
    write_tar(tmp_path / "s.tar", members)
    shards = find_shards([str(tmp_path / "s.tar")])
    lines = []
    for _ in range(2):  # The second run has nothing to do, and says the same.
        summary = run(extractor, shards, tmp_path / "out.wds", resume=bool(lines))
        assert [name for name, _ in summary.failed] == ["s", "s"]
        lines.append([reason for _, reason in summary.failed])
    assert lines[0] == lines[1]
    assert lines[0][0].startswith("s, b: cannot read it as an image: it is none of AVIF, ")
    assert lines[0][1].startswith("s, c: cannot read it as an image: ")
    assert summary.skipped == 2
    assert sorted(row["key"] for row in FeatureDataset(tmp_path / "out.wds")) == ["a", "d"]


def test_a_broken_shard_is_left_out_and_done_once_it_is_whole(extractor, tmp_path):
    write_tars(tmp_path / "tars", shards=3)
    whole = (tmp_path / "tars" / "001.tar").read_bytes()
    (tmp_path / "tars" / "001.tar").write_bytes(whole[:3000])
    shards = find_shards([str(tmp_path / "tars")])
    summary = run(extractor, shards, tmp_path / "out.parquet")
    assert (summary.written, summary.shards, len(summary.failed)) == (14, 2, 1)
    assert "001.tar is no whole tar" in summary.failed[0][1]
    assert sorted(path.name for path in (tmp_path / "out.parquet").glob("*.parquet")) == ["000.parquet", "002.parquet"]
    (tmp_path / "tars" / "001.tar").write_bytes(whole)
    summary = run(extractor, find_shards([str(tmp_path / "tars")]), tmp_path / "out.parquet", resume=True)
    assert (summary.written, summary.skipped, summary.failed) == (7, 14, [])


@pytest.mark.parametrize("kind", [*KINDS, ""])
def test_a_second_run_does_what_is_missing_and_gives_the_same_bytes(extractor, shards, tmp_path, kind):
    out, pool = tmp_path / f"out{kind}", "none" if kind in ("", ".zarr") else "gap"
    run(extractor, shards, out, pool=pool)
    before = content_below(out)
    (out / "_manifests" / "001.json").unlink()
    summary = run(extractor, shards, out, pool=pool, resume=True)
    assert (summary.written, summary.skipped) == (7, 14)
    assert content_below(out) == before


def test_a_shard_that_changed_or_whose_output_is_gone_is_done_again(extractor, tmp_path):
    write_tars(tmp_path / "tars")
    run(extractor, find_shards([str(tmp_path / "tars")]), tmp_path / "out.wds")
    (tmp_path / "out.wds" / "000.tar").unlink()
    write_tar(tmp_path / "tars" / "002.tar", {"new.png": photo_bytes(1)})
    summary = run(extractor, find_shards([str(tmp_path / "tars")]), tmp_path / "out.wds", resume=True)
    assert (summary.written, summary.skipped) == (8, 7)
    assert FeatureDataset(tmp_path / "out.wds")[-1]["key"] == "new"


def test_a_run_that_could_read_nothing_does_not_hold_up_the_next(extractor, tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    out = tmp_path / "out.parquet"
    assert run(extractor, find_shards([str(tmp_path / "bad.tar")]), out).failed
    write_tars(tmp_path / "tars", shards=1)
    assert run(extractor, find_shards([str(tmp_path / "tars")]), out, pool="gap").written == 7


def test_features_are_not_mixed_or_lost(extractor, shards, tmp_path):
    out = tmp_path / "out.wds"
    run(extractor, shards, out)
    before = content_below(out)
    with pytest.raises(FileExistsError, match="holds features already; --resume goes on with them, --force"):
        run(extractor, shards, out)
    with pytest.raises(ValueError, match="made with pool=gap, not none; --force begins anew"):
        run(extractor, shards, out, pool="none", resume=True)
    other = small_extractor()
    torch.nn.init.ones_(other.model.patch_embed.proj.bias)
    with pytest.raises(ValueError, match="made with other weights"):
        run(other, shards, out, resume=True)
    with pytest.raises(ValueError, match="holds 002, which the inputs do not have; name all inputs"):
        run(extractor, shards[:2], out, resume=True)
    assert content_below(out) == before
    run(extractor, shards[:2], out, force=True)
    assert [path.name for path in sorted(out.glob("*.tar"))] == ["000.tar", "001.tar"]
    foreign = tmp_path / "theirs.parquet"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="was not written by this program; --force replaces it"):
        run(extractor, shards, foreign)
    run(extractor, shards, foreign, force=True)
    assert (foreign / "mine.txt").read_text() == "mine"


def test_an_address_gets_the_same_bytes_as_a_folder(extractor, shards, tmp_path):
    memory = fsspec.filesystem("memory")
    for kind in (".parquet", ".zarr"):
        run(extractor, shards, tmp_path / f"out{kind}")
        run(extractor, shards, f"memory://out{kind}")
        memory.get(f"/out{kind}", str(tmp_path / f"back{kind}"), recursive=True)
        assert content_below(tmp_path / f"back{kind}") == content_below(tmp_path / f"out{kind}")
        memory.rm(f"/out{kind}/_manifests/001.json")
        summary = run(extractor, shards, f"memory://out{kind}", resume=True)
        assert (summary.written, summary.skipped) == (7, 14)
        assert len(list(FeatureStream(f"memory://out{kind}"))) == len(FeatureDataset(f"memory://out{kind}")) == 21


def test_a_buffer_puts_like_sizes_together_and_holds_no_more_than_it_may():
    buffer, held, most = SizeBuffer(4, hold=2), 0, 0
    sizes = random.Random(0)
    batches = []
    for number in range(200):
        side = sizes.randint(1, 12)
        held += 1
        for batch in buffer.put(Photo(str(number), torch.empty(3, side, side))):
            batches.append(batch)
            held -= len(batch)
        most = max(most, held)
    batches += buffer.flush()
    assert most <= 8
    assert sorted(int(photo.key) for batch in batches for photo in batch) == list(range(200))
    assert all(len({photo.image.shape for photo in batch}) == 1 and len(batch) <= 4 for batch in batches)


SMALL = ["--variant", "focalnet_tiny_iso", "--max-size", "16", "--pool", "gap"]


def test_the_tool_writes_shards_and_reports_bad_images_in_its_exit_status(tmp_path, run_tool):
    write_tars(tmp_path / "tars", shards=2, photos=2)
    write_parquet(tmp_path / "p.parquet", photos=2)
    inputs = [tmp_path / "tars", tmp_path / "p.parquet"]
    out = tmp_path / "out.parquet"
    status, output, errors = run_tool("extract_features.py", *inputs, *SMALL, "--out", out)
    assert (status, "6 images written as 6 rows of 3 shards, 0 skipped" in output) == (0, True), errors
    write_tar(tmp_path / "tars" / "001.tar", {"bad.png": b"bad"})
    status, output, errors = run_tool("extract_features.py", *inputs, *SMALL, "--out", out, "--resume")
    assert (status, "0 images written" in output, "4 skipped" in output) == (1, True, True)
    assert errors.splitlines()[-1].startswith("failed: 001, bad: cannot read it as an image")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["p.parquet", "--out", "o.parquet", "--column", "label"],
            "the column label of p.parquet holds int64, no images",
        ),
        (["p.parquet", "--out", "o.parquet", "--pool", "roi"], "--pool roi and --boxes go together"),
        (["p.parquet", "--out", "o", "--pool", "gap"], "pooled features need an output that ends in .parquet"),
        (["p.parquet", "--out", "o.tar"], "name it \\*.wds for tars"),
        (["nosuch://a.tar", "--out", "o.wds"], "cannot reach nosuch://a.tar"),
        (["p.parquet", "--out", "o.wds", "--plot"], "--plot draws files of images alone"),
    ],
)
def test_the_tool_answers_wrong_arguments_in_one_line(tmp_path, monkeypatch, run_tool, arguments, message):
    write_parquet(tmp_path / "p.parquet", photos=1)
    monkeypatch.chdir(tmp_path)
    status, _, errors = run_tool("extract_features.py", *arguments, "--variant", "focalnet_tiny_iso")
    (line,) = errors.splitlines()
    assert status == 2
    assert re.match(f"extract_features.py: .*{message}", line)


@pytest.mark.parametrize("kind", [*KINDS, ".files"])
@pytest.mark.parametrize("fails", ["first", "second", "close"])
def test_a_shard_that_could_not_be_written_whole_is_never_published(
    extractor, shards, tmp_path, monkeypatch, kind, fails
):
    """As on a disk that is full for some maps, and has room for what is smaller."""
    name = kind.removeprefix(".")
    usual, calls = SINKS[name], []

    class FullDisk(usual):
        def write(self, rows):
            calls.append(rows)
            if len(calls) == {"first": 1, "second": 2}.get(fails):
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write(rows)

        def close(self):
            super().close()
            if fails == "close":
                raise OSError(errno.ENOSPC, "No space left on device", str(self.path))

    monkeypatch.setitem(SINKS, name, FullDisk)
    out = tmp_path / f"out{kind}"
    pool = "none" if kind == ".files" else "gap"
    place = re.escape(str(out / shards[0].name))
    with pytest.raises(OSError, match=rf"No space left on device: '{place}"):
        run(extractor, shards[:1], out, pool=pool, batch_size=2)
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) in (
        ["_focalnet.json"],
        ["_focalnet.json", "zarr.json"],
    )
    monkeypatch.setitem(SINKS, name, usual)
    assert run(extractor, shards[:1], out, pool=pool, batch_size=2).rows == 7
    assert len(FeatureDataset(out)) == 7


KILLS = 6


def test_what_a_killed_run_left_unfinished_holds_up_nobody_and_goes(extractor, shards, tmp_path):
    out = tmp_path / "out.wds"
    assert run(extractor, shards[:2], out).written == 14
    left = [out / ".unfinished-0123.tar", out / "_manifests" / ".unfinished-4567.json"]
    for path in left:
        path.write_bytes(b"half")
    summary = run(extractor, shards, out, resume=True)
    assert (summary.skipped, summary.written) == (14, 7)
    assert not list(out.rglob(".unfinished-*"))


def test_killed_runs_leave_whole_shards_and_are_resumed_to_the_same_bytes(tmp_path):
    """Killed at any moment, again and again; what is done is not done again, and all is as if nothing had been."""
    write_tars(tmp_path / "tars", shards=40, photos=12)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.features.shard_inputs"])
    moments = random.Random(0)
    whole, out = tmp_path / "whole.wds", tmp_path / "out.wds"

    def start(folder: Path) -> multiprocessing.Process:
        begun = server.Event()
        process = server.Process(target=extract_alone, args=(tmp_path / "tars", folder, begun))
        process.start()
        assert begun.wait(60)
        return process

    first, began = start(whole), time.monotonic()
    first.join()
    usual = time.monotonic() - began
    assert first.exitcode == 0
    want, kills, progress = content_below(whole), 0, []
    while kills < KILLS:
        process = start(out)
        process.join(moments.uniform(0, usual))
        kills += process.exitcode is None
        process.kill()
        process.join()
        found = content_below(out)
        names = [name for name in found if not name.startswith(".unfinished-")]
        assert all(found[name] == want[name] for name in names)
        manifests = {path.name for path in (out / "_manifests").glob("[!.]*.json")}
        assert manifests <= {f"{name.removesuffix('.tar')}.json" for name in names}
        progress.append(len(manifests))
        if len(manifests) == 40:
            shutil.rmtree(out)
    assert any(0 < done < 40 for done in progress)
    last = start(out)
    last.join()
    assert content_below(out) == want
    print(f"{kills} kills; shards whole after each: {progress}")


def test_a_folder_of_pyramids_is_told_how_it_is_read(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.safetensors").touch()
    with pytest.raises(FileNotFoundError, match=r"no shards of features at .*; FeaturePyramid\.load reads its files"):
        FeatureDataset(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no shards of features at .*nowhere$"):
        FeatureDataset(tmp_path / "nowhere")
