"""Shards of photos from files, tars, tables and addresses."""

from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset as wds

from focalnet_backbone.features.addresses import SourceError
from focalnet_backbone.features.sources import are_photos, find_shards
from tests.features.shard_inputs import photo_bytes, write_parquet, write_tar, write_tars


def keys(*inputs: object, **options: object) -> list[list[str]]:
    return [[sample.key for sample in shard.read()] for shard in find_shards([*map(str, inputs)], **options)]


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png", "sub/c.png"):
        (folder / name).write_bytes(photo_bytes(0))
    return folder


def test_a_folder_is_cut_into_shards_of_keys_below_it(photos):
    assert keys(photos, shard_size=2) == [["a.png", "sub/b.png"], ["sub/c.png"]]
    assert [shard.name for shard in find_shards([str(photos)], shard_size=2)] == ["000000", "000001"]


def test_a_list_names_images_from_its_own_folder(photos):
    listed = photos / "some.txt"
    listed.write_text(f"sub/c.png\n\n{photos}/a.png\nmemory://far/d.png\n")
    (shard,) = find_shards([str(listed)])
    samples = list(shard.read())
    assert [sample.key for sample in samples] == ["sub/c.png", f"{photos}/a.png".lstrip("/"), "far/d.png"]
    assert [sample.content for sample in samples] == [f"{photos}/sub/c.png", f"{photos}/a.png", "memory://far/d.png"]


def test_tars_give_what_webdataset_reads(tmp_path):
    first, second = write_tars(tmp_path / "tars", shards=2)
    for tar, shard in zip((first, second), find_shards([str(tmp_path / "tars")]), strict=True):
        ours = {sample.key: sample.content for sample in shard.read()}
        theirs = {s["__key__"]: s["png"] for s in wds.WebDataset(str(tar), shardshuffle=False, empty_check=False)}
        assert shard.name == tar.stem
        assert ours == theirs


def test_parquet_is_cut_by_row_groups(tmp_path):
    path = write_parquet(tmp_path / "p.parquet", photos=7, group=2)
    found = find_shards([str(path)], shard_size=3)
    assert [shard.name for shard in found] == ["p-00000", "p-00001"]
    samples = [sample for shard in found for sample in shard.read()]
    assert [sample.content for sample in samples] == [photo_bytes(number) for number in range(7)]
    assert [sample.key for sample in samples] == [f"{number:03d}.png" for number in range(7)]


def test_columns_of_bytes_and_of_keys_are_found_or_named(tmp_path):
    table = pa.table({"jpg": [photo_bytes(0)], "mask": [b"x"], "number": [7], "id": ["seven"]})
    pq.write_table(table, tmp_path / "p.parquet")
    path = tmp_path / "p.parquet"
    assert keys(path, column="jpg") == [["seven"]]
    assert keys(path, column="jpg", key_column="number") == [["7"]]
    with pytest.raises(ValueError, match="the columns jpg, mask, each of which may hold images; --column names one"):
        find_shards([str(path)])
    with pytest.raises(ValueError, match=r"the column number of .*p.parquet holds int64, no images"):
        find_shards([str(path)], column="number")
    pq.write_table(table.select(["number", "id"]), path)
    with pytest.raises(ValueError, match=r"has no column of images; it has number \(int64\), id \(string\)"):
        find_shards([str(path)])


def test_a_saved_dataset_is_read_by_rows(tmp_path):
    rows = datasets.Dataset.from_dict({"image": [{"bytes": photo_bytes(n), "path": None} for n in range(5)]})
    rows.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "saved"))
    found = find_shards([str(tmp_path / "saved")], shard_size=3)
    assert [[sample.content for sample in shard.read()] for shard in found] == [
        [photo_bytes(0), photo_bytes(1), photo_bytes(2)],
        [photo_bytes(3), photo_bytes(4)],
    ]
    assert found[0].stamp() == find_shards([str(tmp_path / "saved")], shard_size=3)[0].stamp()
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(ValueError, match="holds several datasets; name one of them"):
        find_shards([str(tmp_path / "both")])


