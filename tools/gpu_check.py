#!/usr/bin/env python3
"""Test and measure on a GPU, and write one report in Markdown; called by `tools/gpu_check.sh`.

Each part is a process with a time of its own, so that one that fails, crashes or hangs takes no other with it. The
report is whole after each of them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from focalnet_backbone.system.command_line import fail, parse, program
from focalnet_backbone.system.devices import choose_device
from focalnet_backbone.system.outputs import claim, result_file

ROOT = Path(__file__).resolve().parents[1]
NEEDED = {
    "pytest": "the tests are left out",
    "timm": "nothing is compared with it",
    "transformers": "nothing is compared with it",
    "triton": "nothing is compiled, and there are no kernels of Triton's",
    "matplotlib": "the benchmarks are left out",
}
MOST_LINES = 150

FACTS = """
import platform, torch
from focalnet_backbone.benchmark.report import describe_environment, format_environment
device = torch.device({device!r})
print(format_environment(describe_environment(device)))
print("Python", platform.python_version())
if device.type == "cuda":
    free, total = torch.cuda.mem_get_info(device)
    print(f"{{torch.cuda.device_count()}} GPU, {{free / 2**30:.1f}} of {{total / 2**30:.1f}} GiB free")
    print("bfloat16:", torch.cuda.is_bf16_supported())
"""


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        title: its heading in the report.
        command: what is run, in the repository's root.
        seconds: after which it is ended.
        needs: packages without which it is left out.
    """

    title: str
    command: Sequence[str]
    seconds: float
    needs: tuple[str, ...] = ()


def make_parts(device: str, quick: bool) -> list[Part]:
    """What is done, in order; together under 8 minutes."""
    tests = ["-m", "pytest", "--confcutdir", "tests/cuda", "-o", "addopts=", "-q", "-rfEs", "--tb=short"]
    tests += ["-p", "no:cacheprovider", "-W", "ignore"]
    tests += ["-m", "cuda" if device == "cuda" else "not cuda"]
    common = ["tools/benchmark.py", "focalnet_tiny_lrf", "--device", device, "--table"]
    facts = Part("Environment", ["-c", FACTS.format(device=device)], 30)
    if quick:
        small = ["--set=embed_dim=4", "--set=depths=[1]", "--set=focal_levels=[1]", "--set=focal_windows=[3]"]
        small += ["--size", "32", "--rounds", "1", "--measure", "forward"]
        return [
            facts,
            Part(
                "Tests", [*tests, "tests/cuda/test_numbers.py", "-k", "float32_is_exact and pre-norm"], 60, ("pytest",)
            ),
            Part("A small network", [*common, *small], 60, ("matplotlib",)),
        ]
    detector = [*common, "--set=focal_windows=[9,9,9,9]", "--size", "512", "--rounds", "5", "--seconds", "3"]
    measures = ["--measure", "forward", "training", "saving", "memory"]
    one, many = ([*detector, "--dtype", "bfloat16", "--batch-size", number] for number in ("1", "32"))
    graph = ["graph"] if device == "cuda" else []
    benchmark, compiler = ("matplotlib",), ("matplotlib", "triton")
    parts = [
        facts,
        Part("Tests", [*tests, "tests/cuda", "--ignore", "tests/cuda/test_triton.py"], 110, ("pytest",)),
        Part("float32, one image", [*detector, *measures, "autocast"], 40, benchmark),
        Part("bfloat16, one image", [*one, *measures, *graph], 30, benchmark),
        Part("bfloat16, 32 images", [*many, *measures], 50, benchmark),
        Part("bfloat16, 32 images, compiled", [*many, "--measure", "compiled"], 60, compiler),
    ]
    if device == "cuda":
        depthwise = ["-m", "focalnet_backbone.benchmark.depthwise", device, "bfloat16"]
        parts += [
            Part("Tests of Triton's kernels", [*tests, "tests/cuda/test_triton.py"], 75, ("pytest", "triton")),
            Part(
                "bfloat16, 32 images, Triton's kernels", [*many, "--measure", "triton", "triton-training"], 35, compiler
            ),
            Part("Depth-wise convolutions", depthwise, 40),
        ]
    return parts


def run_part(part: Part) -> tuple[str, str]:
    """How a part ended, "" for well, and what it printed."""
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            [sys.executable, *part.command],
            cwd=ROOT,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"},
            start_new_session=True,
        )
        try:
            ending = _describe(process.wait(part.seconds))
        except subprocess.TimeoutExpired:
            ending = f"ended after its {part.seconds:.0f} s"
        finally:
            # And whatever it started. What waits for the GPU within the driver may outlive this for long.
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
        printed.seek(0)
        return ending, printed.read().decode(errors="replace")


def _describe(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"failed with status {status}" if status else ""


def format_part(part: Part, ending: str, seconds: float, output: str) -> str:
    """A part as a section of the report, its last lines if it printed many."""
    lines = output.rstrip().splitlines()
    if len(lines) > MOST_LINES:
        lines = [f"({len(lines) - MOST_LINES} lines before this)", *lines[-MOST_LINES:]]
    shown = shlex.join("..." if "\n" in word else word for word in part.command)
    verdict = f"**{ending}**" if ending else "well"
    text = "\n".join(lines)
    return f"## {part.title}\n\n`python {shown}`: {verdict}, {seconds:.0f} s\n\n````text\n{text}\n````\n"


def missing_packages() -> list[str]:
    """Those that parts need and that are not installed."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def check(parts: Sequence[Part], out: Path, missing: Sequence[str]) -> int:
    """Run the parts and write the report after each; returns how many did not end well."""
    begin = time.monotonic()
    sections = [f"- {name} is not installed: {NEEDED[name]}" for name in missing]
    for section in sections:
        print(section[2:], flush=True)
    failures = 0
    for number, part in enumerate(parts, start=1):
        if set(part.needs) & set(missing):
            continue
        print(f"[{number}/{len(parts)}] {part.title}, at most {part.seconds:.0f} s", flush=True)
        start = time.monotonic()
        ending, output = run_part(part)
        failures += bool(ending)
        if ending:
            print(f"    {ending}: {(output.strip().splitlines() or ['no output'])[-1]}", flush=True)
        sections.append(format_part(part, ending, time.monotonic() - start, output))
        done = f"{number} of {len(parts)} parts after {time.monotonic() - begin:.0f} s, {failures} failed."
        with result_file(out) as unfinished:
            unfinished.write_text("\n".join(["# GPU check\n", done, "", *sections]), encoding="utf-8")
    print(f"{out}: {failures} of {len(parts)} parts failed")
    return failures


@program("gpu_check.sh")
def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description="Test and measure on a GPU.", usage="gpu_check.sh [options]")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="next to nothing, to see that all works")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "gpu_check.md", help="the report (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a file that this tool did not write")
    args = parse(parser)
    try:
        choose_device(args.device)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        claim([(args.out, "--out")], force=args.force)
    except (OSError, ValueError) as error:
        return fail("gpu_check.sh", error)
    return int(check(make_parts(args.device, args.quick), args.out, missing_packages()) > 0)


if __name__ == "__main__":
    sys.exit(main())
