"""Loading published and trained FocalNet weights of every format into any of the models, safely."""

from focalnet_backbone.checkpoints.errors import CheckpointError
from focalnet_backbone.checkpoints.formats import convert_state_dict, export_state_dict
from focalnet_backbone.checkpoints.load import load_checkpoint
from focalnet_backbone.checkpoints.report import LoadReport

__all__ = ["CheckpointError", "LoadReport", "convert_state_dict", "export_state_dict", "load_checkpoint"]
