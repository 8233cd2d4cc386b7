"""Masked image modeling after SimMIM (arXiv 2111.09886): predict the pixels of masked patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focalnet_backbone.fast.precision import autocast_to_leave
from focalnet_backbone.models.model import FocalNetModel
from focalnet_backbone.models.outputs import FocalNetMaskedImageModelingOutput
from focalnet_backbone.network.config import FocalNetConfig


class FocalNetForMaskedImageModeling(FocalNetModel):
    """FocalNet with a mask token and a one-layer decoder to pixels.

    Args:
        config: the architecture; `encoder_stride`, the decoder's upsampling, must be the last stage's stride for
            the reconstruction to have the image's size.
        use_checkpoint: recompute blocks in the backward pass instead of keeping their activations.
    """

    def __init__(self, config: FocalNetConfig, *, use_checkpoint: bool = False) -> None:
        super().__init__(config, add_pooling_layer=False, use_mask_token=True, use_checkpoint=use_checkpoint)
        self.decoder = nn.Sequential(
            nn.Conv2d(self.num_features, config.encoder_stride**2 * config.num_channels, kernel_size=1),
            nn.PixelShuffle(config.encoder_stride),
        )

    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> FocalNetMaskedImageModelingOutput | tuple:
        """Reconstruct images `(N, C, H, W)`; H and W must be multiples of `encoder_stride` for a loss.

        Args:
            pixel_values: images; the patches that the mask hides are not seen by the network.
            bool_masked_pos: `(N, L)`, true for the masked ones of the stem's L patches; without it there is no loss.
            output_hidden_states: whether to return `hidden_states`; the config's by default.
            return_dict: an output object (True) or a tuple `([loss, ]reconstruction[, hidden_states])`; the
                config's by default.

        Raises:
            ValueError, TypeError: an input has another shape or type than the model takes.
        """
        x, maps = self.encode(pixel_values, bool_masked_pos)
        reconstruction = self._decode(x.permute(0, 3, 1, 2))
        loss = None
        if bool_masked_pos is not None:
            loss = masked_l1_loss(reconstruction, pixel_values, bool_masked_pos, self.config.patch_size)
        output = FocalNetMaskedImageModelingOutput(
            loss=loss, reconstruction=reconstruction, **self._hidden_states(maps, output_hidden_states)
        )
        if self._wants_object(return_dict):
            return output
        return tuple(value for value in (output.loss, output.reconstruction, output.hidden_states) if value is not None)

    def _decode(self, x: Tensor) -> Tensor:
        left = autocast_to_leave(self, x)
        if left is None:
            return self.decoder(x)
        with torch.autocast("cpu", enabled=False):
            return self.decoder(x.float()).to(left)


def masked_l1_loss(reconstruction: Tensor, pixel_values: Tensor, bool_masked_pos: Tensor, patch_size: int) -> Tensor:
    """Mean absolute error over the masked pixels (SimMIM, section 3.4), a scalar; 0 if none is masked.

    Args:
        reconstruction: `(N, C, H, W)`.
        pixel_values: `(N, C, H, W)`.
        bool_masked_pos: `(N, L)`, true for masked patches.
        patch_size: side of a patch in pixels.

    Raises `ValueError` if the reconstruction has another size than the image.
    """
    if reconstruction.shape != pixel_values.shape:
        raise ValueError(
            f"the reconstruction is {tuple(reconstruction.shape[2:])} for pixel_values of "
            f"{tuple(pixel_values.shape[2:])}; the image's height and width must be multiples of encoder_stride, and "
            "encoder_stride the stride of the last stage"
        )
    mask = pixel_mask(bool_masked_pos, pixel_values.shape[2], pixel_values.shape[3], patch_size)
    error = F.l1_loss(pixel_values, reconstruction, reduction="none")
    # The small constant is SimMIM's, against division by zero.
    return (error * mask).sum() / (mask.sum() + 1e-5) / pixel_values.shape[1]


def pixel_mask(bool_masked_pos: Tensor, height: int, width: int, patch_size: int) -> Tensor:
    """Spread a mask over patches `(N, L)` to pixels, `(N, 1, height, width)`."""
    mask = bool_masked_pos.bool().view(-1, 1, height // patch_size, width // patch_size)
    return mask.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
