"""A page, run from top to bottom in a folder of its own."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from focalnet_backbone.command import main as focalnet
from focalnet_backbone.openmmlab.runners import load_config
from tests.documents.pages import ROOT, Item, read_blocks, read_items
from tests.documents.rules import find_rule

IN_SHELL = re.compile(r"[|&;<>$*~`]|^\w+=")
"""What only a shell understands."""


class PageRun:
    """Runs a page's snippets and commands in order, in the current folder.

    Attributes:
        names: what the snippets have defined.
        models: the model of each config of mmengine, on the device "meta".
    """

    def __init__(
        self, page: str, capsys: pytest.CaptureFixture[str], names: dict[str, Any], programs: Callable[[], Path]
    ) -> None:
        """Prepare the folder; `programs` gives one in which a shell finds `python` and `torchrun` first."""
        self.page = page
        self.capsys = capsys
        self.names = names
        self.programs = programs
        self.models: list[torch.nn.Module] = []
        for folder in ("configs", "tools", "examples"):
            if (ROOT / folder).is_dir():
                Path(folder).symlink_to(ROOT / folder)
        for block in read_blocks(page):
            if block.file:
                Path(block.file).parent.mkdir(parents=True, exist_ok=True)
                Path(block.file).write_text(block.text, encoding="utf-8")

    def run(self) -> None:
        """Run everything that a test can; what it cannot is refused as the list says, or has its names checked."""
        for item in read_items(self.page):
            rule = find_rule(item)
            if rule.refused:
                failed, _, errors = self.run_item(item.text, item)
                last = errors.strip().splitlines()[-1]
                assert failed, f"{item.text} was not refused"
                assert re.search(as_pattern(rule.refused, "*"), last), f"{item.text}\nwas refused with: {last}"
            elif rule.needs:
                check_names(item)
            else:
                self.run_and_compare(item, item.text.replace(*rule.replace) + (f" {rule.add}" if rule.add else ""))

    def run_and_compare(self, item: Item, text: str) -> None:
        """Run an item; it must do well, and print what the page shows, or fail in just the way that the page shows."""
        failed, output, errors = self.run_item(text, item)
        if failed:
            assert item.printed, f"{self.page}: {text}\nfailed:\n{errors[-3000:]}"
            output = errors
        if item.printed and not find_rule(item).add:
            shown = ".*\n".join(as_pattern(line) for line in item.printed.strip().splitlines())
            assert re.search(shown, output), f"{self.page}: {text}\nprinted:\n{output[-3000:]}"

    def run_item(self, text: str, item: Item) -> tuple[bool, str, str]:
        """Whether it failed, its output and its errors."""
        self.capsys.readouterr()
        if item.is_config:
            failed = self.build_config(text)
        elif item.language == "python":
            failed = self.run_snippet(text)
        elif IN_SHELL.search(text) or (words := shlex.split(text))[0] not in ("python", "focalnet"):
            return run_in_shell(text, self.programs())
        elif words[0] == "focalnet":
            failed = bool(focalnet(words[1:]))
        elif words[1].endswith(".py"):
            failed = run_here(*words[1:])
        else:
            return run_in_shell(text, self.programs())
        return failed, *self.capsys.readouterr()

    def run_snippet(self, text: str) -> bool:
        """Run Python with the names that the page has defined so far; the last line of an error is as Python's."""
        try:
            exec(compile(text, self.page, "exec"), self.names)
        except Exception as error:
            # What a snippet shows to fail is an error that this package raises, or that Python does.
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return True
        return False

    def build_config(self, text: str) -> bool:
        """Load a config of mmengine and build its model, of which the backbone must be a FocalNet."""
        path = Path(f"config_{len(self.models)}.py")
        path.write_text(text, encoding="utf-8")
        config = load_config(path)
        # Both after `focalnet_backbone.openmmlab`, without which they cannot be imported.
        import mmseg.models  # noqa: F401
        from mmengine.registry import MODELS, DefaultScope

        with DefaultScope.overwrite_default_scope(config.default_scope), torch.device("meta"):
            model = MODELS.build(config.model)
        assert type(model.backbone).__name__ == "FocalNet"
        self.models.append(model)
        return False


def as_pattern(line: str, anything: str = "...") -> str:
    """A line as a regular expression in which `anything` stands for any text."""
    return ".*".join(map(re.escape, line.split(anything)))


def run_here(script: str, *arguments: str) -> bool:
    """Run a Python script in this process; returns whether its status is not 0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *arguments])
        patch.setattr(sys, "path", [str(Path(script).resolve().parent), *sys.path])
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            return bool(end.code)
    return False


def run_in_shell(text: str, programs: Path) -> tuple[bool, str, str]:
    """Run a command by bash, with some programs, those of this environment otherwise, and this package."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
    }
    result = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False, env=environment)
    return result.returncode != 0, result.stdout, result.stderr


def check_names(item: Item) -> None:
    """Check of a command which is not run that its config can be read, and has what the other words speak of."""
    if item.language != "bash":
        return
    words = shlex.split(item.text)
    for name in (word for word in words if word.startswith("configs/mm")):
        config = Config.fromfile(ROOT / name)
        assert "--tta" not in words or config.tta_pipeline, item.text
        loop = config.train_cfg
        last = f"epoch_{loop.max_epochs}" if "max_epochs" in loop else f"iter_{loop.max_iters}"
        for weights in (word for word in words if word.endswith(".pth")):
            assert weights == f"work_dirs/{Path(name).stem}/{last}.pth", item.text
