"""The error that every failure with a checkpoint ends in."""

from __future__ import annotations


class CheckpointError(RuntimeError):
    """A checkpoint cannot be had, is not what it should be, or does not fit the model."""
