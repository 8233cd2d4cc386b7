"""Say what is installed, what is missing for which framework, and the pip line that cures it.

    focalnet doctor
    focalnet doctor detectron2

Each framework that has all packages is tried as well, by an import in a process of its own. The exit status is 0 if
what was asked for works (without a name, the core), 1 otherwise.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from focalnet_backbone import __file__ as package_file
from focalnet_backbone import __version__
from focalnet_backbone.system.command_line import one_line, program

PACKAGE = "focalnet-backbone"
INSTEAD_OF = {
    "mmcv-lite": ["mmcv"],
    "opencv-python": ["opencv-python-headless", "opencv-contrib-python"],
    "detectron2": ["sal-detectron2"],
}
"""Packages that hold the same module, of which one is enough."""


@dataclass(frozen=True)
class Part:
    """Something that this package can be used for.

    Attributes:
        extras: extras of this package whose requirements it needs.
        others: requirements beyond, which no extra can have.
        trial: a program that fails if it does not work.
    """

    extras: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    trial: str = ""


_OPENMMLAB = ("openmmlab", "mmcv-lite")
PARTS = {
    "core": Part(trial="import torch, torchvision; torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)"),
    "detectron2": Part(("detectron2",), ("detectron2",), "import focalnet_backbone.detectron2, detectron2.model_zoo"),
    "mmsegmentation": Part(_OPENMMLAB, trial="import focalnet_backbone.openmmlab.runners, mmseg.models"),
    "mmdetection": Part(_OPENMMLAB, trial="import focalnet_backbone.openmmlab.runners, mmdet.models"),
    "mmpretrain": Part(
        (*_OPENMMLAB, "mmpretrain"), trial="import focalnet_backbone.openmmlab.runners, mmpretrain.models"
    ),
    "viz": Part(("viz",), trial="import matplotlib"),
}


@program("focalnet doctor")
def main() -> int:
    """Run the command line; returns its exit status."""
    parts = {**PARTS, **{extra: Part((extra,)) for extra in _other_extras()}}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(parts)}; all if none is named")
    args = parser.parse_args()
    unknown = [name for name in args.parts if name not in parts]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(parts)}")
    print(describe_environment())
    works = {}
    for name in args.parts or parts:
        problems, cures = examine(parts[name])
        works[name] = not problems
        print(f"  {name:<16}{'; '.join(problems) or 'works'}", flush=True)
        for cure in cures:
            print(f"{'':18}{cure}")
    return 0 if all(works[name] for name in args.parts or ["core"]) else 1


def describe_environment() -> str:
    """Versions and places, as a report of a problem should have them."""
    found = ", ".join(f"{name} {installed_version(name) or 'missing'}" for name in ("torch", "torchvision"))
    return (
        f"{PACKAGE} {__version__} at {Path(package_file).parent}\n"
        f"Python {platform.python_version()} on {platform.platform()}, {found}"
    )


def installed_version(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requirements(extras: Iterable[str] = ()) -> list[Requirement]:
    """What this package requires with these extras, or without any; empty where it is not installed."""
    try:
        listed = [Requirement(line) for line in metadata.requires(PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        return []
    wanted = []
    for requirement in listed:
        inside = [extra for extra in extras if requirement.marker and requirement.marker.evaluate({"extra": extra})]
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}) or inside:
            wanted.append(requirement)
    return wanted


def _other_extras() -> list[str]:
    """Extras that no part has, and that are for users rather than for who works on this package."""
    try:
        listed = metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        listed = []
    covered = {extra for part in PARTS.values() for extra in part.extras}
    return [extra for extra in listed if extra not in covered and extra not in ("all", "dev", "docs")]


def is_there(requirement: Requirement) -> bool:
    """Whether a requirement, or what stands in for it, is installed in a version that fits."""
    versions = map(installed_version, [requirement.name, *INSTEAD_OF.get(requirement.name, [])])
    return any(version and requirement.specifier.contains(version, prereleases=True) for version in versions)


def examine(part: Part) -> tuple[list[str], list[str]]:
    """What is wrong with a part, and the lines that cure it."""
    missing = [requirement for requirement in requirements(part.extras) if not is_there(requirement)]
    cures = []
    if missing:
        # One is installed in a version that does not fit, or it is absent; to pip, that is the same.
        plain = [f"{requirement.name}{requirement.specifier}" for requirement in missing]
        cures.append("pip install " + " ".join(f'"{name}"' if set("<>!") & set(name) else name for name in plain))
    others = [name for name in part.others if not is_there(Requirement(name))]
    if "detectron2" in others:
        cures += detectron2_lines()
    lacking = [*map(_describe_missing, missing), *others]
    if lacking:
        return [f"lacks {', '.join(lacking)}"], cures
    problem = try_out(part.trial) if part.trial else ""
    return ([f"has all packages, but fails: {problem}"] if problem else []), []


def _describe_missing(requirement: Requirement) -> str:
    version = installed_version(requirement.name)
    return f"{requirement.name}{requirement.specifier}" + (f" (there is {version})" if version else "")


def detectron2_lines() -> list[str]:
    """How to get detectron2, which is published as source alone."""
    return [
        'pip install --no-build-isolation "git+https://github.com/facebookresearch/detectron2.git"',
        "or, without a compiler, its Python part (this package lends the operators):",
        "pip install --no-deps --only-binary=:all: --python-version 3.10 --platform linux_x86_64 --implementation cp "
        f'--target "{sysconfig.get_path("purelib")}" sal-detectron2',
    ]


def try_out(code: str) -> str:
    """Run a program in a process of its own. Returns the line that it ended in, empty if all went well."""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    if ended.returncode == 0:
        return ""
    lines = ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"]
    return one_line(RuntimeError(lines[-1]))
