"""The small command lines and the set-up scripts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from focalnet_backbone import FocalNetConfig
from focalnet_backbone.features.images import find_images
from tests.conftest import TOOLS


def run(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("tool", sorted(path.name for path in TOOLS.glob("*.py")))
def test_every_tool_explains_itself(tool, tmp_path, monkeypatch, run_tool):
    monkeypatch.chdir(tmp_path)
    status, output, _ = run_tool(tool, "--help")
    assert status == 0
    assert "usage:" in output
    assert len(output.splitlines()) > 5


@pytest.mark.parametrize("script", ["check.sh", "demo.sh", "dist_test.sh", "dist_train.sh", "setup.sh"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_script_explains_itself_and_does_nothing_else(script, flag, tmp_path):
    environment = {**os.environ, "FOCALNET_VENV": str(tmp_path / "venv")}
    result = run("bash", TOOLS / script, flag, cwd=tmp_path, env=environment)
    assert result.returncode == 0
    assert f"{script} " in result.stdout or script == "check.sh"
    assert not result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", [("dist_train.sh",), ("dist_test.sh", "weights.pth")], ids=lambda words: words[0])
@pytest.mark.parametrize("processes", ["x", "0", "-1", ""])
def test_a_wrong_number_of_processes_is_named_in_one_line(script, processes):
    name, *weights = script
    result = run("bash", TOOLS / name, "config.py", *weights, processes)
    assert result.returncode == 2
    assert result.stderr == f"{name}: PROCESSES must be a number of at least 1, got '{processes}'\n"


@pytest.mark.parametrize("script", [("dist_train.sh",), ("dist_test.sh", "weights.pth")], ids=lambda words: words[0])
def test_a_config_that_is_not_there_is_named_before_processes_start(script):
    name, *weights = script
    result = run("bash", TOOLS / name, "nowhere.py", *weights, "2")
    assert result.returncode == 2
    assert result.stderr == f"{name}: no config file nowhere.py\n"


def test_caches_that_processes_would_write_all_at_once_are_filled_before(tmp_path):
    fill = f'source "{TOOLS}/environment.sh"; source "{TOOLS}/processes.sh"; fill_caches'
    result = run("bash", "-c", fill, env={**os.environ, "FOCALNET_VENV": sys.prefix, "XDG_CACHE_HOME": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    grammars = {path.name.partition("-")[0] for path in tmp_path.glob("YAPF/*/*.pickle")}
    assert grammars == {"Grammar", "PatternGrammar"}


def test_set_up_takes_no_arguments(tmp_path):
    environment = {**os.environ, "FOCALNET_VENV": str(tmp_path / "venv")}
    result = run("bash", TOOLS / "setup.sh", "torch", env=environment)
    assert result.returncode == 2
    assert "bash tools/setup.sh" in result.stderr
    assert not (tmp_path / "venv").exists()


def test_a_tool_runs_from_any_folder(tmp_path):
    result = run(sys.executable, TOOLS / "analyze_model.py", "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_analyze_model_prints_a_table_a_stage(tmp_path, run_tool):
    FocalNetConfig(embed_dim=8, depths=[1, 1]).save_pretrained(tmp_path)
    arguments = (tmp_path / "config.json", "--size", 32, 64, "--set", "focal_windows=[9,9]")
    status, output, errors = run_tool("analyze_model.py", *arguments)
    assert status == 0, errors
    assert [line.split()[0] for line in output.splitlines()[1:] if line] == [
        "part",
        "stem",
        "stage1",
        "stage2",
        "norm",
        "head",
        "total",
    ]
    assert "input 1x3x32x64" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["focalnet_tiny"], "no FocalNet variant 'focalnet_tiny'"),
        (["focalnet_tiny_srf", "--set", "focal_window=9"], "Did you mean 'focal_windows'"),
        (["focalnet_tiny_srf", "--size", "0"], "--size must be one or two numbers of at least 1"),
    ],
)
def test_analyze_model_answers_a_wrong_argument_in_one_line(arguments, message, run_tool):
    status, _, errors = run_tool("analyze_model.py", *arguments)
    assert status == 2
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_sample_photos_are_written(tmp_path, run_tool):
    status, output, errors = run_tool("make_sample_photos.py", tmp_path / "photos")
    assert status == 0, errors
    assert output == f"wrote 4 photographs to {tmp_path / 'photos'}\n"
    assert [path.name for path in find_images(tmp_path / "photos")] == [
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "rocket.png",
    ]
    (tmp_path / "file").touch()
    status, _, errors = run_tool("make_sample_photos.py", tmp_path / "file" / "photos")
    assert status == 2
    assert errors.startswith("make_sample_photos.py: ")
    assert len(errors.strip().splitlines()) == 1


def test_set_up_is_complete_and_quick_to_say_so(complete_environment, tmp_path):
    result = run("bash", TOOLS / "setup.sh", cwd=tmp_path, env=complete_environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"Set-up is complete: {sys.prefix}"


def test_set_up_refuses_an_old_python(tmp_path):
    old = tmp_path / "python"
    write_program(old, "[ \"$1\" = --version ] && echo 'Python 3.8.0'\nexit 1")
    environment = {**os.environ, "PYTHON": str(old), "FOCALNET_VENV": str(tmp_path / "venv")}
    result = run("bash", TOOLS / "setup.sh", env=environment)
    assert result.returncode == 1
    assert result.stderr.startswith("setup: needs Python 3.10 or newer")
    assert not (tmp_path / "venv").exists()


def test_set_up_leaves_a_folder_that_is_no_environment_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    result = run("bash", TOOLS / "setup.sh", env={**os.environ, "FOCALNET_VENV": str(tmp_path)})
    assert result.returncode == 1
    assert "holds no Python environment with pip" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_set_up_says_when_there_is_no_network(tmp_path):
    nowhere = "http://127.0.0.1:9/simple"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PIP_")},
        "FOCALNET_VENV": str(tmp_path / "venv"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": nowhere,
        "PIP_RETRIES": "1",
        "PIP_CACHE_DIR": str(tmp_path / "cache"),
    }
    result = run("bash", TOOLS / "setup.sh", env=environment)
    assert result.returncode == 1
    assert "setup: no network" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def write_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_set_up_says_when_the_disk_is_full(tmp_path):
    """The log lies on that disk too, so it may be empty."""
    venv = tmp_path / "venv"
    write_program(venv / "bin" / "python", 'case "$*" in *missing*) echo torch;; *install*) exit 1;; esac')
    write_program(tmp_path / "df", "echo Filesystem; echo disk 9000000 9000000 0 100% /")
    (venv / "made-by-focalnet-setup").touch()
    environment = {**os.environ, "FOCALNET_VENV": str(venv), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    result = run("bash", TOOLS / "setup.sh", env=environment)
    assert result.returncode == 1
    assert result.stderr == f"setup: the disk is full (0 left at {venv}); about 9 GB are needed.\n"


def test_set_up_says_what_of_a_users_environment_is_in_the_way(tmp_path):
    answer = (
        "The conflict is caused by:\\n    timm 1.0.31 depends on torch>=1\\n    you have torch 0.4\\n\\nTo fix this"
    )
    install = f"printf '{answer}'; exit 1"
    write_program(tmp_path / "bin" / "python", f'case "$*" in *missing*) echo timm;; *install*) {install};; esac')
    result = run("bash", TOOLS / "setup.sh", env={**os.environ, "FOCALNET_VENV": str(tmp_path)})
    assert result.returncode == 1
    assert result.stderr == (
        f"setup: what {tmp_path} has conflicts with what is needed: timm 1.0.31 depends on torch>=1;"
        f"you have torch 0.4. Details: {tmp_path}/setup.log\n"
    )


@pytest.mark.parametrize("own", [True, False])
def test_set_up_renews_pip_and_compiles_by_all_cores_in_an_environment_of_its_own_alone(own, tmp_path):
    calls = tmp_path / "calls"
    answers = f'case "$*" in *missing*) [ -s "{calls}" ] || echo torch;; *sysconfig*) echo purelib;; '
    answers += f'*compileall*|*install*) echo "$@" >>"{calls}";; esac'
    write_program(tmp_path / "bin" / "python", answers)
    if own:
        (tmp_path / "made-by-focalnet-setup").touch()
    result = run("bash", TOOLS / "setup.sh", env={**os.environ, "FOCALNET_VENV": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    *installed, last = calls.read_text().splitlines()
    assert all(("--no-compile" in call) == own for call in installed)
    assert any(call.endswith("pip>=25") for call in installed) == own
    found = re.search(r"compileall -q -j 0 -x (\S+) purelib$", last)
    assert bool(found) == own
    if own:  # Wherever the environment lies.
        files = [f"/tests/mine/.venv/lib/python3.11/site-packages/numpy/{file}" for file in ("core.py", "tests/a.py")]
        assert [bool(re.search(found[1], file)) for file in files] == [False, True]


def test_set_up_says_when_it_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    result = run("bash", TOOLS / "setup.sh", env={**os.environ, "FOCALNET_VENV": str(tmp_path / "file" / "venv")})
    assert result.returncode == 1
    assert result.stderr == f"setup: cannot write to {tmp_path}/file/venv.\n"


def add_package(site: Path, name: str, version: str, **files: str) -> Path:
    """What `pip` notes of an installed package."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    files = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "RECORD": "x,,\n", **files}
    for file, content in files.items():
        (info / file).write_text(content)
    return info


