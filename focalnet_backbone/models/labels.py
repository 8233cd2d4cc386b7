"""Names of the classes that the published models tell apart."""

from __future__ import annotations

import importlib.util

from torchvision.models import get_weight


def imagenet_labels(pretrained_on: str) -> dict[int, str] | None:
    """Class index to name for "imagenet-1k" (as torchvision has them) or "imagenet-22k" (as timm has them).

    None for a data set whose names are not at hand, which those of ImageNet-22k are only where timm is installed.
    """
    if pretrained_on == "imagenet-1k":
        return dict(enumerate(get_weight("ResNet50_Weights.IMAGENET1K_V1").meta["categories"]))
    if pretrained_on == "imagenet-22k" and importlib.util.find_spec("timm"):
        from timm.data import ImageNetInfo

        names = ImageNetInfo("imagenet-22k-ms")
        return {i: names.index_to_description(i) for i in range(names.num_classes())}
    return None
