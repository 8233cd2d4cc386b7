"""A project on detectron2 in the manner of Mask2Former, for any backbone."""

from . import head, meta_arch, pixel_decoder  # noqa: F401
from .config import add_query_masks_config  # noqa: F401
