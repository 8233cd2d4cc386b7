"""The published set-up as a LazyConfig, with a model that a test can train."""

from ...configs.detectron2.mask_rcnn_focalnet import set_up

model, dataloader, optimizer, lr_multiplier, train = set_up("focalnet_tiny_srf", epochs=12, drop_path_rate=0.1)
model.backbone.bottom_up.update(embed_dim=4, depths=[1, 1, 1, 1], focal_windows=[3, 3, 3, 3])
model.backbone.out_channels = 8
model.proposal_generator.head.in_channels = 8
model.roi_heads.box_head.input_shape.channels = model.roi_heads.mask_head.input_shape.channels = 8
model.roi_heads.box_head.fc_dims = [16]
model.roi_heads.box_predictor.input_shape.channels = 16
model.roi_heads.mask_head.conv_dims = [8, 8]
model.proposal_generator.post_nms_topk = (50, 20)

crop, resize, flip = dataloader.train.mapper.augmentations
crop.update(min_sizes=[64, 80], crop_size=[40, 60])
resize.short_edge_length = [48, 64]
dataloader.test.mapper.augmentations[0].short_edge_length = 64
dataloader.train.total_batch_size = 2
dataloader.train.num_workers = dataloader.test.num_workers = 0

train.update(max_iter=2, eval_period=0, init_checkpoint="", device="cpu", seed=0)
