"""What detrex (https://github.com/IDEA-Research/detrex) changes in FocalNet-DINO's recipe, for its configs to take.

A detector of the one with the encoding of the other finds nothing; `normalize_modulator` differs for FocalNet-L with 4
focal levels alone: its weights were pretrained with it, and detrex went on without.
"""

_base_ = ["./backbone_keys.py"]

detrex_backbone = dict(with_cp=False, normalize_modulator=False)
detrex_model = dict(positional_encoding=dict(temperature=10000, offset=-0.5), dn_cfg=dict(box_noise_scale=1.0))
detrex_data = dict(dataset=dict(filter_cfg=dict(filter_empty_gt=True)))
detrex_optimizer = dict(paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=_base_.backbone_keys))
detrex_36e = dict(type="MultiStepLR", begin=0, end=36, by_epoch=True, milestones=[30], gamma=0.1)
