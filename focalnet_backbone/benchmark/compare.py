"""Networks or whole models side by side: what they cost, and what accuracy was published of them."""

from __future__ import annotations

import gc
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from focalnet_backbone.analysis import count
from focalnet_backbone.benchmark.contenders import PEERS
from focalnet_backbone.benchmark.memory import peak_bytes, saved_bytes
from focalnet_backbone.benchmark.parts import PartTimes
from focalnet_backbone.benchmark.timing import alternate, quartiles
from focalnet_backbone.benchmark.twins.networks import TWINS, list_networks, make_network
from focalnet_backbone.configs import is_mmengine, list_configs, open_config
from focalnet_backbone.network.variants import get_variant
from focalnet_backbone.system.spelling import closest

MEASURES = ("size", "memory", "forward", "training")
SIZES = {"network": (224, 224), "mmdet": (800, 1280), "mmseg": (512, 2048)}
"""Height and width at which the papers count each kind."""

FOCAL_TRANSFORMER_TOP1 = {"tiny": 82.2, "small": 83.6, "base": 84.0}
"""ImageNet-1K accuracy in percent, of the authors' release."""


@dataclass(frozen=True)
class Subject:
    """What is compared: a network by its name, or the model of a config.

    Attributes:
        name: for the tables.
        kind: "network", "mmdet" or "mmseg".
        build: makes the model, with random weights, which maps images `(N, 3, H, W)` to tensors.
        published: what was published of it: "accuracy" in words, "parameters" in millions, "macs" in billions.
    """

    name: str
    kind: str
    build: Callable[[], nn.Module]
    published: dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How it is measured.

    Attributes:
        size: height and width of the images in pixels.
        batch_size: number of images.
        device: where to run.
        rounds: rounds in which every subject is timed once, at most.
        seconds: after which no new round starts.
    """

    size: tuple[int, int]
    batch_size: int
    device: torch.device
    rounds: int
    seconds: float

    def images(self) -> Tensor:
        """Random images `(N, 3, H, W)`."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch_size, 3, *self.size, generator=generator).to(self.device)


def find_subject(name: str) -> Subject:
    """The network of that name, or the model of the config of that name or path; `CONFIG@timm` and
    `CONFIG@transformers` are the model around their FocalNet.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: it is a config of another framework than mmdetection and mmsegmentation, or may be several.
    """
    whole, _, peer = name.rpartition("@")
    if whole and peer in PEERS:
        subject = find_subject(whole)
        if subject.kind == "network":
            raise ValueError(f"{name}: networks are compared with their peers by focalnet benchmark")
        return replace(subject, name=f"{subject.name}@{peer}", build=partial(subject.build, peer), published={})
    if name in list_networks():
        return Subject(name, "network", partial(make_network, name), _published_of_network(name))
    try:
        path = open_config(name if "/" in name else _with_host(name))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no network {name!r}.{closest(name, list_networks())} And {error}") from None
    if not is_mmengine(path):
        raise ValueError(f"{name}: of detectron2's configs compare their like in mmdetection, mmdet/{path.stem}.py")
    kind = "mmseg" if "segmentor" in path.read_text(encoding="utf-8") or path.parent.name == "mmseg" else "mmdet"
    # mmengine is imported only for configs.
    build = partial(import_module("focalnet_backbone.benchmark.whole_models").build_whole_model, path)
    return Subject(path.stem, kind, build, read_header(path.read_text(encoding="utf-8")))


def _with_host(name: str) -> str:
    """The name of a config with mmdetection's or mmsegmentation's folder, if it is one of theirs."""
    for config in list_configs("mm*"):
        if name in (Path(config).name, Path(config).stem):
            return config
    return name


def read_header(text: str) -> dict[str, Any]:
    """What the opening of a config says was published: accuracy, parameters (M) and multiply-accumulates (G)."""
    published: dict[str, Any] = {}
    if found := re.search(r"box AP [\d.]+(, mask AP [\d.]+)?", text):
        published["accuracy"] = found[0]
    elif found := re.search(r"Published mIoU[^:]*: ([\d.]+)( \(multi-scale)?", text):
        published["accuracy"] = f"mIoU {found[1]}{' multi-scale' if found[2] else ''}"
    if found := re.search(r"([\d.]+) M parameters[,;] ([\d.]+) G", text):
        published |= {"parameters": float(found[1]), "macs": float(found[2])}
    return published


