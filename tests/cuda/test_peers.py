"""On a GPU, timm and transformers give the same on the same weights, gradients included."""

from __future__ import annotations

import pytest
import torch

from focalnet_backbone import FocalNetConfig
from focalnet_backbone.benchmark.contenders import make_contenders, missing_peers
from focalnet_backbone.checkpoints import export_state_dict
from tests.cuda.numbers import images

FAMILIES = {
    "srf": {"focal_levels": [2] * 4},
    "large_fl4": {
        "focal_levels": [4] * 4,
        "use_conv_embed": True,
        "use_post_layernorm": True,
        "use_layerscale": True,
        "layerscale_value": 0.5,
        "normalize_modulator": True,
    },
    "huge_fl3": {"focal_levels": [3] * 4, "use_post_layernorm_in_modulation": True, "use_conv_embed": True},
}


@pytest.mark.parametrize("peer", ["timm", "transformers"])
@pytest.mark.parametrize("family", FAMILIES)
def test_features_and_gradients_are_those_of_the_peer(peer, family, device):
    if peer in missing_peers():
        pytest.skip(f"{peer} is not installed")
    config = FocalNetConfig(embed_dim=8, depths=[1] * 4, focal_windows=[3] * 4, **FAMILIES[family])
    found = {}
    for contender in make_contenders(config, device):
        if contender.name in ("ours", peer):
            contender.model.train()
            features = contender.run(images(2, 3, 64, 96).to(device))
            # Not of squares, whose sum the last norm keeps constant.
            features.pow(3).sum().backward()
            found[contender.name] = features, contender.model
    (ours, our_model), (theirs, their_model) = found["ours"], found[peer]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    # The head's are zero, as it is not in use; it tells the names under which the peer has the others.
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in our_model.named_parameters()}
    named = export_state_dict(gradients, peer, use_post_layernorm=config.use_post_layernorm)
    expected = {name: p.grad for name, p in their_model.named_parameters() if p.grad is not None}
    assert len(expected) == sum(p.grad is not None for p in our_model.parameters())
    for name, gradient in expected.items():
        assert (gradient - named[name]).norm() <= 1e-3 * gradient.norm(), name
