"""Tell `setup.sh` what the environment that runs this lacks, and which versions to hold while filling it.

`missing` prints the pinned packages that are absent (or, in the repository's own environment, of another
version), on one line. `constraints` prints what pip may install: the pins, with every installed package of a
user's environment (setuptools apart) held at its version. `repair` forgets packages whose installation was cut off,
so that pip installs them anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sysconfig
from importlib import metadata
from pathlib import Path

# Of what there is in an environment where nothing is installed yet, the only reader of markers.
from pip._vendor.packaging.markers import Marker

# Packages that may change in a user's environment: this one, and what `venv` brings along by itself in a version too
# old for PyTorch, or too new for detectron2.
NOT_HELD = ("focalnet-backbone", "setuptools")
COMMAND = "focalnet"
# A package of the user's that takes the place of a pinned one.
SUBSTITUTES = {
    "sal-detectron2": ["detectron2"],
    "mmcv-lite": ["mmcv", "mmcv-full"],
    "opencv-python": ["opencv-python-headless"],
}


def read_pins(path: Path) -> dict[str, str]:
    """Pinned version by package, for the Python that runs this."""
    pins = {}
    for line in path.read_text().splitlines():
        requirement, _, marker = line.split("#")[0].partition(";")
        if requirement.strip() and (not marker or Marker(marker).evaluate()):
            name, version = requirement.strip().split("==")
            pins[name] = version
    return pins


def is_whole(dist: metadata.Distribution) -> bool:
    """Whether its installation finished: pip writes RECORD last, and puts a `~` before what it was removing."""
    record = dist.read_text("RECORD") or dist.read_text("installed-files.txt")
    return bool(dist.metadata["Name"] and record and not dist._path.name.startswith("~"))


def installed_versions() -> dict[str, str]:
    """Versions of the installed packages by normalised name."""
    whole = [dist for dist in metadata.distributions() if is_whole(dist)]
    return {dist.metadata["Name"].lower().replace("_", "-"): dist.version for dist in whole}


def forget_interrupted() -> None:
    """Remove the records of packages whose installation did not finish."""
    for dist in metadata.distributions(path=[sysconfig.get_path("purelib")]):
        if not is_whole(dist):
            shutil.rmtree(dist._path)


def is_editable_here(repo: Path) -> bool:
    """Whether the package is installed in editable form from this repository, with the command that it has by now."""
    # Where the repository is on PYTHONPATH, its build information is found too, and tells nothing.
    for dist in metadata.distributions(name="focalnet-backbone"):
        origin = json.loads(dist.read_text("direct_url.json") or "{}")
        if origin.get("url") == repo.as_uri() and dist.entry_points.select(group="console_scripts", name=COMMAND):
            return True
    return False


def same_version(found: str, pinned: str) -> bool:
    """Whether they agree, up to a build tag such as +cpu."""
    return found.split("+")[0] == pinned


def main() -> None:
    """Print the answer to the question of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=["missing", "constraints", "repair"])
    parser.add_argument(
        "--own", choices=["yes", "no"], required=True, help="whether the environment is the repository's own"
    )
    parser.add_argument("--repo", type=Path, required=True)
    args = parser.parse_args()
    pins = read_pins(args.repo / "tools" / "constraints.txt")
    installed = installed_versions()

    if args.question == "repair":
        if args.own == "yes":
            forget_interrupted()
        return

    if args.question == "constraints":
        held = {} if args.own == "yes" else {k: v for k, v in installed.items() if k not in NOT_HELD}
        for name, version in {**pins, **held}.items():
            print(f"{name}=={version}")
        return

    missing = []
    for name, pinned in pins.items():
        name = name.replace("_", "-")
        if any(substitute in installed for substitute in SUBSTITUTES.get(name, [])):
            continue
        if name not in installed or (args.own == "yes" and not same_version(installed[name], pinned)):
            missing.append(name)
    if not is_editable_here(args.repo):
        missing.append("focalnet-backbone")
    print(" ".join(missing))


if __name__ == "__main__":
    main()
