"""The processor is named as the system names it."""

from __future__ import annotations

import pytest

from focalnet_backbone.system import processor

XEON = (
    "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\n"
    "flags\t\t: fpu sse avx2 fma avx512f avx512_bf16 amx_bf16 amx_tile\n"
)
ARM = "processor\t: 0\nFeatures\t: fp asimd asimdhp sve bf16\n"


@pytest.fixture(autouse=True)
def _forget():
    processor.processor_name.cache_clear()
    processor.instruction_sets.cache_clear()
    yield
    processor.processor_name.cache_clear()
    processor.instruction_sets.cache_clear()


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        (XEON, ("amx_bf16", "amx_tile", "avx2", "avx512_bf16", "avx512f", "fma")),
        (ARM, ("asimd", "asimdhp", "bf16", "sve")),
        ("", ()),
    ],
    ids=["x86", "ARM", "no Linux"],
)
def test_sets_that_make_products_fast_are_listed(text, sets, monkeypatch):
    monkeypatch.setattr(processor, "_cpuinfo", lambda: text)
    assert processor.instruction_sets() == sets


def test_the_processor_has_the_name_that_it_gives_itself(monkeypatch):
    monkeypatch.setattr(processor, "_cpuinfo", lambda: XEON)
    assert processor.processor_name() == "Intel(R) Xeon(R)"
