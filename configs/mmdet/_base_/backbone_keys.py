"""For recipes that spare norms weight decay and give the backbone a tenth of the learning rate: `backbone_keys`.

In mmengine, a parameter that a custom key names takes that key alone, so that "backbone" would hide `norm_decay_mult`
from the backbone's own norms. The longest key that is part of a parameter's name counts; those of blocks that a
smaller model lacks match nothing.
"""

backbone_norm = dict(lr_mult=0.1, decay_mult=0.0)
backbone_keys = {
    "backbone": dict(lr_mult=0.1, decay_mult=1.0),
    "backbone.norm": backbone_norm,
    "backbone.patch_embed.norm": backbone_norm,
    **{f"backbone.layers.{stage}.downsample.norm": backbone_norm for stage in range(3)},
    # Huge has a norm in its modulations, too.
    **{
        f"backbone.layers.{stage}.blocks.{block}.{norm}": backbone_norm
        for stage, depth in enumerate([2, 2, 18, 2])
        for block in range(depth)
        for norm in ("norm", "modulation.ln")
    },
}
