"""Our configs under the names by which mmengine finds those of mmsegmentation and mmdetection."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mmengine.config.utils
import mmengine.hub.hub
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.infer import BaseInferencer

from focalnet_backbone.configs import FOLDER, find_config, list_configs

PACKAGE = "focalnet_backbone"


def offer_configs() -> None:
    """Let mmengine find this package's configs and models wherever it finds those of its own packages.

    - `Config.fromfile("focalnet_backbone::mmseg/NAME.py")`, and the same as a `_base_`;
    - `mmengine.hub.get_config`, which knows the published weights too;
    - mmsegmentation's and mmdetection's inferencers, by a model's name.

    Does nothing the second time.
    """
    if PACKAGE in mmengine.config.utils.MODULE2PACKAGE:
        return
    mmengine.config.utils.MODULE2PACKAGE[PACKAGE] = PACKAGE
    mmengine.hub.hub.get_installed_path = _find_package(mmengine.hub.hub.get_installed_path)
    Config.fromfile = staticmethod(_read_by_name(Config.fromfile))
    Config._get_cfg_path = staticmethod(_find_base(Config._get_cfg_path))
    BaseInferencer._get_models_from_metafile = staticmethod(_add_models(BaseInferencer._get_models_from_metafile))


def _find_package(original: Callable[[str], str]) -> Callable[[str], str]:
    """`get_installed_path`, which looks for a package installed from its working tree where it is not."""

    @functools.wraps(original)
    def find(package: str) -> str:
        return str(FOLDER.parents[1]) if package == PACKAGE else original(package)

    return find


def _resolve(name: Any) -> Any:
    """The path of a config named as `focalnet_backbone::...`; anything else as it is."""
    if not str(name).startswith(f"{PACKAGE}::"):
        return name
    part = str(name).partition("::")[2]
    base = FOLDER / part  # `_base_` may name a base, which is not the config of a model.
    return str(base if base.is_file() else find_config(part))


def _read_by_name(original: Callable[..., Config]) -> Callable[..., Config]:
    """`Config.fromfile` for names too."""

    @functools.wraps(original)
    def read(filename: str | Path, *args: Any, **kwargs: Any) -> Config:
        return original(_resolve(filename), *args, **kwargs)

    return read


def _find_base(original: Callable[..., tuple[str, str | None]]) -> Callable[..., tuple[str, str | None]]:
    """`Config._get_cfg_path`. The scope that it returns is None: our configs name the one of their framework."""
    # For each base in a package, mmengine reads all of its metafiles.
    find_in_package = functools.cache(functools.partial(original, filename=""))

    @functools.wraps(original)
    def find(cfg_path: str, filename: str) -> tuple[str, str | None]:
        found = _resolve(cfg_path)
        if found != cfg_path:
            return found, None
        return find_in_package(cfg_path) if "::" in cfg_path else original(cfg_path, filename)

    return find


def _add_models(original: Callable[[str], Iterator[dict[str, Any]]]) -> Callable[[str], Iterator[dict[str, Any]]]:
    """`BaseInferencer._get_models_from_metafile`: the models of a host's package, and ours for that host."""

    @functools.wraps(original)
    def models(dir: str) -> Iterator[dict[str, Any]]:
        yield from original(dir)
        place = Path(dir)  # The folder .mim of a package, or the repository that the package's folder lies in.
        for metafile in sorted(FOLDER.glob("*/metafile.yaml")):
            host = metafile.parent.name
            if host == place.parent.name or (place / host).is_dir():
                published = {model["Config"]: model for model in load(metafile)["Models"]}
                for name in list_configs(host):
                    model = published.get(f"configs/{name}", {"Name": Path(name).stem, "Weights": None})
                    yield {**model, "Config": str(FOLDER / name)}

    return models
