"""FocalNet as a backbone: image in, named feature maps out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from focalnet_backbone.fast.fusion import fuse_blocks
from focalnet_backbone.fast.precision import autocast_to_leave
from focalnet_backbone.network.blocks import FocalNetStage, PatchEmbed
from focalnet_backbone.network.config import FocalNetConfig
from focalnet_backbone.system.switches import check_switch


class FocalNetTrunk(nn.Module):
    """Stem and stages, initialised: what the backbone and the models with heads have in common.

    Args:
        config: the architecture.
        use_checkpoint: recompute blocks in the backward pass instead of keeping their activations.
        stages: how many of the config's stages to build; all by default. What is built is as in the whole network.
    """

    def __init__(self, config: FocalNetConfig, use_checkpoint: bool = False, stages: int | None = None) -> None:
        check_switch("use_checkpoint", use_checkpoint)
        super().__init__()
        self.config = config
        self.fused = False
        self.patch_embed = PatchEmbed(
            config.num_channels,
            config.embed_dim,
            config.patch_size,
            overlapping=config.use_conv_embed,
            stem_padding=config.conv_embed_stem_padding,
            layer_norm_eps=config.layer_norm_eps,
        )
        self.pos_drop = nn.Dropout(config.hidden_dropout_prob)
        blocks = sum(config.depths)
        drop_path = [config.drop_path_rate * block / max(blocks - 1, 1) for block in range(blocks)]
        stages = len(config.depths) if stages is None else stages
        self.layers = nn.ModuleList()
        for stage, depth in enumerate(config.depths[:stages]):
            rates, drop_path = drop_path[:depth], drop_path[depth:]
            is_last = stage + 1 == stages
            self.layers.append(FocalNetStage(config, stage, rates, use_checkpoint, downsample=not is_last))
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw linear weights from a truncated normal, zero their biases; all else starts as torch makes it."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=self.config.initializer_range)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def check_input(self, x: Tensor) -> None:
        """Raise `TypeError` or `ValueError` unless `x` is a float image batch `(N, C, H, W)` that the stem takes."""
        if not isinstance(x, Tensor):
            raise TypeError(f"expected a tensor (N, C, H, W), got {type(x).__name__}")
        if x.ndim != 4:
            raise ValueError(f"expected a tensor (N, C, H, W), got shape {tuple(x.shape)}")
        channels = self.config.num_channels
        if x.shape[1] != channels:
            raise ValueError(f"expected {channels} channels (num_channels), got {x.shape[1]} in {tuple(x.shape)}")
        if x.shape[2] < 1 or x.shape[3] < 1:
            raise ValueError(f"expected height and width of at least 1, got shape {tuple(x.shape)}")
        dtype = self.patch_embed.proj.weight.dtype
        if x.dtype == dtype:
            return
        # Autocast converts between floating-point types, but leaves float64 alone.
        convertible = x.is_floating_point() and x.dtype != torch.float64
        if not (convertible and torch.is_autocast_enabled(x.device.type)):
            raise TypeError(f"expected an input of the weights' type {dtype}, got {x.dtype}")

    def fuse(self) -> FocalNetTrunk:
        """Make the model quicker, for inference alone: constant factors go into weights, and weights are packed.

        The factors are layer scale and the modulator's division by L + 1. On x86, linear layers in float32 that small
        maps go through keep their weights once more in the layout in which oneDNN multiplies (up to 110 MB for
        FocalNet-T), made at the first call and anew when a weight is written to, though not through its `.data`; copies
        and pickles come without.

        The outputs stay the same, within rounding. A fused model is in eval mode without gradients, for good, and
        neither gives nor takes a state dict, since other numbers would stand there under the published names: load
        the weights before, and save the model from before. Returns the model.

        Raises:
            TypeError: a layer that would take a factor was replaced by one of another type.
        """
        if not self.fused:
            fuse_blocks([block for stage in self.layers for block in stage.blocks])
            for embed in (self.patch_embed, *(stage.downsample for stage in self.layers)):
                if embed is not None:
                    # What the maps are in. Otherwise, each call rearranges the kernels.
                    embed.to(memory_format=torch.channels_last)
            self.eval().requires_grad_(False)
            self.fused = True
        return self

    def train(self, mode: bool = True) -> FocalNetTrunk:
        """Set train or eval mode. Returns the model.

        Raises:
            RuntimeError: train mode for a fused model.
        """
        if mode:
            self._refuse_if_fused("trained")
        return super().train(mode)

    def _save_to_state_dict(self, *args: Any) -> None:
        self._refuse_if_fused("saved as a state dict")
        super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._refuse_if_fused("loaded from a state dict")
        super()._load_from_state_dict(*args)

    def _refuse_if_fused(self, action: str) -> None:
        if self.fused:
            raise RuntimeError(f"a fused model cannot be {action}; do that before fuse()")


class FocalNet(FocalNetTrunk):
    """Focal modulation network (arXiv 2203.11926) as a backbone for dense prediction.

    Stage i (1-based) gives `(N, embed_dim * 2**(i-1), ceil(H / s), ceil(W / s))` with
    `s = patch_size * 2**(i-1)`: the map before that stage's downsampling, through its own LayerNorm. `"stem"`
    is the patch embedding. The maps are channels-last in memory.

    What comes after the last wanted map is not built: stages, and the downsampling to them. So every parameter has a
    gradient, as `DistributedDataParallel` demands. `config` still describes the whole network, whose drop path rates
    the stages have; loading a checkpoint of the whole network leaves the rest out, and says so.

    Args:
        config: the architecture; the default is FocalNet-T (srf).
        out_features: names of the feature maps to return, out of `config.stage_names`; the order does not
            matter, they come as in the network.
        out_indices: the same by index into `config.stage_names` (0 is the stem).
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and stages 1 to k with their output norms.
            Frozen parts have no gradients, and no dropout or drop path in train mode.
        use_checkpoint: recompute blocks in the backward pass instead of keeping their activations.
        **overrides: other knobs of `FocalNetConfig`, replacing those of `config`.

    Raises:
        ValueError, TypeError: a knob is wrong; the message names it and what is allowed.
    """

    def __init__(
        self,
        config: FocalNetConfig | None = None,
        *,
        out_features: Sequence[str] | None = None,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        use_checkpoint: bool = False,
        **overrides: Any,
    ) -> None:
        if config is not None and not isinstance(config, FocalNetConfig):
            raise TypeError(f"config must be a FocalNetConfig, got {config!r}")
        if out_features is not None:
            overrides["out_features"] = out_features
        if out_indices is not None:
            overrides["out_indices"] = out_indices
        config = FocalNetConfig(**overrides) if config is None else config.replace(**overrides)
        stages = len(config.depths)
        if isinstance(frozen_stages, bool) or not isinstance(frozen_stages, int):
            raise TypeError(f"frozen_stages must be an int, got {frozen_stages!r}")
        if not -1 <= frozen_stages <= stages:
            raise ValueError(f"frozen_stages must be from -1 to {stages}, got {frozen_stages}")
        super().__init__(config, use_checkpoint, stages=config.out_indices[-1])
        self.frozen_stages = frozen_stages
        self.out_features = list(config.out_features)
        for index in config.out_indices:
            if index > 0:
                norm = nn.LayerNorm(config.stage_channels[index - 1], eps=config.layer_norm_eps)
                self.add_module(f"norm{index - 1}", norm)
        for module in self._frozen_modules():
            module.requires_grad_(False)
        self.train()

    @property
    def channels(self) -> dict[str, int]:
        """Channels of each output, by name."""
        widths = [self.config.embed_dim, *self.config.stage_channels]
        return {name: widths[i] for name, i in zip(self.out_features, self.config.out_indices, strict=True)}

    @property
    def strides(self) -> dict[str, int]:
        """Stride of each output in pixels of the input, by name."""
        strides = [self.config.patch_size, *self.config.stage_strides]
        return {name: strides[i] for name, i in zip(self.out_features, self.config.out_indices, strict=True)}

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Map images `(N, C, H, W)` of any size to feature maps `(N, C_i, H_i, W_i)` by name, stem first.

        Raises:
            ValueError, TypeError: the input has another shape, number of channels or type than the weights take.
        """
        self.check_input(pixel_values)
        left = autocast_to_leave(self, pixel_values)
        if left is None:
            return self._compute(pixel_values)
        with torch.autocast("cpu", enabled=False):
            maps = self._compute(pixel_values.float())
        types = [left, *(stage.autocast_dtype(left) for stage in self.layers)]
        return {name: maps[name].to(types[i]) for name, i in zip(maps, self.config.out_indices, strict=True)}

    def _compute(self, pixel_values: Tensor) -> dict[str, Tensor]:
        x = self.pos_drop(self.patch_embed(pixel_values))
        outputs = {}
        if "stem" in self.out_features:
            outputs["stem"] = x.permute(0, 3, 1, 2)
        for i, stage in enumerate(self.layers):
            if i > 0:
                x = self.layers[i - 1].downsample(x.permute(0, 3, 1, 2))
            x = stage(x)
            if i + 1 in self.config.out_indices:
                outputs[f"stage{i + 1}"] = getattr(self, f"norm{i}")(x).permute(0, 3, 1, 2)
        return outputs

    def train(self, mode: bool = True) -> FocalNet:
        """Set train or eval mode; frozen parts stay in eval mode. Returns the model."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def freeze_unread(self, read: Collection[str]) -> list[str]:
        """Take out of training what leads to maps that nobody reads: their norms, and stages after the last read one.

        It would get no gradients, and `DistributedDataParallel` waits for one of each parameter in training.

        Args:
            read: those of `out_features` that are read; of none, all are taken to be.

        Returns:
            The maps with something that is not trained any more.
        """
        numbers = dict(zip(self.out_features, self.config.out_indices, strict=True))
        last = max((numbers[name] for name in read), default=None)
        frozen = []
        for name, number in numbers.items() if last is not None else ():
            modules = [getattr(self, f"norm{number - 1}")] if name not in read and number > 0 else []
            if number > last:
                modules += [*self.layers[last:], *([self.layers[last - 1].downsample] if last else [])]
            parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
            for parameter in parameters:
                parameter.requires_grad_(False)
            if parameters:
                frozen.append(name)
        return frozen

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        modules = [self.patch_embed, self.pos_drop, *self.layers[: self.frozen_stages]]
        norms = [getattr(self, f"norm{i}", None) for i in range(self.frozen_stages)]
        return modules + [norm for norm in norms if norm is not None]
