"""What command lines that read datasets have in common: how it is told what is wrong with them."""

from __future__ import annotations

import sys

from focalnet_backbone.data_check.findings import DataError, Findings
from focalnet_backbone.system.command_line import called, printable
from focalnet_backbone.system.processes import is_first


def tell_findings(tool: str, findings: Findings) -> None:
    """Print the warnings, one line each, and raise `DataError` if there are errors."""
    if is_first():
        for line in findings.warnings:
            print(f"{called(tool)}: warning: {printable(line)}", file=sys.stderr)
    findings.raise_errors()


def fail_data(tool: str, error: DataError) -> int:
    """Print the errors, one line each; only the first of several processes does. Returns the exit status."""
    if is_first():
        for line in error.lines:
            print(f"{called(tool)}: {printable(line)}", file=sys.stderr)
    return 2
