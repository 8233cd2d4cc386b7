#!/usr/bin/env python3
"""Build the wheel and the sdist, and try the wheel as a new user would: in a fresh environment for each extra.

    python tools/check_wheel.py
    python tools/check_wheel.py viz openmmlab,mmcv-lite

An environment is made of the packages that the wheel asks for with that extra and no others, linked from the
environment that runs this, which `tools/setup.sh` has made; nothing is fetched. In a folder of its own, outside the
repository, the example of that extra is run, as many extras at a time as there are cores. Whatever fails ends it.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from importlib.util import cache_from_source
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from focalnet_backbone.sample.scenes import make_sample_dataset

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "focalnet-backbone"
DETECTRON2 = "sal-detectron2"
"""detectron2 is on no index as such; this is its Python part."""

SEG = "upernet_focalnet_sample"
DET = "mmdet/mask_rcnn_focalnet_sample"
D2 = "detectron2/mask_rcnn_focalnet_sample.yaml"
SHORT = ["train_cfg.max_iters=1", "train_cfg.val_interval=1", "train_dataloader.batch_size=2"]
COCO = [
    *("--train-json", "data/sample/coco/instances_training.json", "--train-images", "data/sample/images/training"),
    *("--val-json", "data/sample/coco/instances_validation.json", "--val-images", "data/sample/images/validation"),
]
PHOTO = "data/sample/images/validation/00001.jpg"
# What a user does with each extra: arguments of `focalnet`, or of Python where they begin with -c.
EXAMPLES = {
    "": [
        ["--version"],
        ["list", "configs"],
        ["extract", PHOTO, "--variant", "focalnet_tiny_srf", "--max-size", "64", "--out", "features"],
        ["doctor"],
    ],
    "viz": [
        ["see", "--what", "kernels", "--stage", "1", "--block", "1", "--out", "seen"],
        ["extract", PHOTO, "--max-size", "64", "--out", "features", "--plot"],
        ["doctor", "viz"],
    ],
    "analysis": [["analyze", "focalnet_tiny_srf"]],
    "sample": [["sample", "drawn", "--train", "1", "--val", "1", "--size", "64"]],
    "detectron2": [
        ["train", D2, *COCO, "SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "2", "OUTPUT_DIR", "d2"],
        ["test", D2, "d2/model_final.pth", *COCO[4:], "OUTPUT_DIR", "d2_test"],
        ["predict", D2, "d2/model_final.pth", PHOTO, "--out", "found"],
        ["-c", "from focalnet_backbone.detectron2 import get_config; get_config('mask_rcnn_focalnet_tiny_srf_1x.py')"],
    ],
    "openmmlab,mmcv-lite": [
        ["config", SEG, *SHORT, "--out", "seg.py"],
        ["config", DET, *SHORT, "--out", "det.py"],
        ["-c", "import runpy, sys; from mmseg import __file__ as f; sys.argv[1:] = ['seg.py', '--work-dir', 'seg']; "
         "runpy.run_path(f.replace('__init__.py', '.mim/tools/train.py'), run_name='__main__')"],
        ["train", "det.py", "--work-dir", "det"],
        ["predict", "seg.py", "seg/iter_1.pth", PHOTO, "--out", "found"],
        ["-c", "import focalnet_backbone.openmmlab; from mmdet.apis import DetInferencer; "
         f"DetInferencer('mask_rcnn_focalnet_sample', 'det/iter_1.pth', 'cpu')('{PHOTO}')"],
    ],
    "shards": [
        ["extract", "data/sample/images/validation", "--max-size", "64", "--pool", "gap", "--out", "features.parquet"],
    ],
    "export": [
        ["-c", "from focalnet_backbone import FocalNetConfig; "
         "from focalnet_backbone.models.classification import FocalNetForImageClassification as Classifier; "
         "Classifier(FocalNetConfig(embed_dim=8, depths=[1, 1])).save_pretrained('small')"],
        ["export", "small", "--backbone", "--to", "onnx", "--out", "backbone.onnx"],
    ],
    "all": [["doctor", "core", "detectron2", "mmsegmentation", "mmdetection", "mmpretrain", "viz"]],
}  # fmt: skip


def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", metavar="EXTRAS", help=f"some of {' '.join(filter(None, EXAMPLES))}")
    extras = parser.parse_args().extras
    if set(extras) - set(EXAMPLES):
        parser.error(f"unknown: {' '.join(set(extras) - set(EXAMPLES))}")
    with tempfile.TemporaryDirectory(prefix="focalnet-wheel-") as folder:
        try:
            wheel = build(Path(folder) / "dist")
            make_sample_dataset(Path(folder) / "data" / "sample", train=4, val=2, size=64)
            # The longest first, so that none is left to run alone.
            tried = sorted(extras or EXAMPLES, key=lambda extra: -sum(map(programs, EXAMPLES[extra])))
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for told in pool.map(lambda extra: try_extra(wheel, extra, Path(folder)), tried):
                    print(told, flush=True)
        except (LookupError, subprocess.CalledProcessError) as error:
            print(f"check_wheel.py: {error}", file=sys.stderr)
            return 1
    return 0


def programs(arguments: list[str]) -> int:
    """How many programs an example starts: doctor one for each part."""
    return max(1, len(arguments) - 1) if arguments[0] == "doctor" else 1


def build(folder: Path) -> Path:
    """Build the sdist, from it the wheel, and check that the wheel holds what the repository does. Returns its path."""
    start = time.monotonic()
    python = [sys.executable, "-m"]
    run([*python, "build", "--no-isolation", "--outdir", str(folder), str(ROOT)])
    run([*python, "twine", "check", "--strict", *map(str, folder.iterdir())])
    (wheel,) = folder.glob("*.whl")
    listed = subprocess.run(
        ["git", "ls-files", "focalnet_backbone", "configs"], cwd=ROOT, capture_output=True, text=True
    )
    tracked = {path.replace("configs/", "focalnet_backbone/.mim/configs/", path.startswith("configs/")): ROOT / path
               for path in listed.stdout.splitlines() if (ROOT / path).is_file()}  # fmt: skip
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    if listed.returncode == 0 and held != {name: path.read_bytes() for name, path in tracked.items()}:
        different = sorted(name for name in {*held, *tracked} if name not in held or name not in tracked) or "contents"
        raise LookupError(f"the wheel is not what the repository holds: {different}")
    configs = sum(name.startswith("focalnet_backbone/.mim/configs/") for name in held)
    print(f"built {wheel.name}: {len(held)} files, {configs} of them configs, in {time.monotonic() - start:.0f} s")
    return wheel


def try_extra(wheel: Path, extra: str, folder: Path) -> str:
    """Make an environment for a wheel with one extra, and run its example there. Returns how long each part took."""
    start = time.monotonic()
    place = folder / (extra or "core")
    names = make_environment(place / "env", wheel, extra)
    python = place / "env" / "bin" / "python"
    work = place / "work"
    work.mkdir()
    shutil.copytree(folder / "data", work / "data")
    told = [f"{wheel.name}[{extra}]: {len(names)} packages in {time.monotonic() - start:.0f} s"]
    for arguments in EXAMPLES[extra]:
        begin = time.monotonic()
        module = [] if arguments[0] == "-c" else ["-m", "focalnet_backbone"]
        run([str(python), "-W", "ignore", *module, *arguments], cwd=work)
        shown = " ".join(["python" if arguments[0] == "-c" else "focalnet", *arguments])
        told.append(f"  {time.monotonic() - begin:5.1f} s  {shown[:110]}")
    shutil.rmtree(place)
    return "\n".join(told)


def make_environment(place: Path, wheel: Path, extra: str) -> list[str]:
    """An environment with a wheel, and what it asks for with an extra. Returns the names of the packages."""
    venv.create(place, with_pip=False)
    (site,) = place.glob("lib/python*/site-packages")
    wanted = wheel_requirements(wheel, set(filter(None, extra.split(","))))
    if "detectron2" in extra or extra == "all":
        wanted.append(Requirement(DETECTRON2))
    found = closure(wanted)
    for name in found:
        link(name, site)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)])
    return sorted(found)


def wheel_requirements(wheel: Path, extras: set[str]) -> list[Requirement]:
    """What a wheel asks for with some extras."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    lines = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("Requires-Dist: ")]
    wanted = applicable(lines, extras)
    # An extra may be others of the same package.
    more = {name for requirement in wanted if requirement.name == PACKAGE for name in requirement.extras} - extras
    return wheel_requirements(wheel, extras | more) if more else [part for part in wanted if part.name != PACKAGE]


