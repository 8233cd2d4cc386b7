"""The measurement of shards of photos into features."""

from __future__ import annotations

import json


def test_a_few_photos_are_measured(tmp_path, run_tool):
    arguments = ["--images", 12, "--size", 32, "--shard-size", 6, "--json", tmp_path / "speed.json"]
    status, output, _ = run_tool("benchmark.py", "extract", *arguments)
    (case,) = json.loads((tmp_path / "speed.json").read_text())["cases"]
    assert status == 0
    assert "| small | 12 of 32 px | 1 |" in output
    assert case["images_per_second"] == 12 / case["seconds"]
    assert 0 < case["network_share"] < 1
    assert 0 < case["peak_bytes"] < 1e9


def test_wrong_arguments_are_one_line(tmp_path, run_tool):
    status, _, errors = run_tool("benchmark.py", "extract", "--variant", "focalnet_tiny_srff")
    assert (status, len(errors.splitlines())) == (2, 1)
    assert "focalnet_tiny_srf" in errors
