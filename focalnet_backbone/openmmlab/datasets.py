"""The datasets of a config, built by their own classes, and what mmdetection's say of an annotation file."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
from collections.abc import Mapping
from typing import Any

import mmengine
from mmengine.registry import DATASETS

from focalnet_backbone.annotations.coco import Loading


def build_dataset(config: Mapping[str, Any], scope: str, **changes: Any) -> Any:
    """A dataset that lists its samples and loads none of them.

    Args:
        config: of the dataset.
        scope: the package whose classes it is of, such as "mmdet".
        changes: values in place of the config's, such as `lazy_init=True` to read nothing at all.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells what it does.
        return DATASETS.build({**config, "pipeline": [], "serialize_data": False, "_scope_": scope, **changes})


def coco_loading(config: Mapping[str, Any], scope: str) -> Loading:
    """How mmdetection's class loads the annotation file of a dataset's config: its number of `images` and `objects`,
    or the `error`. That is the same for all configs that differ in the pipeline alone.
    """
    dataset = build_dataset(config, scope, lazy_init=True)
    depends_on = {key: value for key, value in config.items() if key != "pipeline"}
    question = f"{type(dataset).__module__} {version_of(dataset)} loads, 2: "
    return Loading(
        question + json.dumps(depends_on, sort_keys=True, default=repr),
        functools.partial(_load, config=dict(config), scope=scope),
        bounds_do=type(dataset).__module__ == "mmdet.datasets.coco",
    )


def _load(path: str, config: Mapping[str, Any], scope: str) -> dict[str, Any]:
    try:
        dataset = build_dataset(config, scope)
    except MemoryError:  # It says nothing of the file, and the answer is kept.
        raise
    except Exception as error:  # Of whatever mmdetection does not expect.
        return {"error": tell_error(error)}
    objects = sum(not o["ignore_flag"] for image in dataset.data_list for o in image["instances"])
    return {"images": len(dataset), "objects": objects}


def version_of(part: Any) -> str:
    """The versions of mmengine and of the package that an object's class is from."""
    package = type(part).__module__.partition(".")[0]
    module = __import__(package)
    return f"{package} {getattr(module, '__version__', '')}, mmengine {mmengine.__version__}"


def tell_error(error: Exception) -> str:
    """What a class of others' raised, in one line."""
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return f"a link leads back to a folder that it lies in: {str(error.filename)[:200]}"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
