"""The README's first sections do what they say."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from focalnet_backbone import list_variants
from focalnet_backbone.network.variants import VARIANTS
from tests.readme import PAGES, ROOT, code_blocks, read_section, split_commands

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@pytest.fixture
def run_command(run_tool):
    """Run a command of the README; returns its output."""

    def run(command: list[str]) -> str:
        program, *arguments = command
        if program == "python":
            status, output, errors = run_tool(Path(arguments[0]).name, *arguments[1:])
        else:
            assert program == "torchrun"
            arguments = [str(ROOT / word) if word.startswith("tools/") else word for word in arguments]
            result = subprocess.run([*TORCHRUN, *arguments], capture_output=True, text=True, check=False)
            status, output, errors = result.returncode, result.stdout, result.stderr
        assert status == 0, errors
        return output

    return run


def test_the_pyramid_snippets_and_commands_run_in_order(tmp_path, monkeypatch, capsys, run_command):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    printed = ""
    for language, block in code_blocks("Feature pyramids"):
        if language == "python":
            exec(compile(block, "README.md", "exec"), names)
            printed += capsys.readouterr().out
        else:
            for command in split_commands(block):
                run_command(command)
    assert "stage4 (768, 10, 15) stride 32" in printed
    assert "(300, 451)" in printed
    assert "'stage2': (1, 192, 25, 38)" in printed
    assert (tmp_path / "pyramid.png").stat().st_size > 20_000
    assert (tmp_path / "features" / "chelsea.png.safetensors").is_file()
    assert (tmp_path / "features" / "chelsea.png.png").is_file()


def test_the_commands_and_the_snippet_for_what_the_network_sees_run_in_order(
    tmp_path, monkeypatch, capsys, run_command
):
    monkeypatch.chdir(tmp_path)
    run_command(["python", "tools/make_sample_photos.py", "photos"])
    (language, commands), (_, snippet) = code_blocks("What the network sees")
    assert language == "bash"
    for command in split_commands(commands):
        run_command(command)
    assert (tmp_path / "pictures" / "coffee.png.gates.png").is_file()
    assert (tmp_path / "pictures" / "overlay" / "chelsea.png.modulator.png").is_file()
    assert (tmp_path / "pictures" / "kernels_stage3.png").is_file()
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == [
        "1 (1, 4, 75, 113) (1, 75, 113)",
        "2 (1, 4, 38, 57) (1, 38, 57)",
        "3 (1, 4, 19, 29) (1, 19, 29)",
        "4 (1, 4, 10, 15) (1, 10, 15)",
        "[(96, 3, 3), (96, 5, 5), (96, 7, 7)]",
    ]
    assert (tmp_path / "gates.png").stat().st_size > 20_000


def test_every_link_to_a_file_leads_to_one():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name} links to {target}"


def test_every_tool_and_config_that_is_named_is_there():
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"\b(?:tools|configs|tests)/[\w./-]+\.(?:py|sh|yaml|txt|json)\b", text):
            assert (ROOT / path).is_file(), f"{page.name} names {path}"


def test_the_front_page_loads_quickly():
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGES[0].read_text(encoding="utf-8")):
        assert (ROOT / picture).stat().st_size < 300_000


def test_the_analysis_command_runs(run_command):
    ((language, block),) = code_blocks("Variants")
    assert language == "bash"
    for command in split_commands(block):
        assert "input 1x3x800x1280" in run_command(command)


def test_the_set_up_commands_exist():
    ((_, block),) = code_blocks("Set up")
    for program, script in split_commands(block):
        assert program == "bash"
        assert (ROOT / script).is_file()


def published_sizes() -> dict[str, tuple[int, float]]:
    """Parameters and MACs (G) of each variant as the README's table has them."""
    rows = re.findall(r"^\| `(focalnet_\w+)` \| ([\d,]+) \| ([\d.]+) \|", read_section("Variants"), flags=re.MULTILINE)
    return {name: (int(parameters.replace(",", "")), float(macs)) for name, parameters, macs in rows}


def test_the_table_has_every_variant():
    assert list(published_sizes()) == list_variants()


@pytest.mark.parametrize("name", list_variants("*_tiny_*"))
def test_the_tables_numbers_are_what_the_tool_prints(name, run_command):
    parameters, macs = published_sizes()[name]
    total = run_command(["python", "tools/analyze_model.py", name]).strip().splitlines()[-1].split()
    assert int(total[1].replace(",", "")) == parameters
    assert math.isclose(float(total[2].replace(",", "")) / 1e3, macs, abs_tol=0.006)
    assert VARIANTS[name].published_params == round(parameters / 1e6, 1)
