"""FocalNet-T (lrf) fine-tuned from its ImageNet-1k weights, 30 epochs.

For data of your own, change the dataset and the number of classes.

    tools/dist_train.sh configs/mmpretrain/focalnet_tiny_lrf_finetune_30e_in1k.py 8 --amp

The release holds no recipe of fine-tuning. This is that of Swin, whose code its classification is made from: AdamW
at 4e-5 for 1024 images an iteration, 5 epochs of warm-up, cosine, hardly any weight decay.
"""

_base_ = ["./_base_/focalnet_tiny_in1k.py"]

load_from = "focalnet:focalnet_tiny_lrf"
optim_wrapper = dict(optimizer=dict(lr=4e-5, weight_decay=1e-8))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=4e-7, by_epoch=True, begin=5),
]
train_cfg = dict(max_epochs=30)
