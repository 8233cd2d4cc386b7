"""Published DINO detectors with FocalNet by name: config, box AP on COCO val2017, and where their weights live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_HUB = "https://huggingface.co/microsoft"
_DETREX = "https://github.com/IDEA-Research/detrex-storage/releases/download"


@dataclass(frozen=True)
class PublishedDetector:
    """A published detector.

    Attributes:
        name: by which `load_checkpoint` and mmengine's `load_from` find it.
        config: the config of `configs/mmdet` that its weights fit, without `.py`.
        address: of the file.
        origin: whose file it is: "release" (FocalNet-DINO) or "detrex".
        box_ap: published box AP on COCO val2017 in percent; None for a detector of other classes.
        parameters: in millions, with 80 classes.
        gigabytes: size of the file where it is published; the training state may be in it.
        trained_on: data sets, the last of which gives the classes.
    """

    name: str
    config: str
    address: str
    origin: str
    box_ap: float | None
    parameters: float
    gigabytes: float | None
    trained_on: str


def _of_release(suffix: str, file: str, box_ap: float | None, gigabytes: float | None) -> PublishedDetector:
    name = "dino-5scale_focalnet_large_fl4"
    repository, data = ("o365-cocoft", "Objects365, COCO") if "coco" in suffix else ("o365", "Objects365")
    address = f"{_HUB}/focalnet-large-fl4-dino-{repository}/resolve/main/{file}"
    config = f"{name}_hres_12e_coco" if "coco" in suffix else f"{name}_12e_coco"
    return PublishedDetector(f"{name}_{suffix}", config, address, "release", box_ap, 228.88, gigabytes, data)


def _of_detrex(config: str, file: str, box_ap: float, parameters: float) -> PublishedDetector:
    name = config.removesuffix("_coco")
    return PublishedDetector(name, config, f"{_DETREX}/{file}", "detrex", box_ap, parameters, None, "COCO")


DETECTORS: Mapping[str, PublishedDetector] = MappingProxyType(
    {
        detector.name: detector
        for detector in (
            _of_release("o365-coco", "focalnet_large_fl4_o365_finetuned_on_coco.pth", 63.5, 2.74),
            _of_release("o365", "focalnet_large_fl4_pretrained_on_o365.pth", None, None),
            _of_detrex(
                "dino-4scale_focalnet_large_fl3_detrex_12e_coco",
                "v0.2.1/dino_focal_large_lrf_384_4scale_12ep.pth",
                57.5,
                228.35,
            ),
            _of_detrex(
                "dino-4scale_focalnet_large_fl3_detrex_36e_coco",
                "v0.4.0/dino_focal_large_3level_4scale_36ep.pth",
                58.3,
                228.35,
            ),
            _of_detrex(
                "dino-4scale_focalnet_large_fl4_detrex_12e_coco",
                "v0.2.1/dino_focal_large_lrf_384_fl4_4scale_12ep.pth",
                58.0,
                228.53,
            ),
            _of_detrex(
                "dino-5scale_focalnet_large_fl4_detrex_12e_coco",
                "v0.2.1/dino_focalnet_large_lrf_384_fl4_5scale_12ep.pth",
                58.5,
                228.88,
            ),
        )
    }
)
"""Every published DINO detector by name. No Mask2Former with FocalNet was published."""


def list_detectors() -> list[str]:
    """Names of the published detectors."""
    return list(DETECTORS)
