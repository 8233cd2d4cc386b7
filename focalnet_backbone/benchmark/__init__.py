"""Time and memory of FocalNets: this package's, timm's and transformers', side by side on the same weights."""

from focalnet_backbone.benchmark.cases import Case, measure_case, measure_scaling
from focalnet_backbone.benchmark.report import (
    describe_environment,
    format_case,
    format_environment,
    format_scaling,
    format_table,
    plot,
)

__all__ = [
    "Case",
    "describe_environment",
    "format_case",
    "format_environment",
    "format_scaling",
    "format_table",
    "measure_case",
    "measure_scaling",
    "plot",
]
