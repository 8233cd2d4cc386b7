import torch
import torch.nn.functional as F
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone, build_sem_seg_head
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.projects.point_rend.point_features import point_sample
from detectron2.structures import BitMasks, ImageList, Instances
from scipy.optimize import linear_sum_assignment
from torch import nn


@META_ARCH_REGISTRY.register()
class QueryMasks(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.backbone = build_backbone(cfg)
        self.sem_seg_head = build_sem_seg_head(cfg, self.backbone.output_shape())
        self.points = cfg.MODEL.QUERY_MASKS.TRAIN_POINTS
        self.size_divisibility = cfg.MODEL.QUERY_MASKS.SIZE_DIVISIBILITY
        if self.size_divisibility < 0:
            self.size_divisibility = self.backbone.size_divisibility
        self.register_buffer("pixel_mean", torch.tensor(cfg.MODEL.PIXEL_MEAN).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(cfg.MODEL.PIXEL_STD).view(-1, 1, 1), False)

    @property
    def device(self):
        return self.pixel_mean.device

    def forward(self, batched_inputs):
        images = [(x["image"].to(self.device) - self.pixel_mean) / self.pixel_std for x in batched_inputs]
        images = ImageList.from_tensors(images, self.size_divisibility)
        outputs = self.sem_seg_head(self.backbone(images.tensor))
        if self.training:
            targets = [x["instances"].to(self.device) for x in batched_inputs]
            losses = [self.loss(output, targets, images.tensor.shape[-2:]) for output in outputs]
            return {f"{name}_{i}": loss[name] for i, loss in enumerate(losses) for name in loss}
        masks = F.interpolate(outputs[-1]["pred_masks"], images.tensor.shape[-2:], mode="bilinear")
        return [
            {"instances": self.infer(logits, mask, size, x)}
            for logits, mask, size, x in zip(
                outputs[-1]["pred_logits"], masks, images.image_sizes, batched_inputs, strict=True
            )
        ]

    def infer(self, logits, masks, size, x):
        masks = sem_seg_postprocess(masks, size, x.get("height", size[0]), x.get("width", size[1]))
        scores, classes = logits.softmax(-1)[:, :-1].max(-1)
        result = Instances(masks.shape[-2:])
        result.pred_masks = masks > 0
        result.pred_boxes = BitMasks(result.pred_masks).get_bounding_boxes()
        result.scores, result.pred_classes = scores, classes
        return result

    def loss(self, output, targets, padded):
        total = {"loss_class": 0.0, "loss_mask": 0.0}
        for logits, masks, target in zip(output["pred_logits"], output["pred_masks"], targets, strict=True):
            points = torch.rand(1, self.points, 2, device=self.device)
            wanted = target.gt_masks.tensor.float()
            wanted = F.pad(wanted, (0, padded[1] - wanted.shape[-1], 0, padded[0] - wanted.shape[-2]))
            sampled = point_sample(masks[:, None], points.expand(len(masks), -1, -1), align_corners=False)[:, 0]
            wanted = point_sample(wanted[:, None], points.expand(len(wanted), -1, -1), align_corners=False)[:, 0]
            cost = -logits.softmax(-1)[:, target.gt_classes] + torch.cdist(sampled.sigmoid(), wanted, 1) / self.points
            i, j = linear_sum_assignment(cost.detach().cpu())
            classes = torch.full((len(logits),), logits.shape[-1] - 1, device=self.device)
            classes[i] = target.gt_classes[j]
            total["loss_class"] += F.cross_entropy(logits, classes) / len(targets)
            if len(i):
                total["loss_mask"] += F.binary_cross_entropy_with_logits(sampled[i], wanted[j]) / len(targets)
        return {name: torch.as_tensor(value, device=self.device) for name, value in total.items()}
