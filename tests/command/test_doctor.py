"""`focalnet doctor`: what is missing, and the line that cures it."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest

from focalnet_backbone.command import doctor

REQUIRES = [
    "torch>=2.7",
    'fvcore; extra == "detectron2"',
    'setuptools<81; extra == "detectron2"',
    'mmcv-lite<2.2.0,>=2.0.0; extra == "mmcv-lite"',
    'opencv-python; extra == "openmmlab"',
    'setuptools<81; extra == "openmmlab"',
    'matplotlib; extra == "viz"',
    'sphinx; extra == "paper"',
]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs it in an environment with these versions of packages; returns status and what it printed of each part."""

    def run(installed: dict[str, str], *parts: str, trial: str = "") -> tuple[int, dict[str, list[str]]]:
        def version(name):
            if name not in installed:
                raise metadata.PackageNotFoundError(name)
            return installed[name]

        extras = {"Provides-Extra": ["detectron2", "mmcv-lite", "openmmlab", "viz", "paper", "all", "dev"]}
        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
        monkeypatch.setattr(
            metadata, "metadata", lambda name: type("M", (), {"get_all": lambda self, key: extras[key]})()
        )
        monkeypatch.setattr(doctor, "try_out", lambda code: trial)
        monkeypatch.setattr(sys, "argv", ["focalnet doctor", *parts])
        status = doctor.main()
        found: dict[str, list[str]] = {}
        name = ""
        for line in capsys.readouterr().out.splitlines()[2:]:
            if line[2] == " ":
                found[name].append(line.strip())
            else:
                name, *words = line.split()
                found[name] = [" ".join(words)]
        return status, found

    return run


def test_the_core_alone_is_enough(run):
    status, found = run({"torch": "2.14.1"})
    assert status == 0
    assert found["core"] == ["works"]
    assert found["viz"] == ["lacks matplotlib", "pip install matplotlib"]
    assert found["paper"] == ["lacks sphinx", "pip install sphinx"]
    assert not {"dev", "all"} & set(found)


def test_a_version_that_does_not_fit_is_named_with_the_one_that_does(run):
    installed = {"torch": "2.14.1", "setuptools": "82.0", "mmcv-lite": "2.2.0", "opencv-python-headless": "5.0"}
    status, found = run(installed, "mmdetection")
    assert status == 1
    lacks, cure = found["mmdetection"]
    assert lacks == "lacks mmcv-lite<2.2.0,>=2.0.0 (there is 2.2.0), setuptools<81 (there is 82.0)"
    assert cure == 'pip install "mmcv-lite<2.2.0,>=2.0.0" "setuptools<81"'


def test_a_compiled_mmcv_stands_in_for_the_lite_one(run):
    installed = {"torch": "2.14.1", "setuptools": "80.0", "mmcv": "2.1.0", "opencv-python": "5.0"}
    assert run(installed, "mmdetection", "mmsegmentation") == (
        0,
        {"mmdetection": ["works"], "mmsegmentation": ["works"]},
    )


def test_detectron2_itself_is_asked_for_and_how_to_get_it(run):
    installed = {"torch": "2.14.1", "setuptools": "80.0", "fvcore": "0.1"}
    lacks, *cures = run(installed, "detectron2")[1]["detectron2"]
    assert lacks == "lacks detectron2"
    assert "--no-build-isolation" in cures[0]
    assert cures[-1].endswith(" sal-detectron2")
    assert run({**installed, "sal-detectron2": "0.7.2"}, "detectron2") == (0, {"detectron2": ["works"]})


def test_what_is_installed_but_fails_is_told_by_its_last_line(run):
    status, found = run({"torch": "2.14.1"}, trial="RuntimeError: operator torchvision::nms does not exist")
    assert status == 1
    assert found["core"] == ["has all packages, but fails: RuntimeError: operator torchvision::nms does not exist"]


def test_a_trial_is_a_process_of_its_own():
    assert doctor.try_out("import sys") == ""
    assert doctor.try_out("import no_such_module") == "ModuleNotFoundError: No module named 'no_such_module'"


def test_an_unknown_part_is_refused(run):
    with pytest.raises(SystemExit) as end:
        run({}, "tensorflow")
    assert end.value.code == 2
