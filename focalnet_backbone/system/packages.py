"""The pip line that brings a package which is not installed."""

from __future__ import annotations

EXTRAS = {
    **dict.fromkeys(("mmcv", "mmdet", "mmengine", "mmseg"), "openmmlab,mmcv-lite"),
    "mmpretrain": "openmmlab,mmcv-lite,mmpretrain",
    **dict.fromkeys(("hydra", "iopath", "omegaconf", "yacs"), "detectron2"),
    "supervision": "labels",
    **dict.fromkeys(("matplotlib", "plotly"), "viz"),
    "fvcore": "analysis",
    "skimage": "sample",
    **dict.fromkeys(("braceexpand", "datasets", "fsspec", "pyarrow", "zarr"), "shards"),
    "ray": "ray",
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export"),
    **dict.fromkeys(("fastapi", "uvicorn"), "serve"),
}
"""Extras of this package, by modules that each of them is for."""

PACKAGES = {"PIL": "Pillow", "cv2": "opencv-python", "pkg_resources": "setuptools<81", "yaml": "PyYAML"}
"""Packages by modules of other names."""


def is_known(module: str) -> bool:
    """Whether a module is one that an extra of this package brings."""
    return module.partition(".")[0] in EXTRAS


def cure(module: str) -> str:
    """What to run so that a module can be imported."""
    top = module.partition(".")[0]
    if top == "detectron2":
        return "`focalnet doctor detectron2` says how to get it"
    if top in EXTRAS:
        return f'pip install "focalnet-backbone[{EXTRAS[top]}]"'
    name = PACKAGES.get(top, top)
    return f'pip install "{name}"' if "<" in name else f"pip install {name}"
