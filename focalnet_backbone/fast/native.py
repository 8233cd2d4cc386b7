"""Depth-wise convolutions compiled from C on the machine that they run on, where it has a compiler for it.

oneDNN's reach a third of what a processor can do, and less for small maps. Those of `depthwise.c` take half of its time
or less up to 64x64 positions, and three quarters beyond. They are compiled once, into the package's folder of what is
remembered (`system.facts`), and used if they are faster on the processor, which is measured once as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C import DispatchKey, DispatchKeySet
from torch.profiler import record_function

from focalnet_backbone.fast.measuring import Runs, in_own_thread, least_times, recall_times, spread
from focalnet_backbone.system.facts import cache_folder, one_at_a_time
from focalnet_backbone.system.files import whole_file
from focalnet_backbone.system.switches import VariableError, read_variable

logger = logging.getLogger(__name__)

SWITCH = "FOCALNET_NATIVE"
"""Environment variable: "on" to use them, and to fail where they cannot be compiled, "off" not to, "auto" (as if it
were not there) to use them where they can be compiled and are faster."""

OPERATOR = "focalnet_backbone::depthwise"
"""What profilers call it."""

_SOURCE = "depthwise.c"
# By what torch finds in the processor, or is told to find.
_INSTRUCTIONS = {"AVX2": ["-mavx2", "-mfma"], "AVX512": ["-mavx512f", "-mavx2", "-mfma"]}
_FLAGS = ["-O3", "-fPIC", "-fopenmp"]
_SECONDS_TO_COMPILE = 60
# Bytes at the end of what is kept.
_DIGEST = 32
# How torch treats tensors on the CPU that are nothing else besides.
_OF_INFERENCE_MODE = DispatchKeySet(DispatchKey.CPU).add(DispatchKey.AutocastCPU)
_ORDINARY = _OF_INFERENCE_MODE.add(DispatchKey.AutogradCPU).add(DispatchKey.ADInplaceOrView)
# What the code convolves at a time.
_CHANNELS = 16
# For smaller kernels on larger maps, copying what a tile reads takes longer than it spares: 1.9 ms and oneDNN's 1.2 for
# 3x3 on 128x128x96, 0.19 and 0.25 on 56x56x96.
_ANY_MAP_FROM = 7
_SMALL_MAP = 64 * 64


def depthwise(x: Tensor, kernel: Tensor, *, mirrored: bool = False, gelu: bool = False) -> Tensor | None:
    """Convolve each channel of `(N, H, W, C)` with its odd kernel of `(C, 1, k, k)`, padded to the same size.

    Args:
        x: in float32, on the CPU.
        kernel: likewise.
        mirrored: take the kernel upside down and from right to left, which gives gradients of the input.
        gelu: apply GELU to the result.

    Returns None where it is not possible, or not worth it.

    Raises:
        VariableError: the environment variable `FOCALNET_NATIVE` has a value that it cannot have, or asks for compiled
            code where there is none.
        MemoryError: there is none for a tile.
    """
    if not _suits(x, kernel):
        return None
    library = _library()
    if library is None:
        return None
    # Profilers see torch's functions alone.
    with record_function(OPERATOR) if torch.autograd._profiler_enabled() else contextlib.nullcontext():
        return _convolve(library, x, kernel, mirrored, gelu)


def is_used() -> bool:
    """Whether maps and kernels that suit it are convolved by compiled code here. Raises as `depthwise` does."""
    return _library() is not None


def _library() -> ctypes.CDLL | None:
    return _chosen_library(read_variable(SWITCH, ("on", "off", "auto"), "auto"))


def _suits(x: Tensor, kernel: Tensor) -> bool:
    """Whether memory can be handed to code that torch knows nothing of: ordinary tensors that nobody watches."""
    size = kernel.shape[-1]
    return (
        type(x) is Tensor
        and type(kernel) in (Tensor, nn.Parameter)
        and _is_plain(x)
        and _is_plain(kernel)
        and x.dtype == kernel.dtype == torch.float32
        and x.shape[-1] % _CHANNELS == 0
        and kernel.shape == (x.shape[-1], 1, size, size)
        and size % 2 == 1
        and (size >= _ANY_MAP_FROM or x.shape[1] * x.shape[2] <= _SMALL_MAP)
        and x.numel() > 0
        and x.is_contiguous()
        and kernel.is_contiguous()
        and not (torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad))
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._len_torch_dispatch_stack()
    )


def _is_plain(tensor: Tensor) -> bool:
    """Whether its values are what its memory holds, on the CPU: that of others may be negative ones, or none at all."""
    return torch._C._dispatch_keys(tensor) in (_OF_INFERENCE_MODE, _ORDINARY)


def _convolve(library: ctypes.CDLL, x: Tensor, kernel: Tensor, mirrored: bool = False, gelu: bool = False) -> Tensor:
    y = torch.empty_like(x)
    sizes = [ctypes.c_long(size) for size in x.shape]
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, kernel, y)]
    if library.depthwise(*pointers, *sizes, kernel.shape[-1], int(mirrored), int(gelu), torch.get_num_threads()):
        raise MemoryError("no memory for a tile of a depth-wise convolution")
    return y


@cache
def _chosen_library(switch: str) -> ctypes.CDLL | None:
    """The compiled code, if the environment variable has this value and it is to be used."""
    if switch == "off":
        return None
    try:
        library = _load()
    except (OSError, RuntimeError) as error:
        if switch == "on":
            raise VariableError(f"{SWITCH}=on, but {_SOURCE} cannot be compiled here: {error}") from error
        logger.info("depth-wise convolutions are left to torch, as %s cannot be compiled: %s", _SOURCE, error)
        return None
    return library if switch == "on" or _is_faster(library) else None


def _is_faster(library: ctypes.CDLL) -> bool:
    """Whether the compiled code takes less time than torch's."""
    question = f"depth-wise convolutions by {_version()} and torch, {torch.get_num_threads()} threads"
    times = recall_times(question, lambda: least_times(lambda: _make_runs(library)), title="measure convolutions")
    return times["native"] < times["torch"]


