"""The networks that are compared, by name, each as a pyramid of four feature maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torchvision
from torch import Tensor, nn

from focalnet_backbone.benchmark.twins.convnext import ConvNeXt
from focalnet_backbone.benchmark.twins.focal_transformer import FocalTransformer
from focalnet_backbone.create import create_backbone
from focalnet_backbone.network.variants import list_variants
from focalnet_backbone.system.spelling import closest

LETTERS = {"tiny": "t", "small": "s", "base": "b"}


class TorchvisionPyramid(nn.Module):
    """Torchvision's Swin or ResNet as a pyramid of four maps, without norms of their own.

    Args:
        stages: parts of the network, each of which ends in one of the four maps.
        channels_last: whether these are `(N, H, W, C)`, as Swin's.
    """

    def __init__(self, stages: Iterable[nn.Module], *, channels_last: bool) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images `(N, 3, H, W)` to four feature maps `(N, C_i, H / s_i, W / s_i)`, finest first."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x.permute(0, 3, 1, 2) if self.channels_last else x)
        return tuple(maps)


class FocalNetPyramid(nn.Module):
    """FocalNet with a tuple of maps."""

    def __init__(self, variant: str, focal_window: int | None = None, *, pretrained: bool = False) -> None:
        super().__init__()
        knobs = {"focal_windows": [focal_window] * 4} if focal_window else {}
        stages = ["stage1", "stage2", "stage3", "stage4"]
        self.backbone = create_backbone(
            variant, weights="pretrained" if pretrained else None, out_features=stages, **knobs
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images `(N, 3, H, W)` to four feature maps, finest first."""
        return tuple(self.backbone(x).values())


def _swin(size: str, *, pretrained: bool = False) -> TorchvisionPyramid:
    weights = "IMAGENET1K_V1" if pretrained else None
    # A stem, and stages with a merging of patches between each two.
    parts = torchvision.models.get_model(f"swin_{LETTERS[size]}", weights=weights).features
    stages = [nn.Sequential(*parts[2 * stage : 2 * stage + 2]) for stage in range(4)]
    return TorchvisionPyramid(stages, channels_last=True)


def _resnet(depth: int, *, pretrained: bool = False) -> TorchvisionPyramid:
    model = torchvision.models.get_model(f"resnet{depth}", weights="IMAGENET1K_V1" if pretrained else None)
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool, model.layer1)
    return TorchvisionPyramid([stem, model.layer2, model.layer3, model.layer4], channels_last=False)


def _convnext(size: str, *, pretrained: bool = False) -> ConvNeXt:
    model = ConvNeXt(size)
    if pretrained:
        model.features = torchvision.models.get_model(f"convnext_{size}", weights="IMAGENET1K_V1").features
    return model


def _focal_transformer(size: str, *, pretrained: bool = False) -> FocalTransformer:
    if pretrained:
        raise ValueError(f"no weights are published for focal_transformer_{size} as it is here; take random ones")
    return FocalTransformer(size)


TWINS: dict[str, Callable[..., nn.Module]] = {
    **{f"swin_{size}": partial(_swin, size) for size in LETTERS},
    **{f"convnext_{size}": partial(_convnext, size) for size in LETTERS},
    **{f"focal_transformer_{size}": partial(_focal_transformer, size) for size in LETTERS},
    **{f"resnet_{depth}": partial(_resnet, depth) for depth in (50, 101)},
}


def list_networks() -> list[str]:
    """Names that `make_network` takes: FocalNet's variants with four stages of strides 4 to 32, and their twins."""
    return [*(name for name in list_variants() if "iso" not in name), *TWINS]


def make_network(name: str, *, focal_window: int | None = None, pretrained: bool = False) -> nn.Module:
    """A network that maps images `(N, 3, H, W)` to a tuple of four feature maps, finest first.

    Args:
        name: one of `list_networks()`.
        focal_window: of a FocalNet, the focal windows of all stages in place of the variant's, as detectors have 9.
        pretrained: fetch the published weights of ImageNet-1K; random ones without.

    Raises:
        KeyError: there is no such network.
        ValueError: there are no weights of it.
    """
    if name not in list_networks():
        raise KeyError(f"no network {name!r}.{closest(name, list_networks())}")
    if name in TWINS:
        return TWINS[name](pretrained=pretrained)
    return FocalNetPyramid(name, focal_window, pretrained=pretrained)