def _published_of_network(name: str) -> dict[str, Any]:
    if name not in TWINS:
        variant = get_variant(name)
        top1 = {"accuracy": f"top-1 {variant.published_top1}"} if variant.published_top1 else {}
        return {**top1, "parameters": variant.published_params, "macs": variant.published_macs}
    if name.startswith("focal_transformer"):
        return {"accuracy": f"top-1 {FOCAL_TRANSFORMER_TOP1[name.rpartition('_')[2]]}"}
    family, _, size = name.rpartition("_")
    short = {"swin": f"swin_{size[0]}", "resnet": f"resnet{size}"}.get(family, name)
    meta = torchvision.models.get_model_weights(short).IMAGENET1K_V1.meta
    return {"accuracy": f"top-1 {meta['_metrics']['ImageNet-1K']['acc@1']:.1f}"}


def measure(
    subjects: list[Subject],
    settings: Settings,
    done: dict[str, Any],
    on_result: Callable[[], None],
    measures: Sequence[str] = MEASURES,
) -> None:
    """Add to `done`, by measure and subject, what is not in it yet; `on_result` is called after each addition.

    "size" has parameters, multiply-accumulates and what was published; "memory" the bytes of a training step that are
    kept for the backward pass, and its peak; "forward" and "training" seconds, for which all take turns, and on a CPU
    those of whole models' parts.
    """
    for subject in subjects:
        for name, function in (("size", _measure_size), ("memory", _measure_memory)):
            if name in measures and subject.name not in done.setdefault(name, {}):
                done[name][subject.name] = function(subject, settings)
                on_result()
    names = [subject.name for subject in subjects]
    steps = {"forward": _forward, "training": _step}
    missing = [name for name in steps if name in measures and list(done.get(name, {})) != names]
    models = {subject.name: _build(subject, settings) for subject in subjects if missing}
    for name in missing:
        done[name] = _measure_times(models, settings, steps[name])
        on_result()


def _build(subject: Subject, settings: Settings) -> nn.Module:
    torch.manual_seed(0)
    return subject.build().to(settings.device)


def _measure_size(subject: Subject, settings: Settings) -> dict[str, Any]:
    parameters, macs = count(_build(subject, settings), settings.images()[:1])
    published = dict(subject.published)
    if settings.size != SIZES[subject.kind]:
        published.pop("macs", None)
    return {"parameters": parameters, "macs": macs, "published": published}


def _measure_memory(subject: Subject, settings: Settings) -> dict[str, Any]:
    model, images = _prepare(_build(subject, settings), training=True), settings.images()
    saved = saved_bytes(model, partial(_loss, model, images))
    model.zero_grad(set_to_none=True)
    return {"saved": saved, "peak": peak_bytes(partial(_step, model, images), settings.device)}


def _measure_times(models: dict[str, nn.Module], settings: Settings, step: Callable[..., object]) -> dict[str, Any]:
    images = settings.images()
    runs: dict[str, Callable[[], object]] = {}
    parts = {}
    for name, model in models.items():
        runs[name] = partial(step, _prepare(model, training=step is _step), images)
        if hasattr(model, "model") and settings.device.type == "cpu":
            parts[name] = PartTimes(model.model)
            runs[name] = partial(parts[name].timed, runs[name])
    gc.collect()
    times = alternate(runs, settings.device, settings.rounds, settings.seconds)
    return {
        name: {
            "seconds": statistics.median(series),
            "quartiles": quartiles(series),
            "rounds": len(series),
            **({"parts": parts[name].medians(len(series))} if name in parts else {}),
        }
        for name, series in times.items()
    }


def _prepare(model: nn.Module, *, training: bool) -> nn.Module:
    """In train mode nothing is dropped at random, so that all rounds are alike, and batch norms keep their statistics,
    which a single image has none of.
    """
    model.train(training)
    for module in model.modules():
        if isinstance(module, (_BatchNorm, nn.Dropout, nn.Dropout2d)) or type(module).__name__ in (
            "DropPath",
            "StochasticDepth",
        ):
            module.eval()
    return model


@torch.no_grad()
def _forward(model: nn.Module, images: Tensor) -> object:
    return model(images)


def _loss(model: nn.Module, images: Tensor) -> Tensor:
    return sum(output.float().square().mean() for output in model(images))


def _step(model: nn.Module, images: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    _loss(model, images).backward()
