"""What a command shows of warnings: the user's, and none that packages give of themselves."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings

import pytest

from focalnet_backbone.system.foreign_warnings import FOREIGN, leave_out_foreign_warnings

WARN = """
import warnings
warnings.warn("`torch.jit.script` is deprecated. Please switch.", FutureWarning)
warnings.warn("torch.meshgrid: in an upcoming release, it will be required", UserWarning)
warnings.warn("pkg_resources is deprecated as an API. See https://setuptools.pypa.io", UserWarning)
warnings.warn("a config of yours is odd: look, here", UserWarning)
"""
IN_A_CHILD = f"""
import subprocess, sys
from focalnet_backbone.system.foreign_warnings import leave_out_foreign_warnings
leave_out_foreign_warnings()
{WARN}
sys.exit(subprocess.run([sys.executable, "-c", {WARN!r}]).returncode)
"""


@pytest.mark.parametrize(("told", "shown"), [(None, 2), ("default", 8)])
def test_a_process_and_its_children_show_the_users_warnings_alone_unless_told_otherwise(told, shown):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    environment |= {"PYTHONWARNINGS": told} if told else {}
    result = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stderr.count("Warning: ") == shown
    assert result.stderr.count("a config of yours is odd") == 2


def test_a_warning_of_another_category_is_shown(monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "")
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        leave_out_foreign_warnings()
        for beginning, category in FOREIGN:
            warnings.warn(f"{beginning} and so on", category, stacklevel=1)
            warnings.warn(f"{beginning} and so on", RuntimeWarning, stacklevel=1)
    assert [warning.category for warning in shown] == [RuntimeWarning] * len(FOREIGN)


@pytest.mark.parametrize("options", [[], ["ignore"]])
def test_a_line_of_torchs_log_is_left_out_whatever_is_said_of_warnings(options, monkeypatch, caplog):
    log = logging.getLogger("torch.fx._symbolic_trace")
    monkeypatch.setenv("PYTHONWARNINGS", "")
    monkeypatch.setattr(sys, "warnoptions", options)
    monkeypatch.setattr(log, "level", logging.WARNING)
    with warnings.catch_warnings():
        leave_out_foreign_warnings()
    log.warning("is_fx_tracing will return true for both")
    log.error("a graph is broken")
    assert [record.message for record in caplog.records] == ["a graph is broken"]
