"""The command `focalnet`.

Each module here with a `main` is a subcommand: its name with dashes for underscores, the first line of its docstring
what `focalnet --help` says of it, and `main` what runs. A subcommand is imported when it is called, so that help is
there at once and no framework is needed but the one that is used.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from focalnet_backbone import __version__
from focalnet_backbone.system.command_line import fail, say_interrupted
from focalnet_backbone.system.foreign_warnings import leave_out_foreign_warnings
from focalnet_backbone.system.interruption import raise_on_signals
from focalnet_backbone.system.memory import keep_freed_memory, without_collector
from focalnet_backbone.system.spelling import closest

# They measure what others get, and memory among it.
_AS_IT_IS = ("benchmark", "compare")
_BY_HOST = {
    "train": "Train a detector or segmenter, by whichever framework its config is for.",
    "test": "Test a trained detector or segmenter on the images that its config names.",
}


def subcommands() -> dict[str, str]:
    """Name of each subcommand, and what it does in one line."""
    found = dict(_BY_HOST)
    for module in (path for folder in __path__ for path in Path(folder).glob("[!_]*.py")):
        name = module.stem.replace("_", "-")
        source = module.read_text(encoding="utf-8")
        if "\ndef main(" in source and module.stem != "train_net" and name not in found:
            found[name] = source.split('"""')[1].strip().split("\n")[0]
    return dict(sorted(found.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `focalnet SUBCOMMAND ...`; returns its exit status."""
    # Not by `list`: once it is imported, that is the subcommand.
    arguments = [*(sys.argv[1:] if arguments is None else arguments)]
    if not arguments or arguments[0].startswith("-"):
        _make_parser().parse_args(arguments or ["--help"])
        return 0
    name, *rest = arguments
    if name not in subcommands():
        return fail(
            "focalnet", ValueError(f"no subcommand {name!r}.{closest(name, subcommands())} See focalnet --help")
        )
    before = sys.argv
    # By which it calls itself, also in processes that it starts.
    sys.argv = [f"focalnet {name}", *rest]
    try:
        return run("by_host", name) if name in _BY_HOST else run(name.replace("-", "_"))
    finally:
        sys.argv = before


def run(module: str, function: str = "main") -> int:
    """Run a command line of a module here; returns its exit status.

    A package that it lacks is told in one line, and so is a signal, also while its packages are still imported.
    """
    leave_out_foreign_warnings()
    if module not in _AS_IT_IS:
        keep_freed_memory()
    try:
        with raise_on_signals():
            return getattr(load(module), function)() or 0
    except ModuleNotFoundError as error:
        if str(error.name).startswith("focalnet_backbone"):
            raise
        return fail(Path(sys.argv[0]).name, error)
    except KeyboardInterrupt as stop:
        return say_interrupted(Path(sys.argv[0]).name, stop)


def load(module: str) -> ModuleType:
    """Import a module here, and with it the frameworks that it uses: Python's collector does not look through them,
    then or later, which takes a sixth of the time, and in each process that is forked copies their memory."""
    name = f"focalnet_backbone.command.{module}"
    if name not in sys.modules:
        with without_collector():
            import_module(name)
            gc.freeze()
    return sys.modules[name]


def _make_parser() -> argparse.ArgumentParser:
    """What answers `focalnet --help` and `focalnet --version`."""
    width = max(map(len, subcommands()))
    table = "\n".join(f"  {name:<{width}}  {what}" for name, what in subcommands().items())
    parser = argparse.ArgumentParser(
        prog="focalnet",
        usage="focalnet SUBCOMMAND [ARGUMENTS]",
        description="FocalNet (focal modulation networks) as a backbone for detection and segmentation.\n\n"
        f"subcommands:\n{table}",
        epilog="`focalnet SUBCOMMAND --help` explains one. An example:\n  focalnet sample data/sample\n"
        "  focalnet train upernet_focalnet_sample.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"focalnet-backbone {__version__}")
    return parser
