"""FocalNet-L (4 focal levels) and the 100 epochs of Mask2Former's Swin-L, for the configs of large to take."""

large = dict(
    backbone=dict(variant="focalnet_large_fl4", init_cfg=dict(checkpoint="focalnet_large_fl4")),
    panoptic_head=dict(num_queries=200, in_channels=[192, 384, 768, 1536]),
)
iterations = 737500
large_schedule = dict(end=iterations, milestones=[655556, 710184])
# Evaluated every 5000 iterations, and at the end.
large_loop = dict(max_iters=iterations, dynamic_intervals=[(iterations // 5000 * 5000 + 1, iterations)])
# 16 GPUs with one image each.
large_data = dict(batch_size=1, num_workers=1)
