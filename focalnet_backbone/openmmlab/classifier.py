"""Classification weights for mmpretrain's `ImageClassifier`, which keeps its parts under names of its own."""

from __future__ import annotations

from typing import Any

from mmengine.runner import CheckpointLoader

from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.checkpoints.formats import check_values, recognise
from focalnet_backbone.checkpoints.sources import open_source
from focalnet_backbone.models.labels import imagenet_labels
from focalnet_backbone.network.variants import VARIANTS

PREFIX = "focalnet:"


def load_classifier(filename: str, map_location: Any = None) -> dict[str, Any]:
    """A checkpoint of mmengine's form with the weights of a whole classifier: backbone, norm and head.

    For `load_from`, `init_cfg=dict(type="Pretrained", ...)`, and `pretrained` of mmpretrain's functions.

    Args:
        filename: `"focalnet:"` before what `load_checkpoint` takes, such as `"focalnet:focalnet_tiny_lrf"`.
        map_location: not used; tensors are on the CPU.

    Raises:
        CheckpointError: the source cannot be had or read, or is no classifier.
        FileNotFoundError: it is a path where nothing is.
    """
    source = filename.removeprefix(PREFIX)
    opened = open_source(source)
    tensors = recognise(opened.checkpoint).tensors
    check_values(tensors)
    if "head.weight" not in tensors:
        raise CheckpointError(f"{opened.name}: is no classifier, as it lacks the weights of a head")
    stages = len({name.split(".")[1] for name in tensors if name.startswith("layers.")})
    weights = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        place = {"norm": f"backbone.norm{stages - 1}", "head": "head.fc"}.get(part)
        weights[f"{place}.{rest}" if place else f"backbone.{name}"] = tensor
    labels = imagenet_labels(VARIANTS[source].pretrained_on) if source in VARIANTS else None
    meta = {"dataset_meta": {"classes": list(labels.values())}} if labels else {}
    return {"state_dict": weights, "meta": meta}


CheckpointLoader.register_scheme(prefixes=PREFIX, loader=load_classifier, force=True)
