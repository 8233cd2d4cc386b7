"""PyTorch's own files, looked at before anything in them is believed: checksums, names, sizes.

`torch.load(weights_only=True)` runs nothing, but it takes a file at its word: it does not compare checksums, and it
builds tensors of any size from a few bytes. So a file is looked through before, and what came out of it after, and no
number in it is touched until both were right.
"""

from __future__ import annotations

import io
import itertools
import pickle
import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from focalnet_backbone.checkpoints.errors import CheckpointError

# A legacy file is five pickles, of which this number is the first, and then the numbers.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PICKLES = 5
# Tensors may share memory, as tied weights and a copy under a second name do; far beyond that it is an attack.
_SHARING = 8
_SMALL = 64 << 20


class _Inert:
    """Stands in for an object that is no weight: takes what a pickle gives it, and does nothing with it."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _stand_in(path: str) -> type:
    module, _, name = path.rpartition(".")
    return type(name, (_Inert,), {"__module__": module})


# What training programs keep beside the weights: mmengine's log history, and the command line of the DINO release. The
# real classes are not run.
_BESIDE_WEIGHTS = [
    _stand_in(path)
    for path in (
        "mmengine.logging.history_buffer.HistoryBuffer",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.ndarray",
        "numpy.dtype",
        "builtins.getattr",
        "argparse.Namespace",
    )
]
# What weights are made of. `torch.load` takes more, such as sparse tensors and tensors of any size without values.
_OF_WEIGHTS = frozenset(
    {
        "collections.OrderedDict",
        "collections.Counter",
        "_codecs.encode",
        "builtins.set",
        "builtins.complex",
        "torch.Size",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch.storage.UntypedStorage",
        *(str(dtype) for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)),
        *(f"{kind.__module__}.{kind.__name__}" for kind in torch._storage_classes),
    }
)


def read_torch(path: Path, *, real_classes: bool = False) -> Any:
    """What a file of `torch.save` holds, on the CPU.

    Args:
        path: a file of the zip layout or of the one before.
        real_classes: use the classes that the process allows (`torch.serialization.add_safe_globals`) where a
            training program keeps more than weights, rather than stand-ins that hold nothing.

    Raises:
        CheckpointError: it is damaged, asks for more than weights are made of, or for more memory than it has bytes.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    asked = _look_through_zip(path) if zipped else _look_through_legacy(path)
    with _classes_allowed(real_classes) as allowed:
        refused = next((name for name in asked if name not in _OF_WEIGHTS and name not in allowed), None)
        if refused:
            raise CheckpointError(_explain_refusal(path, refused))
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)  # noqa: TID251
        except pickle.UnpicklingError as error:
            raise CheckpointError(_explain_refusal(path, "")) from error
        except Exception as error:  # torch has no error of its own for damaged files: whatever it meets comes out.
            reason = str(error).splitlines()[-1] if str(error) else repr(error)
            raise CheckpointError(f"{path} is a cut-off or damaged PyTorch file: {reason}") from error
    _check_tensors(content, path)
    return content


def _look_through_zip(path: Path) -> list[str]:
    """Check the archive's sizes and checksums. Returns the names that its pickle asks for."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if any(name.endswith("/constants.pkl") for name in names):
                raise CheckpointError(f"{path} is a TorchScript program, not weights; save its state dict alone")
            if packed := next((member for member in members if member.compress_type != zipfile.ZIP_STORED), None):
                raise CheckpointError(
                    f"{path} is a compressed zip ({packed.filename}), which torch.save never writes; unpack it, and "
                    "pack it again without compression (zip -0)"
                )
            pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(pickles) != 1:
                raise CheckpointError(f"{path} is a zip, but not of torch.save: it has no data.pkl")
            if len(set(names)) < len(names) or sum(member.file_size for member in members) > path.stat().st_size:
                raise CheckpointError(f"{path} is a damaged PyTorch file: its parts are listed twice or overlap")
            # torch.save can be told to leave the checksums out, and then all of them are 0.
            if any(member.CRC for member in members) and (damaged := archive.testzip()):
                raise CheckpointError(f"{path} is a damaged PyTorch file: {damaged} does not have its checksum")
        # By torch's own reader, so that no archive shows one pickle here and another to `torch.load`.
        return list(_asked_names(io.BytesIO(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl"))))
    except CheckpointError:
        raise
    except Exception as error:  # of zipfile on damaged archives: BadZipFile, RuntimeError, OverflowError, ...
        raise CheckpointError(f"{path} is a cut-off or damaged PyTorch file: {error}") from error


def _look_through_legacy(path: Path) -> list[str]:
    """The names that the file's pickles ask for."""
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(0)
        try:
            if head[:1] != pickle.PROTO:
                raise ValueError("no pickle")
            numbers = [argument for _, argument, _ in itertools.islice(pickletools.genops(file), 2)]
            file.seek(0)
            if numbers[-1] == _LEGACY_MAGIC:
                return [name for _ in range(_LEGACY_PICKLES) for name in _asked_names(file)]
            asked = next((name for name in _asked_names(file) if name not in _OF_WEIGHTS), "")
        except Exception as error:  # of pickletools on damaged pickles: ValueError, UnicodeError, IndexError, ...
            raise CheckpointError(f"{path} is not a weight file, or a damaged one; it starts with {head!r}") from error
    raise CheckpointError(_explain_refusal(path, asked))