def inspect(site: list[Path], question: str, own: str, *, repo: Path = TOOLS.parent) -> list[str]:
    """What `inspect_environment.py` says of an environment whose packages are in these folders alone."""
    code = (
        "import sys, runpy; from importlib import metadata; all = metadata.distributions; "
        f"metadata.distributions = lambda path={list(map(str, site))!r}, **k: all(path=path, **k); "
        f"import sysconfig; sysconfig.get_path = lambda name: {str(site[0])!r}; "
        f"runpy.run_path({str(TOOLS / 'inspect_environment.py')!r}, run_name='__main__')"
    )
    result = run(sys.executable, "-c", code, question, "--own", own, "--repo", repo)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_pins_of_a_users_environment_are_what_it_has(tmp_path):
    """A user's packages are held at their versions; those that ours would take the place of count as there."""
    for name, version in [("torch", "2.7.0+cu126"), ("mmcv", "2.1.0"), ("detectron2", "0.6"), ("setuptools", "65.5.0")]:
        add_package(tmp_path, name, version)
    # A killed pip leaves what it was removing with a `~`: timm is gone.
    add_package(tmp_path, "timm", "1.0.31").rename(tmp_path / "~imm-1.0.31.dist-info")
    answers = {question: inspect([tmp_path], question, "no") for question in ("missing", "constraints")}
    assert "torch==2.7.0+cu126" in answers["constraints"]
    assert "timm==1.0.31" in answers["constraints"]
    # venv's own, which PyTorch refuses.
    assert "setuptools==65.5.0" not in answers["constraints"]
    assert "timm" in answers["missing"]
    assert {"torch", "mmcv-lite", "sal-detectron2"}.isdisjoint(answers["missing"])


