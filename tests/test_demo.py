"""The demo from end to end with next to no training, and the page that it writes."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from html import unescape
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.conftest import TOOLS


@pytest.fixture(scope="module")
def demo(complete_environment, warm_environment, tmp_path_factory) -> SimpleNamespace:
    """A finished demo: its `folder`, and `run()` to run it again, which returns what it printed."""
    environment = {**complete_environment, "FOCALNET_VENV": str(warm_environment)}
    folder = tmp_path_factory.mktemp("demo") / "out"

    def run() -> str:
        command = ["bash", str(TOOLS / "demo.sh"), "--all", "--quick", str(folder)]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
        return result.stdout

    first = run()
    assert ": done before\n" not in first
    return SimpleNamespace(folder=folder, run=run)


def test_the_page_holds_all_pictures_commands_and_numbers(demo):
    page = (demo.folder / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == page.count("<img")
    for name, content in pictures:
        assert base64.b64decode(content) == (demo.folder / name).read_bytes()
        Image.open(io.BytesIO(base64.b64decode(content))).verify()
    shown = {name for name, _ in pictures}
    assert {
        "pyramids/chelsea.png.png",
        "mask_rcnn/predictions/00001_overlay.png",
        "upernet/predictions/00004_overlay.png",
        "dino/predictions/00001_overlay.png",
        "mask2former/predictions/00001_overlay.png",
    } <= shown
    assert {"seen/coffee.png.gates.png", "seen/00001.jpg.modulator.png", "seen/kernels_stage3.png"} <= shown
    links = re.findall(r'href="([^"]+)"', page)
    assert links == ["mask_rcnn/report.html", "upernet/report.html", "explore.html"]
    assert all((demo.folder / link).is_file() for link in links)
    assert not re.search(r'src="(?!data:)', page)

    text = unescape(page)
    steps = list((demo.folder / "steps").iterdir())
    assert len(steps) == 17
    for step in steps:
        _, tool, *_ = step.read_text().splitlines()
        assert f"<pre>python {tool} " in text
    evaluation = json.loads((demo.folder / "mask_rcnn" / "metrics.json").read_text().splitlines()[-1])
    assert f"<b>{evaluation['bbox/AP']:.1f}</b>box AP" in page
    assert f"<b>{evaluation['segm/AP']:.1f}</b>mask AP" in page
    (results,) = (demo.folder / "upernet" / "test").glob("*/*.json")
    assert f"<b>{json.loads(results.read_text())['mIoU']:.1f}</b>mIoU" in page
    for name in ("ball", "tile", "cone", "star"):
        assert page.count(f"<tr><td>{name}</td>") == 2
    assert page.count("<tr><td>grass</td>") == 1


def test_what_is_done_is_not_done_again(demo):
    weights = demo.folder / "mask_rcnn" / "model_final.pth"
    before = weights.stat().st_mtime_ns
    (demo.folder / "steps" / "seen_over").unlink()
    output = demo.run()
    assert output.count(": done before\n") == 16
    assert "[12/17] The same over the photographs\n" in output
    assert weights.stat().st_mtime_ns == before


def test_a_page_of_an_unfinished_demo_is_refused_in_one_line(demo, tmp_path, run_tool):
    unfinished = shutil.copytree(demo.folder, tmp_path / "unfinished")
    (unfinished / "index.html").unlink()
    shutil.rmtree(unfinished / "upernet" / "test")
    status, _, errors = run_tool("demo_report.py", unfinished)
    assert status == 2
    assert errors == f"demo_report.py: no results in {unfinished / 'upernet' / 'test'}\n"
    assert not (unfinished / "index.html").exists()


def test_a_wrong_argument_is_answered_with_the_usage(complete_environment):
    result = subprocess.run(
        ["bash", str(TOOLS / "demo.sh"), "--fast"],
        capture_output=True,
        text=True,
        env=complete_environment,
        check=False,
    )
    assert result.returncode == 2
    assert "bash tools/demo.sh [--all] --quick [DIR]" in result.stderr
