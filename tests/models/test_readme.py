"""The README's section on the models runs, top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data
import torch
import transformers
from PIL import Image

from tests.readme import code_blocks, split_commands

SECTION = "Classification and masked image modeling"
# What the commands are given in addition, to be done at once.
QUICK = {"tools/pretrain_mim.py": ["--steps", "1", "--warmup-steps", "0", "--batch-size", "2"]}


def test_every_snippet_and_command_runs_in_order(published, run_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(skimage.data.chelsea()).save("cat.jpg")
    names: dict = {}
    for language, content in code_blocks(SECTION):
        if language == "python":
            exec(content, names)
            continue
        for python, tool, *arguments in split_commands(content):
            assert python == "python"
            status, output, errors = run_tool(Path(tool).name, *arguments, *QUICK.get(tool, []))
            assert status == 0, errors
            if tool == "tools/classify.py":
                assert output.startswith("cat.jpg\n")
    assert [tuple(x.shape[1:]) for x in names["outputs"].reshaped_hidden_states] == [
        (96, 56, 56),
        (192, 28, 28),
        (384, 14, 14),
        (768, 7, 7),
        (768, 7, 7),
    ]
    assert transformers.FocalNetForImageClassification.from_pretrained("cats_and_dogs").config.id2label[1] == "dog"
    features = names["backbone"](torch.zeros(1, 3, 96, 96))
    assert [x.shape[1] for x in features.values()] == [32, 64, 128]


def test_the_section_has_snippets_and_commands():
    assert {language for language, _ in code_blocks(SECTION)} == {"python", "bash"}


@pytest.mark.parametrize("tool", ["classify.py", "pretrain_mim.py"])
def test_help_is_complete(tool, run_tool):
    status, output, _ = run_tool(tool, "--help")
    assert status == 0
    assert f"python tools/{tool}" in output
    assert "exit status" in output
