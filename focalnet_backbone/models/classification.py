"""FocalNet with a classification head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from focalnet_backbone.models.model import FocalNetModel
from focalnet_backbone.models.outputs import FocalNetImageClassifierOutput
from focalnet_backbone.network.config import FocalNetConfig


class FocalNetForImageClassification(FocalNetModel):
    """FocalNet with a linear layer on the pooled tokens.

    Args:
        config: the architecture; `num_labels` is the number of classes, 0 for no head (logits are the pooled
            tokens then), and `problem_type` picks the loss.
        use_checkpoint: recompute blocks in the backward pass instead of keeping their activations.
    """

    def __init__(self, config: FocalNetConfig, *, use_checkpoint: bool = False) -> None:
        super().__init__(config, use_checkpoint=use_checkpoint)
        self.head = nn.Identity()
        if config.num_labels > 0:
            self.head = nn.Linear(self.num_features, config.num_labels)
            nn.init.trunc_normal_(self.head.weight, std=config.initializer_range)
            nn.init.zeros_(self.head.bias)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> FocalNetImageClassifierOutput | tuple:
        """Map images `(N, C, H, W)` to logits `(N, num_labels)`.

        Args:
            pixel_values: images of any size.
            labels: class indices `(N,)`; or values `(N,)` for regression with one label, `(N, num_labels)` with
                more; or float `(N, num_labels)` in [0, 1] for independent labels.
            output_hidden_states: whether to return `hidden_states`; the config's by default.
            return_dict: an output object (True) or a tuple `([loss, ]logits[, hidden_states])`; the config's by
                default.

        Raises:
            ValueError, TypeError: an input has another shape or type than the model takes.
        """
        x, maps = self.encode(pixel_values)
        logits = self.head(x.mean((1, 2)))
        output = FocalNetImageClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config),
            logits=logits,
            **self._hidden_states(maps, output_hidden_states),
        )
        if self._wants_object(return_dict):
            return output
        return tuple(value for value in (output.loss, output.logits, output.hidden_states) if value is not None)


def classification_loss(logits: Tensor, labels: Tensor, config: FocalNetConfig) -> Tensor:
    """Scalar loss of logits `(N, num_labels)`: squared error, cross entropy or binary cross entropy.

    `config.problem_type` picks it. Left at None, one label means regression, integer labels mean one class of
    several, and float labels mean independent ones.

    Raises `TypeError` if the labels are no tensor, `ValueError` if their shape or type does not fit the problem.
    """
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a tensor, got {type(labels).__name__}")
    if config.num_labels == 0:
        raise ValueError("a loss needs a head, but num_labels is 0")
    problem = config.problem_type or infer_problem_type(labels, config.num_labels)
    single = problem == "single_label_classification"
    entries = logits.shape[0] if single or config.num_labels == 1 else logits.numel()
    if labels.numel() != entries:
        expected = (logits.shape[0],) if entries == logits.shape[0] else tuple(logits.shape)
        raise ValueError(f"labels must be {expected} for {problem}, got {tuple(labels.shape)}")
    if single == labels.is_floating_point() and problem != "regression":
        raise ValueError(f"labels must be {'class indices' if single else 'float'} for {problem}, got {labels.dtype}")
    labels = labels.to(logits.device)
    if single:
        return F.cross_entropy(logits, labels.reshape(-1).long())
    labels = labels.reshape(logits.shape).to(logits.dtype)
    if problem == "regression":
        return F.mse_loss(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels)


def infer_problem_type(labels: Tensor, num_labels: int) -> str:
    """The problem type that labels speak of, as `FocalNetConfig.problem_type` names it."""
    if num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
