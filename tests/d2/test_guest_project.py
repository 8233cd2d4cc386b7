"""A project on detectron2 in the manner of Mask2Former, in which only the backbone's name is changed."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent / "guest_project"


def test_a_project_of_others_imports_trains_evaluates_and_predicts(sample, tmp_path):
    command = [sys.executable, str(PROJECT / "train_net.py"), "--config-file", str(PROJECT / "focalnet.yaml")]
    arguments = [str(sample), "OUTPUT_DIR", str(tmp_path), "SEED", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    metrics = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in metrics if "total_loss" in line]
    assert losses
    assert all(map(math.isfinite, losses))
    assert re.search(r"'segm', \{'AP': \d", done.stdout)
    assert "10 instances" in done.stdout
    assert re.search(r"DeformConv\(.* pycocotools.cocoeval n/a \(operators of focalnet_backbone\)", done.stdout)
