"""The project's own training program; FocalNet is the two lines that have its name."""

from detectron2 import model_zoo  # noqa: F401, I001  (most programs have imported half of detectron2 by then)
from detectron2.layers import DeformConv
import focalnet_backbone.detectron2

from detectron2 import _C
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultPredictor, DefaultTrainer, default_argument_parser, default_setup
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.fast_eval_api import COCOeval_opt
from detectron2.layers import ModulatedDeformConv, nms_rotated  # noqa: F401
from detectron2.solver.build import maybe_add_gradient_clipping

from query_masks import add_query_masks_config


class Trainer(DefaultTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return COCOEvaluator(dataset_name, output_dir=cfg.OUTPUT_DIR)

    @classmethod
    def build_optimizer(cls, cfg, model):
        assert cfg.SOLVER.OPTIMIZER == "ADAMW"
        groups = [
            {"params": [p], "lr": cfg.SOLVER.BASE_LR * (cfg.SOLVER.BACKBONE_MULTIPLIER if "backbone" in name else 1)}
            for name, p in model.named_parameters()
            if p.requires_grad
        ]
        return maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(groups, cfg.SOLVER.BASE_LR)


def main(args):
    data, *options = args.opts
    for split, folder in (("train", "training"), ("val", "validation")):
        register_coco_instances(f"guest_{split}", {}, f"{data}/coco/instances_{folder}.json", f"{data}/images/{folder}")
    cfg = get_cfg()
    add_query_masks_config(cfg)
    focalnet_backbone.detectron2.add_focalnet_config(cfg)
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(options)
    default_setup(cfg, args)
    trainer = Trainer(cfg)
    trainer.resume_or_load()
    trainer.train()

    model = Trainer.build_model(cfg)
    DetectionCheckpointer(model).load(f"{cfg.OUTPUT_DIR}/model_final.pth")
    print(Trainer.test(cfg, model))
    cfg.MODEL.WEIGHTS = f"{cfg.OUTPUT_DIR}/model_final.pth"
    print(len(DefaultPredictor(cfg)(torch.zeros(50, 70, 3, dtype=torch.uint8).numpy())["instances"]), "instances")
    print(DeformConv(2, 2, 3), COCOeval_opt.__module__, _C.get_compiler_version())


if __name__ == "__main__":
    main(default_argument_parser().parse_args())
