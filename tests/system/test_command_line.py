"""How command lines are read, and how programs end."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys

import pytest

from focalnet_backbone.command import main as focalnet
from focalnet_backbone.system.command_line import fail, is_out_of_memory, one_line, parse


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tool")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--out")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--resume", action="store_true")
    return parser


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-cat.jpg", "dög 1.jpg"], {"images": ["./-cat.jpg", "dög 1.jpg"]}),
        (["a", "--out", "-new"], {"out": "-new"}),
        (["a", "--out=-new", "--resume"], {"out": "-new", "resume": True}),
        (["--out", "-cat.jpg", "a"], {"out": "./-cat.jpg", "images": ["a"]}),
        (["a", "--seed", "-1"], {"seed": -1}),
        (["--resume", "-cat.jpg"], {"images": ["./-cat.jpg"]}),
        (["--", "-cat.jpg", "--out"], {"images": ["-cat.jpg", "--out"]}),
        (["a", "--set", "x=-1", "--set", "-x=1"], {"set": ["x=-1", "-x=1"]}),
    ],
)
def test_names_that_begin_with_a_dash_are_names(parser, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-cat.jpg").touch()
    (tmp_path / "-1").touch()
    parsed = vars(parse(parser, arguments))
    assert {name: parsed[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "an argument is empty"),
        (["a", "--out", ""], "argument --out is empty"),
        (["a", "--out="], "argument --out is empty"),
        (["a", "--set="], "argument --set is empty"),
        (["a", "--resume", ""], "is empty"),
        (["a", "--out", "--resume"], "argument --out: expected one argument"),
    ],
)
def test_an_empty_or_missing_argument_is_named(parser, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        parse(parser, arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)


def test_options_may_stand_between_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("weights", nargs="?")
    parser.add_argument("images", nargs="*")
    parser.add_argument("--out")
    parsed = parse(parser, ["a.py", "--out", "there", "a.pth", "1.jpg", "2.jpg"])
    assert (parsed.config, parsed.weights, parsed.images, parsed.out) == ("a.py", "a.pth", ["1.jpg", "2.jpg"], "there")
    assert parse(parser, ["a.py", "--out", "there"]).weights is None


def test_what_is_left_to_others_may_be_empty(parser):
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    parser._actions[1].nargs = None
    assert parse(parser, ["a", "MODEL.WEIGHTS", ""]).opts == ["MODEL.WEIGHTS", ""]


def test_names_do_not_steer_the_terminal(capsys):
    fail("tool", ValueError("no image a\x1b[31m\n\udcff.png"))
    assert capsys.readouterr().err == "tool: no image a\\x1b[31m \\udcff.png\n"


def test_an_error_of_the_system_names_its_file():
    assert one_line(OSError(errno.ENOSPC, "No space left on device", "a.png")) == "a.png: No space left on device"


def run(code: str, **options) -> subprocess.CompletedProcess:
    program = "import os, signal, sys\nfrom focalnet_backbone.system.command_line import program\n"
    program += (
        f"@program('tool', resumed_by='go on with --resume')\ndef main():\n    {code}\n    return 0\nsys.exit(main())"
    )
    return subprocess.run([sys.executable, "-c", program], text=True, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_program_with_one_line_and_its_status(number):
    ended = run(f"os.kill(os.getpid(), {int(number)}); import time; time.sleep(20)")
    assert (ended.returncode, ended.stderr) == (128 + number, "tool: interrupted; go on with --resume\n")


def test_a_signal_that_is_ignored_stays_ignored():
    ended = run(
        f"os.kill(os.getpid(), {int(signal.SIGINT)})", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    )
    assert ended.returncode == 0


def test_a_closed_pipe_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    ended = run("print('x' * 100_000)", stdout=writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_a_full_disk_behind_the_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        ended = run("print('x')", stdout=full)
    assert (ended.returncode, ended.stderr) == (2, "tool: the standard output: No space left on device\n")


def test_a_name_that_is_no_text_is_printed_escaped():
    ended = run("print(os.fsdecode(b'\\xff.png'))", stdout=subprocess.PIPE, env={**os.environ, "PYTHONUTF8": "1"})
    assert (ended.returncode, ended.stdout) == (0, "\\udcff.png\n")


@pytest.mark.parametrize("error", ["MemoryError()", 'RuntimeError("[enforce fail] can\'t allocate memory: 9 bytes")'])
def test_too_little_memory_is_one_line(error):
    ended = run(f"raise {error}")
    assert ended.returncode == 2
    assert ended.stderr.startswith("tool: the memory is not enough")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) == expected


class Log:
    def __init__(self, path):
        self.file = open(path, "wb", buffering=0)  # noqa: SIM115

    def write(self):
        self.file.write(bytes(5000))
        self.file.write(bytes(5000))
        self.file.write(bytes(5000))


def write_more(path):
    with open(path, "wb") as file:
        file.write(bytes(10_000))


@pytest.mark.parametrize("write", [write_more, lambda path: Log(path).write()])
@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_told_with_the_file_that_was_open(tmp_path, write):
    with pytest.raises(OSError, match="File too large") as caught:
        write(tmp_path / "log.txt")
    assert one_line(caught.value) == f"{tmp_path / 'log.txt'}: {os.strerror(errno.EFBIG)}"


def test_a_full_disk_met_by_a_logs_thread_and_at_exit_is_one_line(tmp_path):
    code = (
        "import errno, os, sys, threading\n"
        "from focalnet_backbone.system.command_line import program\n"
        "class Log:\n"
        "    def __del__(self): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "log = Log()\n"
        "def write(): raise OSError(errno.ENOSPC, 'No space left on device', 'events')\n"
        "@program('tool')\n"
        "def main():\n"
        "    thread = threading.Thread(target=write); thread.start(); thread.join(); return 2\n"
        "sys.exit(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (2, "tool: events: No space left on device\n")


def test_a_signal_while_packages_are_imported_is_one_line(tmp_path):
    (tmp_path / "late.py").write_text(
        '"""Late."""\nimport os, signal\nos.kill(os.getpid(), signal.SIGTERM)\ndef main(): pass\n'
    )
    code = (
        "import sys, focalnet_backbone.command as c\n"
        f"c.__path__.append({str(tmp_path)!r})\n"
        "sys.argv = ['focalnet']\n"
        "sys.exit(c.main(['late']))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (143, "focalnet late: interrupted\n")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FOCALNET_CPU_AUTOCAST", "maybe", "must be on, off or auto, got 'maybe'"),
        ("FOCALNET_TRITON", "yes", "must be 0 or 1, got 'yes'"),
    ],
)
def test_a_wrong_environment_variable_is_one_line(monkeypatch, capsys, tmp_path, name, value, message):
    monkeypatch.setenv(name, value)
    small = ["--set", "embed_dim=4", "--set", "depths=[1]", "--set", "focal_levels=[1]", "--set", "focal_windows=[3]"]
    once = ["--size", "32", "--rounds", "1", "--measure", "autocast", "--json", str(tmp_path / "run.json")]
    assert focalnet(["benchmark", "focalnet_tiny_srf", *small, *once]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"focalnet benchmark: {name} {message}"
