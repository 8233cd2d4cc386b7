"""Warnings that packages give of themselves, which whoever calls a command can do nothing about."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings

FOREIGN: tuple[tuple[str, type[Warning]], ...] = (
    ("`torch.jit.", FutureWarning),  # fvcore and detectron2 compile functions as they are imported.
    ("torch.meshgrid", UserWarning),  # detectron2's anchors.
    ("pkg_resources is deprecated", UserWarning),  # mmengine and detectron2's model zoo.
    ("``build_loss`` would be deprecated", UserWarning),  # mmsegmentation's own heads.
    ("`reduce_zero_label` will be deprecated", UserWarning),  # mmsegmentation's own configs of ADE20K.
    ("Default ``avg_non_ignore`` is False", UserWarning),  # mmsegmentation's loss, also where nothing is trained.
)
"""What the messages begin with, and their categories."""


def leave_out_foreign_warnings() -> None:
    """Show none of them in this process, nor in those that it starts.

    Of Python's warnings, nothing is changed where the user has said which ones to show (`python -W`, `PYTHONWARNINGS`).
    """
    # detectron2's wrapper of torchvision's operators asks what torch renamed. It is a line of torch's log.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    if sys.warnoptions:
        return
    for beginning, category in FOREIGN:
        warnings.filterwarnings("ignore", message=re.escape(beginning), category=category)
    told = (f"ignore:{beginning}:{category.__name__}" for beginning, category in FOREIGN)
    os.environ["PYTHONWARNINGS"] = ",".join(told)
