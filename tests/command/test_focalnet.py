"""The command `focalnet`: what it finds, what it hands on, and how it calls itself."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import focalnet_backbone
from focalnet_backbone import command
from focalnet_backbone.command import by_host, main, subcommands
from focalnet_backbone.command.data import fail_data, tell_findings
from focalnet_backbone.configs import FOLDER, list_configs
from focalnet_backbone.data_check.findings import DataError, Findings
from focalnet_backbone.system.packages import EXTRAS
from tests.conftest import TOOLS

SEG, D2 = "upernet_focalnet_sample.py", "mask_rcnn_focalnet_sample.yaml"


@pytest.fixture
def run(capsys, monkeypatch):
    """`run("list", "configs")`: exit status, output and error output of `focalnet list configs`."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["focalnet", *map(str, arguments)])
        try:
            status = main()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def test_help_names_every_subcommand_without_importing_torch_or_a_framework():
    code = (
        "import sys\nfrom focalnet_backbone.command import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'mmengine', 'detectron2', 'matplotlib', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for name, what in subcommands().items():
        assert f"  {name} " in ended.stdout
        assert what in ended.stdout


def test_there_is_a_subcommand_for_each_thing_to_do():
    asked = "train test predict extract see analyze benchmark convert classify pretrain config list sample doctor"
    assert set(asked.split()) <= set(subcommands())
    assert all(what[0].isupper() and what[-1] in ".:" for what in subcommands().values())


@pytest.mark.parametrize("name", subcommands())
def test_each_subcommand_explains_itself_by_its_name_and_an_example(name, run):
    status, output, _ = run(name, "--help")
    assert status == 0
    assert output.startswith(f"usage: focalnet {name} ")
    assert re.search(rf"\n *focalnet {name}\b", output)


def test_as_a_module_it_is_the_same():
    ended = subprocess.run(
        [sys.executable, "-m", "focalnet_backbone", "--version"], capture_output=True, text=True, check=True
    )
    assert ended.stdout == f"focalnet-backbone {focalnet_backbone.__version__}\n"


def complete(*words: str) -> list[str]:
    """What bash offers for the last word of a line."""
    script = (
        f'eval "$({sys.executable} -m focalnet_backbone completion bash)"; COMP_WORDS=({" ".join(words)!s}); '
        f"COMP_CWORD={len(words) - 1}; _focalnet; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_a_shell_completes_subcommands_flags_and_configs():
    assert complete("focalnet", "ex") == ["explore", "export", "extract"]
    assert complete("focalnet", "train", "mmseg/upernet_focalnet_sam") == ["mmseg/upernet_focalnet_sample.py"]
    assert "--work-dir" in complete("focalnet", "train", "--w")
    assert complete("focalnet", "extract", "photos/") == []  # Files, then.


def test_completion_is_quick_as_it_imports_neither_torch_nor_a_framework(run):
    code = (
        "import sys\nfrom focalnet_backbone.command import main\nsys.argv[1:] = ['completion', 'zsh']\nmain()\n"
        "assert not {'torch', 'numpy', 'mmengine', 'detectron2'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_without_arguments_it_shows_its_help(run):
    assert run()[:2] == run("--help")[:2]


def test_a_misspelt_subcommand_is_answered_with_the_nearest(run):
    status, output, errors = run("extrac", "photos")
    assert (status, output) == (2, "")
    assert errors.startswith("focalnet: no subcommand 'extrac'. Did you mean 'extract'")
    assert len(errors.splitlines()) == 1


def test_errors_name_the_program_as_it_was_called(run, run_tool, tmp_path):
    arguments = (tmp_path / "nowhere", "--out", tmp_path / "out")
    assert run("extract", *arguments)[2].startswith("focalnet extract: no ")
    assert run_tool("extract_features.py", *arguments)[2].startswith("extract_features.py: no ")
    assert sys.argv[0] == "extract_features.py"  # What `focalnet` changed is back.


def test_faults_of_data_name_the_program_as_it_was_called(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["focalnet check-data", "x.py"])
    with pytest.raises(DataError) as error:
        tell_findings("check_data.py", Findings(["a.json: is empty"], ["b.json: is odd"]))
    assert fail_data("check_data.py", error.value) == 2
    said = ["focalnet check-data: warning: b.json: is odd", "focalnet check-data: a.json: is empty"]
    assert capsys.readouterr().err.splitlines() == said


def test_a_new_module_is_a_new_subcommand(run, tmp_path, monkeypatch):
    (tmp_path / "count_sheep.py").write_text('"""Count sheep."""\nimport sys\ndef main():\n    print(sys.argv)\n')
    monkeypatch.setattr(command, "__path__", [str(tmp_path), *command.__path__])
    assert subcommands()["count-sheep"] == "Count sheep."
    assert run("count-sheep", "2") == (0, "['focalnet count-sheep', '2']\n", "")


def test_nothing_is_looked_through_while_a_subcommand_is_imported(run, tmp_path, monkeypatch):
    code = "import gc\ncollections = []\ngc.callbacks.append(lambda *seen: collections.append(seen))\n"
    made = "things = [[] for _ in range(300_000)]\ndef main():\n    print(len(collections), gc.isenabled())\n"
    (tmp_path / "make_things.py").write_text(f'"""Make things."""\n{code}{made}')
    monkeypatch.setattr(command, "__path__", [str(tmp_path), *command.__path__])
    callbacks = [*gc.callbacks]
    assert run("make-things") == (0, "0 True\n", "")
    gc.callbacks[:] = callbacks


def test_a_framework_that_is_not_installed_is_one_line(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "focalnet_backbone.command.train_net", None)
    monkeypatch.delitem(sys.modules, "focalnet_backbone.command.train_net")

    def find(name, *rest):
        raise ModuleNotFoundError("No module named 'detectron2'", name="detectron2")

    monkeypatch.setattr(by_host, "load", find)
    status, _, errors = run("train", "mask_rcnn_focalnet_sample.yaml")
    assert status == 2
    assert errors == "focalnet train: detectron2 is not installed: `focalnet doctor detectron2` says how to get it\n"


WITHOUT = """
import json, os, runpy, sys
import torch, torchvision  # Once for all.
cases, tools = json.loads(sys.argv[1]), sys.argv[2]
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
for package, lines in cases.items():
    if os.fork():
        os.wait()
        continue
    os.chdir(package)
    for stream, name in (1, "out.txt"), (2, "errors.txt"):
        os.dup2(os.open(os.path.join("..", f"{package}_{name}"), os.O_WRONLY | os.O_CREAT), stream)
    for line in lines:
        sys.argv = line.split()
        try:
            runpy.run_path(f"{tools}/{sys.argv[0]}", run_name="__main__")
        except SystemExit as end:
            print(end.code)
    break
"""
LACKING = {
    "mmengine": [
        "train.py x.py",
        "test.py x.py x.pth",
        f"check_data.py {SEG}",
        f"predict.py {SEG} x.pth {SEG} --out x",
    ],
    "mmpretrain": [f"train.py {SEG}"],
    "detectron2": ["train_net.py", f"check_data.py {D2}"],
    "matplotlib": ["visualize.py --what kernels --out x"],
    "fvcore": ["analyze_model.py focalnet_tiny_srf"],
}


@pytest.fixture(scope="module")
def lacking(tmp_path_factory) -> Path:
    """Where a folder for each package holds what tools left that ran without it, and files beside it what they said."""
    place = tmp_path_factory.mktemp("lacking")
    base = "_base_ = ['mmpretrain::_base_/default_runtime.py']\n"
    for package in LACKING:
        (place / package).mkdir()
        (place / package / SEG).write_text(base + "custom_imports = dict(imports=['mmpretrain.models'])\n")
    subprocess.run([sys.executable, "-c", WITHOUT, json.dumps(LACKING), str(TOOLS)], cwd=place, check=True)
    return place


@pytest.mark.parametrize(
    ("package", "cure"),
    [
        ("mmengine", 'pip install "focalnet-backbone[openmmlab,mmcv-lite]"'),
        ("mmpretrain", 'pip install "focalnet-backbone[openmmlab,mmcv-lite,mmpretrain]"'),
        ("detectron2", "`focalnet doctor detectron2` says how to get it"),
        ("matplotlib", 'pip install "focalnet-backbone[viz]"'),
        ("fvcore", 'pip install "focalnet-backbone[analysis]"'),
    ],
    ids=LACKING,
)
def test_each_tool_names_the_pip_line_of_a_package_that_is_missing(package, cure, lacking):
    lines = LACKING[package]
    output, errors = ((lacking / f"{package}_{name}.txt").read_text() for name in ("out", "errors"))
    assert [line for line in output.splitlines() if line.isdigit()] == ["2"] * len(lines), errors
    said = [line for line in errors.splitlines() if re.match(r"\w+\.py: ", line)]
    for line, told in zip(lines, said, strict=True):
        assert re.fullmatch(rf"{line.split()[0]}: {package}[.\w]* is not installed: {re.escape(cure)}", told)
    assert [path.name for path in (lacking / package).iterdir()] == [SEG]


def test_pip_lines_name_extras_that_there_are():
    listed = (FOLDER.parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in listed for extras in EXTRAS.values() for extra in extras.split(","))


@pytest.fixture
def handed_on(monkeypatch):
    """What `focalnet train` and `focalnet test` hand to the frameworks' own command lines."""
    calls = []

    def module(tool):
        record = lambda arguments: calls.append((tool, arguments))  # noqa: E731
        return types.SimpleNamespace(main=record, run_command=record)

    monkeypatch.setattr(by_host, "load", module)
    return calls


@pytest.mark.parametrize(
    ("arguments", "tool", "expected"),
    [
        (["train", "upernet_focalnet_sample", "--amp"], "train", ["mmseg/upernet_focalnet_sample.py", "--amp"]),
        (
            ["train", "--resume", "mmdet/mask_rcnn_focalnet_sample.py"],
            "train",
            ["mmdet/mask_rcnn_focalnet_sample.py", "--resume"],
        ),
        (
            ["test", "upernet_focalnet_sample.py", "x.pth", "--tta"],
            "test",
            ["mmseg/upernet_focalnet_sample.py", "x.pth", "--tta"],
        ),
        (
            ["train", "--num-gpus", "2", "mask_rcnn_focalnet_sample.yaml", "SEED", "1"],
            "train_net",
            ["--config-file", "detectron2/mask_rcnn_focalnet_sample.yaml", "--num-gpus", "2", "SEED", "1"],
        ),
        (["train", "mmdet/mask_rcnn_focalnet_sample"], "train", ["mmdet/mask_rcnn_focalnet_sample.py"]),
        (
            ["train", "--config-file", "mask_rcnn_focalnet_sample.yaml"],
            "train_net",
            ["--config-file", "detectron2/mask_rcnn_focalnet_sample.yaml"],
        ),
        (
            ["test", "mask_rcnn_focalnet_sample.yaml", "x.pth", "--num-gpus", "2"],
            "train_net",
            [
                *("--config-file", "detectron2/mask_rcnn_focalnet_sample.yaml"),
                *("--eval-only", "--num-gpus", "2", "MODEL.WEIGHTS", "x.pth"),
            ],
        ),
        (
            ["test", "detectron2/mask_rcnn_focalnet_tiny_srf_1x.py", "x.pth"],
            "train_net",
            [
                *("--config-file", "detectron2/mask_rcnn_focalnet_tiny_srf_1x.py"),
                *("--eval-only", "train.init_checkpoint=x.pth"),
            ],
        ),
    ],
)
def test_the_config_decides_the_framework(arguments, tool, expected, run, handed_on):
    assert run(*arguments)[0] == 0
    paths = [str(FOLDER / word) if word in list_configs() else word for word in expected]
    assert handed_on == [(tool, paths)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere.py"], "focalnet train: no config at nowhere.py, and this package has no config"),
        (["train", "mask_rcnn_focalnet_tiny_srf_1x"], "focalnet train: 'mask_rcnn_focalnet_tiny_srf_1x' may be any of"),
        (["test", "x.pth"], "focalnet test: no config among x.pth;"),
        (["test", "mask_rcnn_focalnet_sample.yaml"], "focalnet test: expected CONFIG WEIGHTS"),
        (["config", "upernet_focalnet_sample", "lr"], "focalnet config: expected KEY=VALUE, got lr"),
        (["config", "nowhere"], "focalnet config: no config at nowhere"),
        (["predict", "nowhere.py", "x.pth", "x.jpg", "--out", "x"], "focalnet predict: no config at nowhere.py"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message, run, handed_on):
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    assert errors.startswith(message)
    assert len(errors.splitlines()) == 1
    assert not handed_on


def test_list_names_every_variant_and_config(run):
    output = run("list")[1]
    names = [line.split()[0] for line in output.splitlines() if line]
    assert names == [*focalnet_backbone.list_variants(), *list_configs()]
    assert [line.split()[0] for line in run("list", "configs", "mmseg")[1].splitlines()] == list_configs("mmseg")
