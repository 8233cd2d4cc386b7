"""What the pages say beside their code: links, names of files, tables."""

from __future__ import annotations

import json
import math
import re

import pytest

from focalnet_backbone import list_variants
from focalnet_backbone.network.variants import VARIANTS
from tests.conftest import DATA
from tests.documents.pages import PAGES, ROOT, read_page, read_tables

PACKAGE = ROOT / "focalnet_backbone"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_to_a_file_leads_to_one(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)[^)]*\)", read_page(page)):
        assert (PAGES[page].parent / target).is_file(), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_ours_that_is_named_is_there(page):
    rooms = "|".join(path.name for path in [*ROOT.iterdir(), *PACKAGE.iterdir()] if path.is_dir())
    for path in re.findall(rf"(?<![\w/])(?:{rooms})/[\w./-]+\.(?:py|sh|yaml|txt|json)\b", read_page(page)):
        assert (ROOT / path).is_file() or (PACKAGE / path).is_file(), f"{page} names {path}"


def test_the_front_page_is_short():
    assert len(read_page("README.md").splitlines()) <= 150


def test_the_front_page_loads_quickly():
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", read_page("README.md")):
        assert (ROOT / picture).stat().st_size < 300_000


def published_sizes() -> dict[str, tuple[int, float]]:
    """Parameters and MACs (G) of each variant as the table of variants has them."""
    rows = [row for row in read_tables("docs/variants.md") if row[0].startswith("`focalnet_")]
    return {name.strip("`"): (int(parameters.replace(",", "")), float(macs)) for name, parameters, macs, _ in rows}


def test_the_table_has_every_variant():
    assert list(published_sizes()) == list_variants()


@pytest.mark.parametrize("name", list_variants("*_tiny_*"))
def test_the_variants_numbers_are_what_the_tool_prints(name, run_tool):
    parameters, macs = published_sizes()[name]
    status, output, _ = run_tool("analyze_model.py", name)
    assert status == 0
    total = output.strip().splitlines()[-1].split()
    assert int(total[1].replace(",", "")) == parameters
    assert math.isclose(float(total[2].replace(",", "")) / 1e3, macs, abs_tol=0.006)
    assert VARIANTS[name].published_params == round(parameters / 1e6, 1)


def test_detectron2_s_table_has_the_published_numbers_and_our_parameters():
    published = json.loads((DATA / "downstream.json").read_text())
    rows = [row for row in read_tables("docs/detectron2.md") if row[1] in ("srf", "lrf")]
    expected = published["mask_rcnn_training"]["results"]
    assert len(rows) == len(expected)
    for (size, kernels, schedule, box, mask, parameters, ours, flops), row in zip(rows, expected, strict=True):
        assert (size, kernels, schedule) == (row["size"], row["kernels"], row["schedule"])
        assert [float(box), float(mask)] == [row["box_ap"], row["mask_ap"]]
        assert [float(parameters), float(flops)] == [row["params_m"], row["gflops"]]
        assert float(ours) == published["mask_rcnn_params_measured_in_mmdetection_3"][f"{size}_{kernels}"]