def test_an_address_gives_what_the_same_files_do_here(tmp_path, photos):
    write_tars(tmp_path / "tars")
    write_parquet(tmp_path / "p.parquet")
    memory = fsspec.filesystem("memory")
    for local, far in ((tmp_path / "tars", "/tars"), (tmp_path / "p.parquet", "/p.parquet"), (photos, "/photos")):
        memory.put(str(local), far, recursive=local.is_dir())
    assert keys("memory://tars/{000..002}.tar") == keys("memory://tars/*.tar") == keys("memory://tars")
    assert keys("memory://tars") == keys(tmp_path / "tars")
    assert keys("memory://p.parquet") == keys(tmp_path / "p.parquet")
    assert keys("memory://photos") == keys(photos)
    assert keys(f"file://{tmp_path}/tars/*.tar") == keys(tmp_path / "tars")
    memory.rm("/tars", recursive=True)


def test_a_stamp_changes_with_what_is_read(tmp_path, photos):
    (tar,) = write_tars(tmp_path / "tars", shards=1)
    inputs = [str(photos), str(tar)]
    before = [shard.stamp() for shard in find_shards(inputs)]
    assert [shard.stamp() for shard in find_shards(inputs)] == before
    (photos / "a.png").write_bytes(photo_bytes(3))
    shutil.copy(write_tars(tmp_path / "other", shards=1, photos=2)[0], tar)
    assert all(was != shard.stamp() for was, shard in zip(before, find_shards(inputs), strict=True))


@pytest.mark.parametrize("size", [1000, -513, 0])
def test_a_truncated_tar_is_named(tmp_path, size):
    (tar,) = write_tars(tmp_path, shards=1)
    content = tar.read_bytes()
    end = content.rstrip(b"\0")
    # In the middle of a member, at the end of the last one, and nothing.
    tar.write_bytes(content[: size or 0] if size >= 0 else content[: -(-len(end) // 512) * 512])
    (shard,) = find_shards([str(tar)])
    with pytest.raises(SourceError, match=r"000.tar is no whole tar: .* after \d images"):
        list(shard.read())


def test_what_is_not_there_or_cannot_be_reached_is_named(tmp_path):
    for entry in (f"{tmp_path}/*.tar", f"{tmp_path}/{{0..3}}.parquet", "memory://nowhere/*.tar"):
        with pytest.raises(FileNotFoundError, match="there is nothing at"):
            find_shards([entry])
    with pytest.raises(OSError, match=r"cannot reach nosuch://bucket/a.parquet: Protocol not known: nosuch"):
        find_shards(["nosuch://bucket/a.parquet"])
    with pytest.raises(OSError, match=r"cannot reach http://127.0.0.1:9/a.parquet"):
        find_shards(["http://127.0.0.1:9/a.parquet"])
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(SourceError, match=r"bad.parquet cannot be read as Parquet"):
        find_shards([str(tmp_path / "bad.parquet")])


def test_a_table_of_text_is_no_photo_and_is_told_what_is_read(tmp_path):
    table = tmp_path / "photos.csv"
    table.write_text("path,label\na.jpg,0\n")
    assert not are_photos([str(table)])
    with pytest.raises(ValueError, match=r"photos\.csv cannot be read: .* listed a line each in a \.txt"):
        find_shards([str(table)])


def test_a_folder_of_two_kinds_is_refused(tmp_path):
    write_tar(tmp_path / "a.tar", {})
    (tmp_path / "b.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="holds tar and images; name the files of one kind"):
        find_shards([str(tmp_path)])


def test_shards_of_one_name_are_told_apart(tmp_path):
    write_tars(tmp_path / "a", shards=1)
    write_tars(tmp_path / "b", shards=2)
    found = find_shards([str(tmp_path / "a"), str(tmp_path / "b")])
    assert [shard.name for shard in found] == ["000000-000", "000001-000", "001"]


def test_photos_of_this_machine_are_known(tmp_path, photos):
    write_tars(tmp_path / "tars")
    assert are_photos([str(photos), f"{photos}/*.png", str(photos / "a.png"), str(tmp_path)])
    for other in (tmp_path / "tars", "memory://photos", tmp_path / "a.parquet"):
        assert not are_photos([str(photos), str(other)])
