from detectron2.config import CfgNode


def add_query_masks_config(cfg):
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    cfg.MODEL.QUERY_MASKS = CfgNode()
    cfg.MODEL.QUERY_MASKS.QUERIES = 10
    cfg.MODEL.QUERY_MASKS.WIDTH = 16
    cfg.MODEL.QUERY_MASKS.LAYERS = 3
    cfg.MODEL.QUERY_MASKS.TRAIN_POINTS = 112
    cfg.MODEL.QUERY_MASKS.SIZE_DIVISIBILITY = -1
    cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER = "DeformablePixelDecoder"
    cfg.MODEL.SEM_SEG_HEAD.ENCODER_IN_FEATURES = ["res3", "res4", "res5"]