def test_of_two_pins_the_one_for_this_python_counts(tmp_path):
    pins = [line.split("==")[0] for line in inspect([tmp_path], "constraints", "yes")]
    assert len(set(pins)) == len(pins) > 30
    (tmp_path / "tools").mkdir()
    this = f"3.{sys.version_info.minor}"
    pins = f"a==1 ; python_version < '{this}'\na==2 ; python_version >= '{this}'"
    (tmp_path / "tools" / "constraints.txt").write_text(pins)
    assert inspect([tmp_path / "site"], "constraints", "yes", repo=tmp_path) == ["a==2"]


def test_an_own_environment_is_brought_to_the_pins_and_rid_of_what_is_not_whole(tmp_path):
    add_package(tmp_path, "torch", "2.14.1+cpu")
    add_package(tmp_path, "numpy", "1.26.0")
    # pip writes RECORD last.
    interrupted = add_package(tmp_path, "timm", "1.0.31", RECORD="")
    missing = inspect([tmp_path], "missing", "yes")
    assert {"numpy", "timm"} <= set(missing)
    assert "torch" not in missing
    inspect([tmp_path], "repair", "no")
    assert interrupted.exists()
    inspect([tmp_path], "repair", "yes")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["numpy-1.26.0.dist-info", "torch-2.14.1+cpu.dist-info"]


def test_the_repository_on_the_python_path_does_not_hide_its_installation(tmp_path):
    build, site = tmp_path / "repository", tmp_path / "site"
    add_package(build, "focalnet-backbone", "0.1.0")
    assert "focalnet-backbone" in inspect([build, site], "missing", "yes")
    origin = f'{{"url": "{TOOLS.parent.as_uri()}", "dir_info": {{"editable": true}}}}'
    installed = add_package(site, "focalnet-backbone", "0.1.0", **{"direct_url.json": origin})
    # Of before there was the command `focalnet`, which pip has to make.
    assert "focalnet-backbone" in inspect([build, site], "missing", "yes")
    (installed / "entry_points.txt").write_text("[console_scripts]\nfocalnet = focalnet_backbone.command:main\n")
    assert "focalnet-backbone" not in inspect([build, site], "missing", "yes")
