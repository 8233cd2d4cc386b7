"""The GPU's check, on the CPU: each part is reported as it ends, whatever becomes of the others."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.conftest import TOOLS


@pytest.fixture(scope="module")
def tool() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(TOOLS / "gpu_check.py")))


def test_the_whole_check_runs(tmp_path, warm_environment):
    out = tmp_path / "new" / "report.md"
    command = ["bash", str(TOOLS / "gpu_check.sh"), "--device", "cpu", "--quick", "--out", str(out)]
    variables = {"FOCALNET_VENV": str(warm_environment), "PYTHON_EXEC": str(warm_environment / "bin" / "python")}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **variables})
    assert result.returncode == 0, result.stdout + result.stderr
    report = out.read_text()
    assert re.findall(r"^## (.*)", report, re.MULTILINE) == ["Environment", "Tests", "A small network"]
    assert report.count(": well, ") == 3
    assert " passed" in report
    assert "| tiny_lrf, 1 x 32x32 |" in report


def test_a_part_that_fails_crashes_or_hangs_is_a_line_and_does_not_end_the_rest(tool, tmp_path, capsys):
    def part(title, code, seconds=20.0, needs=()):
        return tool.Part(title, ["-c", code], seconds, needs)

    out = tmp_path / "report.md"
    seen = f"print('the report so far', {str(out)!r}); print(open({str(out)!r}).read().count('##'))"
    parts = [
        part("Fails", "print('before'); raise SystemExit(3)"),
        part("Crashes", "import os; os.abort()"),
        part("Hangs", "import time; print('hanging', flush=True); time.sleep(60)", seconds=1),
        part("Cannot", "", needs=("timm",)),
        part("Looks", seen),
        part("Talks", "for i in range(1000): print('line', i)"),
    ]
    assert tool.check(parts, out, ["timm"]) == 3
    report = out.read_text()
    for expected in ("**failed with status 3**", "**killed by SIGABRT**", "**ended after its 1 s**", "hanging"):
        assert expected in report
    assert "- timm is not installed: nothing is compared with it" in report
    assert "## Cannot" not in report
    assert re.search(r"the report so far .*\n3\n", report), "it is whole after each part"
    assert "(850 lines before this)" in report
    assert report.count("line ") == 150
    assert "3 of 6 parts failed" in capsys.readouterr().out


def test_the_parts_take_less_than_eight_minutes_together(tool):
    parts = tool.make_parts("cuda", quick=False)
    assert sum(part.seconds for part in parts) < 480
    assert {name for part in parts for name in part.needs} <= set(tool.NEEDED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--device", "tpu"], "invalid choice"), (["--device", "cpu"], "--force replaces it")],
)
def test_what_cannot_begin_is_told_in_one_line(tool, tmp_path, monkeypatch, capsys, arguments, message):
    out = tmp_path / "mine.md"
    out.write_text("mine")
    monkeypatch.setattr(sys, "argv", ["gpu_check.sh", *arguments, "--out", str(out)])
    with contextlib.suppress(SystemExit):
        assert tool.main() == 2
    assert message in capsys.readouterr().err
    assert out.read_text() == "mine"