def applicable(lines: Iterable[str], extras: Iterable[str]) -> list[Requirement]:
    """The requirements that hold here, with some extras."""
    chosen = [{"extra": extra} for extra in ("", *extras)]
    parsed = map(Requirement, lines)
    return [part for part in parsed if part.marker is None or any(part.marker.evaluate(extra) for extra in chosen)]


def closure(wanted: list[Requirement]) -> dict[str, metadata.Distribution]:
    """The installed packages that fulfil requirements, and in turn theirs. Raises `LookupError` if one is missing."""
    found: dict[str, metadata.Distribution] = {}
    seen = set()
    while wanted:
        requirement = wanted.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise LookupError(f"{name} is not installed in {sys.prefix}; tools/setup.sh does that") from None
        if not requirement.specifier.contains(distribution.version, prereleases=True):
            raise LookupError(f"{name} {distribution.version} is installed, but {requirement} is asked for")
        found[name] = distribution
        if name != DETECTRON2:  # It is installed without what it asks for, which its extra has in other versions.
            wanted += applicable(distribution.requires or (), requirement.extras)
    return found


def link(name: str, site: Path) -> None:
    """Put a package's files into another environment, by hard links where that is possible."""
    made = set()
    for source, place in installed_files(name):
        target = os.path.join(site, place)
        folder = os.path.dirname(target)
        if folder not in made:
            os.makedirs(folder, exist_ok=True)
            made.add(folder)
        try:
            os.link(source, target)
        except FileExistsError:
            continue
        except OSError:
            os.symlink(source, target)


@functools.cache
def installed_files(name: str) -> list[tuple[str, str]]:
    """The files of a package that is installed here, each with its place in an environment."""
    distribution = metadata.distribution(name)
    files = {str(distribution.locate_file(file)): str(file) for file in distribution.files or ()}
    # What was compiled after the installation, too, so that no environment compiles it anew.
    files |= {
        cache_from_source(source): cache_from_source(place) for source, place in files.items() if place[-3:] == ".py"
    }
    # Without programs, and what was compiled and removed since.
    return [(source, place) for source, place in files.items() if ".." not in place and os.path.isfile(source)]


def run(command: list[str], cwd: Path | None = None) -> None:
    """Run a program without this repository in its way. Raises `CalledProcessError` after showing what it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment.setdefault("OMP_NUM_THREADS", "1")  # Others run at the same time.
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, check=False)
    if ended.returncode:
        print(ended.stdout[-2000:], ended.stderr[-3000:], sep="\n", file=sys.stderr)
        raise subprocess.CalledProcessError(ended.returncode, command)


if __name__ == "__main__":
    sys.exit(main())
