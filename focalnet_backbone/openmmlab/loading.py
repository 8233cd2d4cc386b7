"""mmengine's ways to weights, all through the package's one reader of weight files.

mmengine unpickles what an address gives it, and runs the config that a checkpoint holds when training resumes from it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmengine.runner.checkpoint as mmengine_checkpoint
from mmengine.fileio import get_file_backend, register_handler
from mmengine.fileio.handlers import JsonHandler, YamlHandler
from mmengine.runner import CheckpointLoader

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.checkpoints.download import download
from focalnet_backbone.checkpoints.files import read_file
from focalnet_backbone.system.inputs import parse_json, parse_yaml

Loader = Callable[..., Any]


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """The content of a file, on the CPU. Raises `FileNotFoundError`, `CheckpointError`."""
    content = read_file(Path(os.path.expanduser(filename)), real_classes=True)
    return _without_programs(content) if isinstance(content, dict) else content


def load_from_http(filename: str, map_location: Any = None, **options: Any) -> Any:
    """The content of the file at an address, fetched once. Raises `CheckpointError`."""
    return load_from_local(str(download(filename)))


def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    """The content of what `torchvision://NAME` stands for."""
    return load_from_http(_look_up(filename, mmengine_checkpoint.get_torchvision_models()))


def load_from_openmmlab(filename: str, map_location: Any = None) -> Any:
    """The content of what `openmmlab://NAME` stands for: an address, or a file in mmengine's home."""
    scheme, name = filename.split("://", 1)
    name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    found = _look_up(f"{scheme}://{name}", mmengine_checkpoint.get_external_models())
    if found.startswith(("http://", "https://")):
        return load_from_http(found)
    return load_from_local(os.path.join(mmengine_checkpoint._get_mmengine_home(), found))


def load_from_mmcls(filename: str, map_location: Any = None) -> Any:
    """The backbone of what `mmcls://NAME` stands for."""
    content = load_from_http(_look_up(filename, mmengine_checkpoint.get_mmcls_models()))
    return mmengine_checkpoint._process_mmcls_checkpoint(content)


def load_from_pavi(filename: str, map_location: Any = None) -> Any:
    """The content of what `pavi://NAME` stands for. Raises `ImportError` without its client."""
    try:
        from pavi import modelcloud
    except ImportError as error:
        raise ImportError(f"{filename} needs the package pavi, which is not installed") from error
    model = modelcloud.get(filename.removeprefix("pavi://"))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, model.name)
        model.download(path)
        return load_from_local(path)


def load_from_ceph(filename: str, map_location: Any = None, backend: str = "petrel") -> Any:
    """The content of a file in a store that mmengine has a file backend for."""
    store = get_file_backend(filename, backend_args={"backend": backend})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, os.path.basename(filename) or "weights")
        path.write_bytes(store.get(filename))
        return load_from_local(str(path))


LOADERS: dict[str, Loader] = {
    "": load_from_local,
    "http://": load_from_http,
    "https://": load_from_http,
    "pavi://": load_from_pavi,
    r"(\S+\:)?s3://": load_from_ceph,
    r"(\S+\:)?petrel://": load_from_ceph,
    "modelzoo://": load_from_torchvision,
    "torchvision://": load_from_torchvision,
    "open-mmlab://": load_from_openmmlab,
    "openmmlab://": load_from_openmmlab,
    "mmcls://": load_from_mmcls,
}
"""What mmengine reads weights with, by the beginning of their names."""


class _YamlOfData(YamlHandler):
    def load_from_fileobj(self, file: Any, **options: Any) -> Any:
        return parse_yaml(file.read())


class _JsonOfData(JsonHandler):
    def load_from_fileobj(self, file: Any) -> Any:
        return parse_json(file.read())


def load_safely() -> None:
    """Let mmengine read weights, YAML and JSON without running anything that is in them."""
    for prefix, loader in LOADERS.items():
        CheckpointLoader.register_scheme(prefix, loader, force=True)
    mmengine_checkpoint.load_url = load_from_http
    register_handler(["yaml", "yml"])(_YamlOfData)
    register_handler("json")(_JsonOfData)


def _look_up(filename: str, addresses: dict[str, str]) -> str:
    name = filename.split("://", 1)[1]
    if name not in addresses:
        raise CheckpointError(f"{filename} is none of the names that mmengine knows")
    return addresses[name]


def _without_programs(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without the configs in it, which are programs, and which mmengine would run."""
    for holder in (checkpoint.get("meta"), checkpoint.get("message_hub")):
        parts = (holder, holder.get("runtime_info")) if isinstance(holder, dict) else ()
        for part in parts:
            if isinstance(part, dict):
                part.pop("cfg", None)
                part.pop("config", None)
    return checkpoint