def _make_runs(library: ctypes.CDLL) -> Runs:
    x, kernel = spread(1, 32, 32, 192), spread(192, 1, 9, 9)
    maps = x.permute(0, 3, 1, 2)
    return {
        "torch": lambda: F.conv2d(maps, kernel, padding=4, groups=192),
        "native": lambda: _convolve(library, x, kernel),
    }


def _version() -> str:
    """What tells apart what is made of the source for different processors."""
    source = _source() + " ".join([*_FLAGS, *_instructions()]).encode()
    return hashlib.sha256(source).hexdigest()[:16]


def _source() -> bytes:
    return resources.files(__package__).joinpath(_SOURCE).read_bytes()


def _instructions() -> list[str]:
    found = _INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability())
    if sys.platform != "linux" or found is None:
        raise RuntimeError("this is no Linux on a processor with AVX2 or AVX-512")
    return found


def _load() -> ctypes.CDLL:
    """The code, compiled now if it was not before. Raises `OSError` or `RuntimeError` if it cannot be."""
    path = cache_folder() / f"depthwise-{_version()}.so"
    with one_at_a_time(str(path), patience=_SECONDS_TO_COMPILE):
        if _is_trusted(path):
            with contextlib.suppress(OSError, RuntimeError):
                return _open(path)
        with tempfile.TemporaryDirectory(prefix="focalnet-") as folder:
            return _compile(Path(folder), path)


def _is_trusted(path: Path) -> bool:
    """Whether there is a file that nobody else can have written, as it was written: a damaged one ends the process."""
    try:
        status = path.stat()
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            return False
        content = path.read_bytes()
    except OSError:
        return False
    return content == _signed(content[:-_DIGEST])


def _signed(code: bytes) -> bytes:
    """With its digest behind it, where loaders do not look."""
    return code + hashlib.sha256(code).digest()


def _compile(folder: Path, path: Path) -> ctypes.CDLL:
    """The code as made, in a folder for what it writes, by the first compiler that can, and kept at `path`."""
    failures = []
    for compiler in _compilers():
        try:
            return _keep(_compile_by(compiler, folder), path)
        except subprocess.TimeoutExpired as error:  # Others may be other names of it.
            raise RuntimeError(f"{compiler[0]} is not done after {_SECONDS_TO_COMPILE} seconds") from error
        except (OSError, RuntimeError) as error:
            failures.append(f"{compiler[0]}: {error}")
    raise RuntimeError("; ".join(failures))


def _compilers() -> Iterator[list[str]]:
    """Commands without their arguments, but for those that `$CC` has."""
    try:
        named = shlex.split(os.environ.get("CC", ""))
    except ValueError:
        named = []
    yield from filter(None, (named, ["gcc"], ["cc"]))


def _compile_by(compiler: list[str], folder: Path) -> Path:
    source, compiled, library = _source(), folder / "depthwise.o", folder / "depthwise.so"
    _run([*compiler, *_FLAGS, *_instructions(), "-x", "c", "-c", "-", "-o", str(compiled)], source)
    # Without OpenMP, whose functions are those that torch has loaded, so that both use the same threads.
    _run([*compiler, "-shared", str(compiled), "-o", str(library)])
    return library


def _run(command: list[str], given: bytes = b"") -> None:
    # Of a session of its own, all that it has started can be ended, which would go on and be waited for.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            _, told = process.communicate(given, timeout=_SECONDS_TO_COMPILE)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        lines = told.decode(errors="replace").strip().splitlines()
        reason = next((line for line in lines if "error" in line), [*lines, f"exit status {process.returncode}"][0])
        raise RuntimeError(reason)


def _keep(compiled: Path, path: Path) -> ctypes.CDLL:
    """Load the library from where it is kept, or where it was made if it cannot be kept or not be loaded from there."""
    try:
        with whole_file(path) as unfinished:
            unfinished.write_bytes(_signed(compiled.read_bytes()))
            unfinished.chmod(0o600)
            return _open(unfinished)
    except OSError as error:
        library = _open(compiled)
        logger.info("each process compiles %s anew, as it cannot be kept: %s", _SOURCE, error)
        return library


def _open(path: Path) -> ctypes.CDLL:
    """Load the library. Raises `OSError` if it cannot be, `RuntimeError` if it computes something else."""
    # Bare names would be looked for among the system's libraries.
    library = ctypes.CDLL(str(path.absolute()))
    if not in_own_thread(lambda: _is_right(library)):
        raise RuntimeError("it computes something else")
    return library


def _is_right(library: ctypes.CDLL) -> bool:
    x, kernel = spread(1, 9, 5, _CHANNELS), spread(_CHANNELS, 1, 7, 7)
    expected = F.conv2d(x.permute(0, 3, 1, 2), kernel, padding=3, groups=_CHANNELS).permute(0, 2, 3, 1)
    found = [_convolve(library, x, kernel, gelu=gelu) for gelu in (False, True)]
    return all(
        torch.allclose(y, exact, atol=1e-4) for y, exact in zip(found, (expected, F.gelu(expected)), strict=True)
    )
