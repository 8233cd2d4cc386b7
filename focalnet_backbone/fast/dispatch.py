"""Whether a block may compute by other means than by calling its submodules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from focalnet_backbone.network.layers import DropPath, Mlp
from focalnet_backbone.network.modulation import FocalModulation

_PARAMETER_TYPES = (nn.Parameter, Tensor)
_WITH_WEIGHTS = (nn.Linear, nn.Conv2d, nn.LayerNorm)
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def may_bypass_submodules(block: nn.Module, x: Tensor) -> bool:
    """Whether nobody can tell that the block's submodules are not called, and all their settings are the usual ones.

    Not so while an exporter, a tracer or a transform of `torch.func` looks on, if a submodule has hooks (or all modules
    have), was replaced by one of another type or has another `forward`, or if weights are of a subclass of tensors. A
    compiler does well by the plain formulation on a GPU, and for gradients.
    """
    return (
        not _is_watched()
        and (not torch.compiler.is_compiling() or _is_better_than_compiled(block, x))
        and type(x) is Tensor
        and x.device.type in ("cpu", "cuda")
        and x.dtype in _DTYPES
        and x.numel() > 0
        and _is_stock_block(block)
        and _are_ordinary(block, x)
    )


def _is_watched() -> bool:
    return (
        torch.compiler.is_exporting()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or nn.modules.module._has_any_global_hook()
    )


def needs_gradients(block: nn.Module, x: Tensor) -> bool:
    """Whether the block's result will have to lead back to its input or its parameters."""
    return torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in block.parameters()))


def named_parameters(module: nn.Module, prefix: str = "") -> dict[str, nn.Parameter]:
    """What `Module.named_parameters` gives, each as often as it is there, in a fifth of its time."""
    found = {f"{prefix}{name}": p for name, p in module._parameters.items() if p is not None}
    for name, child in module._modules.items():
        if child is not None:
            found |= named_parameters(child, f"{prefix}{name}.")
    return found


def _is_better_than_compiled(block: nn.Module, x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not needs_gradients(block, x)


def _are_ordinary(block: nn.Module, x: Tensor) -> bool:
    """Whether all parameters are plain tensors of one type, which is the input's if autocast does not convert it."""
    parameters = list(named_parameters(block).values())
    dtype = parameters[0].dtype
    autocast = torch.is_autocast_enabled(x.device.type)
    return (
        all(type(p) in _PARAMETER_TYPES and p.dtype == dtype and p.device == x.device for p in parameters)
        and (x.dtype == dtype or autocast)
        # Autocast leaves float64 alone.
        and not (autocast and torch.float64 in (dtype, x.dtype))
    )


def _is_stock_block(block: nn.Module) -> bool:
    m, mlp = block.modulation, block.mlp
    return (
        _is_stock(m, FocalModulation)
        and _is_stock(mlp, Mlp)
        and all(_is_stock(layer, nn.Linear) for layer in (m.f, m.proj, mlp.fc1, mlp.fc2))
        and all(layer.bias is not None for layer in (m.h, m.proj, mlp.fc1, mlp.fc2))
        and _is_stock(m.h, nn.Conv2d)
        and m.h.kernel_size == m.h.stride == (1, 1)
        and m.h.padding == (0, 0)
        and m.h.groups == 1
        and all(_is_stock_level(layer, m.dim) for layer in m.focal_layers)
        and all(
            _is_stock(norm, nn.LayerNorm) and norm.bias is not None
            for norm in (block.norm1, block.norm2, m.ln)
            if norm is not None
        )
        and _is_stock(mlp.act, nn.GELU)
        and all(_is_stock(drop, nn.Dropout) and not (drop.training and drop.p) for drop in (m.proj_drop, mlp.drop))
        and _is_stock(block.drop_path, DropPath)
        and _are_parameters(block, "gamma_1", "gamma_2")
    )


def _is_stock_level(layer: nn.Module, dim: int) -> bool:
    if not _is_stock(layer, nn.Sequential) or len(layer) != 2:
        return False
    convolution, activation = layer
    return (
        _is_stock(convolution, nn.Conv2d)
        and _is_stock(activation, nn.GELU)
        and activation.approximate == "none"
        and convolution.bias is None
        and convolution.kernel_size[0] == convolution.kernel_size[1]
        and convolution.groups == dim
        and convolution.stride == convolution.dilation == (1, 1)
        and convolution.padding == tuple(size // 2 for size in convolution.kernel_size)
        and convolution.padding_mode == "zeros"
    )


def _are_parameters(module: nn.Module, *names: str) -> bool:
    """Whether attributes are parameters of the module or None, and not buffers, views or what hooks put there."""
    attributes, parameters = module.__dict__, module._parameters
    return all(attributes.get(name) is None and (name in parameters or name in attributes) for name in names)


def _is_stock(module: nn.Module, kind: type[nn.Module]) -> bool:
    attributes = module.__dict__
    return (
        type(module) is kind
        and "forward" not in attributes
        and (kind not in _WITH_WEIGHTS or (_are_parameters(module, "weight", "bias") and module.weight is not None))
        and not (attributes["_forward_hooks"] or attributes["_forward_pre_hooks"])
        and not (attributes["_backward_hooks"] or attributes["_backward_pre_hooks"])
    )