def _asked_names(file: BinaryIO) -> Iterator[str]:
    """Names of the classes and functions that one pickle asks for, in the order in which it does."""
    strings: list[str] = []
    for operation, argument, _ in pickletools.genops(file):
        if isinstance(argument, str) and operation.name.endswith(("UNICODE", "UNICODE8", "STRING")):
            strings = [*strings[-1:], argument]
        elif operation.name in ("GLOBAL", "INST"):
            yield _modern_name(*argument.split(" ", 1))
        elif operation.name == "STACK_GLOBAL":  # which `torch.load` takes from no file
            yield _modern_name(*strings) if len(strings) == 2 else "a name that cannot be told"


def _modern_name(module: str, name: str) -> str:
    """The name in Python 3 of what may have been pickled by Python 2."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def _explain_refusal(path: Path, asked: str) -> str:
    """Why a pickle was refused, and the way out."""
    reason = f" (it asks for {asked})" if asked else ""
    return (
        f"{path} is a pickle that needs more than tensors, and could run code when it is loaded; it was refused"
        f"{reason}. If you trust its origin, convert it on a machine where nothing is at risk: load it there with "
        "the software that wrote it and save its state dict alone, as safetensors or with torch.save"
    )


@contextmanager
def _classes_allowed(real: bool) -> Iterator[set[str]]:
    """Let `torch.load` take what training programs keep beside the weights, and give the names of what it takes."""
    before = torch.serialization.get_safe_globals()
    first, second = (before, _BESIDE_WEIGHTS) if real else (_BESIDE_WEIGHTS, before)
    taken = {_allowed_name(entry) for entry in first}
    second = [entry for entry in second if _allowed_name(entry) not in taken]
    torch.serialization.clear_safe_globals()
    try:
        torch.serialization.add_safe_globals([*first, *second])
        yield taken | {_allowed_name(entry) for entry in second}
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _allowed_name(entry: Any) -> str:
    return entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"


def _check_tensors(content: Any, path: Path) -> None:
    """Refuse tensors that are more than the file's bytes, before any of their elements is touched."""
    size = path.stat().st_size
    stored = elements = 0
    counted = set()
    for name, tensor in _find_tensors(content):
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            raise CheckpointError(f"{path}: {name} ({kind}) is not a plain tensor")
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in counted:
            counted.add(storage.data_ptr())
            stored += storage.nbytes()
        elements += tensor.numel() * tensor.element_size()
        if stored > size or elements > _SHARING * size + _SMALL:
            raise CheckpointError(
                f"{path} has {size} bytes, but its tensors need {max(stored, elements)} or more ({name} of shape "
                f"{tuple(tensor.shape)} is among them): it is damaged, or made to fill the memory"
            )


def _find_tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dicts, lists, tuples and sets, each once, with the path that leads to it."""
    waiting, seen = [("", content)], {id(content)}
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, Tensor):
            yield where or "what it holds", value
            continue
        if isinstance(value, OrderedDict) and set(vars(value)) - {"_metadata"}:
            vars(value).clear()  # Attributes that a file gives it could stand before its methods.
        parts = value.items() if isinstance(value, dict) else enumerate(value) if _is_sequence(value) else ()
        for key, part in parts:
            if id(part) not in seen and (isinstance(part, Tensor | dict) or _is_sequence(part)):
                seen.add(id(part))
                waiting.append((f"{where}.{key}" if where else str(key), part))


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset)
