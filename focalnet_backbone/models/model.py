"""FocalNetModel: image in, tokens and their mean out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from focalnet_backbone.fast.precision import autocast_to_leave
from focalnet_backbone.models.outputs import FocalNetModelOutput
from focalnet_backbone.models.pretrained import PretrainedMixin
from focalnet_backbone.network.backbone import FocalNetTrunk
from focalnet_backbone.network.config import FocalNetConfig


class FocalNetModel(PretrainedMixin, FocalNetTrunk):
    """FocalNet with a final LayerNorm and average pooling, as transformers' class of this name.

    Args:
        config: the architecture.
        add_pooling_layer: whether to return `pooler_output`.
        use_mask_token: learn an embedding that stands in for masked patches.
        use_checkpoint: recompute blocks in the backward pass instead of keeping their activations.
    """

    def __init__(
        self,
        config: FocalNetConfig,
        add_pooling_layer: bool = True,
        use_mask_token: bool = False,
        *,
        use_checkpoint: bool = False,
    ) -> None:
        if not isinstance(config, FocalNetConfig):
            raise TypeError(f"config must be a focalnet_backbone.FocalNetConfig, got {type(config).__name__}")
        super().__init__(config, use_checkpoint)
        self.add_pooling_layer = add_pooling_layer
        self.num_features = config.stage_channels[-1]
        self.norm = nn.LayerNorm(self.num_features, eps=config.layer_norm_eps)
        self.mask_token = None
        if use_mask_token:
            self.mask_token = nn.Parameter(torch.empty(1, 1, config.embed_dim))
            nn.init.trunc_normal_(self.mask_token, std=config.initializer_range)

    def encode(self, pixel_values: Tensor, bool_masked_pos: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Run stem and stages on images `(N, C, H, W)`.

        Returns the last map, normalised, and the maps of the stem and after each stage's downsampling, all
        `(N, H_i, W_i, C_i)`.
        """
        self.check_input(pixel_values)
        left = autocast_to_leave(self, pixel_values)
        if left is None:
            return self._encode(pixel_values, bool_masked_pos)
        with torch.autocast("cpu", enabled=False):
            x, maps = self._encode(pixel_values.float(), bool_masked_pos)
        last = self.layers[-1].autocast_dtype(left)
        return x.to(last), [*(x.to(left) for x in maps[:-1]), maps[-1].to(last)]

    def _encode(self, pixel_values: Tensor, bool_masked_pos: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        x = self.patch_embed(pixel_values)
        if bool_masked_pos is not None:
            x = self._mask(x, bool_masked_pos)
        x = self.pos_drop(x)
        maps = [x]
        for stage in self.layers:
            x = stage(x)
            if stage.downsample is not None:
                x = stage.downsample(x.permute(0, 3, 1, 2))
            maps.append(x)
        return self.norm(x), maps

    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> FocalNetModelOutput | tuple:
        """Map images `(N, C, H, W)` to tokens.

        Args:
            pixel_values: images of any size.
            bool_masked_pos: `(N, L)`, true where one of the stem's L patches is hidden behind the mask token.
            output_hidden_states: whether to return `hidden_states`; the config's by default.
            return_dict: an output object (True) or a tuple `(last_hidden_state, pooler_output[, hidden_states])`;
                the config's by default.

        Raises:
            ValueError, TypeError: an input has another shape or type than the model takes.
        """
        x, maps = self.encode(pixel_values, bool_masked_pos)
        output = FocalNetModelOutput(
            last_hidden_state=x.flatten(1, 2),
            pooler_output=x.mean((1, 2)) if self.add_pooling_layer else None,
            **self._hidden_states(maps, output_hidden_states),
        )
        if self._wants_object(return_dict):
            return output
        values = (output.last_hidden_state, output.pooler_output)
        return values if output.hidden_states is None else (*values, output.hidden_states)

    def _mask(self, x: Tensor, bool_masked_pos: Tensor) -> Tensor:
        """Put the mask token at the masked positions of the stem's map `(N, H, W, C)`."""
        if self.mask_token is None:
            raise ValueError("bool_masked_pos needs a model built with use_mask_token=True")
        if not isinstance(bool_masked_pos, Tensor):
            raise TypeError(f"bool_masked_pos must be a tensor, got {type(bool_masked_pos).__name__}")
        n, h, w, _ = x.shape
        if tuple(bool_masked_pos.shape) != (n, h * w):
            raise ValueError(
                f"bool_masked_pos must be (N, L) = {(n, h * w)}, one entry for each of the stem's {h} x {w} patches, "
                f"got {tuple(bool_masked_pos.shape)}"
            )
        return torch.where(bool_masked_pos.bool().view(n, h, w, 1), self.mask_token.to(x.dtype), x)

    def _hidden_states(self, maps: list[Tensor], output_hidden_states: bool | None) -> dict[str, tuple[Tensor, ...]]:
        """The hidden states among the output's fields, if they are wanted."""
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        if not wanted:
            return {}
        return {
            "hidden_states": tuple(x.flatten(1, 2) for x in maps),
            "reshaped_hidden_states": tuple(x.permute(0, 3, 1, 2) for x in maps),
        }

    def _wants_object(self, return_dict: bool | None) -> bool:
        return self.config.return_dict if return_dict is None else return_dict
