"""The published set-ups: both forms of each config say the paper's recipe, and build the paper's model."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_anchor_generator
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from focalnet_backbone.detectron2.jobs import Job, load_job
from tests.conftest import DATA

CONFIGS = Path(__file__).parents[2] / "configs" / "detectron2"
PUBLISHED = json.loads((DATA / "downstream.json").read_text())
TRAINING = PUBLISHED["mask_rcnn_training"]
RESULTS = {f"mask_rcnn_focalnet_{r['size']}_{r['kernels']}_{r['schedule']}": r for r in TRAINING["results"]}
EPOCH = 7330
EPOCHS = {"1x": (9, 11, 12), "3x": (27, 33, 36)}


@pytest.fixture(params=[f"{name}.{suffix}" for name in RESULTS for suffix in ("yaml", "py")])
def file(request) -> Path:
    return CONFIGS / request.param


@pytest.fixture
def published(file) -> dict:
    return RESULTS[file.stem]


def on_meta(file: Path) -> Job:
    """The job, with a model that has shapes but no numbers."""
    return load_job(file, ["MODEL.DEVICE", "meta"] if file.suffix == ".yaml" else ["train.device=meta"])


@functools.cache
def build(file: Path) -> torch.nn.Module:
    """The detector of a config, made once for all the tests."""
    with torch.device("meta"):
        return on_meta(file).model()


def test_there_are_twelve_of_each():
    assert len(RESULTS) == 12
    for suffix in ("yaml", "py"):
        assert {path.stem for path in CONFIGS.glob(f"mask_rcnn_focalnet_*_*_*.{suffix}")} == set(RESULTS)


def test_the_model_has_the_published_architecture_and_parameters(file, published):
    model = build(file)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    measured = PUBLISHED["mask_rcnn_params_measured_in_mmdetection_3"]
    assert parameters == pytest.approx(measured[f"{published['size']}_{published['kernels']}"], abs=0.15)

    config = model.backbone.bottom_up.config
    release = PUBLISHED["backbones"][
        f"mask_rcnn_focalnet_{published['size']}_{published['schedule']}_coco_{published['kernels']}"
    ]
    assert {knob: getattr(config, knob) for knob in release} == release
    assert model.backbone.bottom_up.out_features == ["stage1", "stage2", "stage3", "stage4"]


def test_the_header_states_what_was_published_and_a_command_that_names_the_file(file, published):
    header = file.read_text().split("_BASE_" if file.suffix == ".yaml" else "from ")[0]
    assert f"box AP {published['box_ap']}, mask AP {published['mask_ap']}" in header
    assert f"{published['params_m']} M parameters, {published['gflops']} GFLOPs" in header
    assert f"tools/train_net.py --num-gpus 8 --config-file configs/detectron2/{file.name}" in header
    assert f"FocalNet-{published['size'][0].upper()} ({published['kernels'].upper()})" in header


def test_the_schedule_is_the_papers(file, published):
    job = on_meta(file)
    first, second, last = (epochs * EPOCH for epochs in EPOCHS[published["schedule"]])
    assert job.max_iter == last
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    multiplier = job.scheduler(optimizer)._multiplier

    def rate(iteration: int) -> float:
        return multiplier(iteration / last)

    assert rate(0) == pytest.approx(0.001)
    assert rate(250) == pytest.approx(0.5005)
    assert [rate(i) for i in (500, first - 1, first + 1, second - 1, second + 1, last - 1)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_the_optimizer_decays_all_but_norms(file):
    job = on_meta(file)
    model = build(file)
    optimizer = job.optimizer(model)
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["lr"] == 1e-4
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    decay = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    norms = {p for module in model.modules() if isinstance(module, torch.nn.LayerNorm) for p in module.parameters()}
    assert norms
    assert {p for p in decay if decay[p] == 0.0} == norms
    assert {value for p, value in decay.items() if p not in norms} == {0.05}
    assert set(decay) == set(model.parameters())


def test_the_data_and_the_start_are_the_papers(file, published):
    job = on_meta(file)
    assert job.batch_size == TRAINING["images_per_iteration"] == 16
    assert job.mixed_precision
    assert job.weights == f"focalnet_{published['size']}_{published['kernels']}"
    assert (job.train_names, job.test_names) == (["coco_2017_train"], ["coco_2017_val"])
    assert job.output_dir.endswith(file.stem)
    assert job.eval_period == job.checkpoint_period == EPOCH


@pytest.mark.parametrize("code", ["model = 1 / 0", "import nowhere", "model = dict(backbone", "model = {}"])
def test_python_that_is_no_lazy_config_is_named_with_what_is_wrong(tmp_path, code):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(ValueError, match=r"mine\.py.*(ZeroDivision|nowhere|syntax error|it lacks optimizer)"):
        load_job(tmp_path / "mine.py")


def test_yaml_and_lazy_config_build_the_same_detector():
    name = "mask_rcnn_focalnet_tiny_srf_1x"
    yaml, lazy = (build(CONFIGS / f"{name}.{suffix}") for suffix in ("yaml", "py"))
    assert repr(yaml) == repr(lazy)
    for model in (yaml, lazy):
        rpn, heads = model.proposal_generator, model.roi_heads
        assert model.input_format == "RGB"
        assert model.backbone.size_divisibility == 32
        assert (rpn.pre_nms_topk, rpn.post_nms_topk) == ({True: 2000, False: 1000}, {True: 1000, False: 1000})
        assert (rpn.nms_thresh, rpn.batch_size_per_image, rpn.positive_fraction) == (0.7, 256, 0.5)
        assert (rpn.anchor_matcher.thresholds[1:-1], rpn.anchor_matcher.allow_low_quality_matches) == ([0.3, 0.7], True)
        assert (rpn.box_reg_loss_type, rpn.smooth_l1_beta) == ("smooth_l1", 0.0)
        assert (heads.batch_size_per_image, heads.positive_fraction, heads.proposal_append_gt) == (512, 0.25, True)
        assert heads.proposal_matcher.thresholds[1:-1] == [0.5]
        assert not heads.proposal_matcher.allow_low_quality_matches
        predictor = heads.box_predictor
        assert (predictor.box_reg_loss_type, predictor.smooth_l1_beta) == ("smooth_l1", 0.0)
        assert (predictor.test_score_thresh, predictor.test_nms_thresh, predictor.test_topk_per_image) == (
            0.05,
            0.5,
            100,
        )
        assert tuple(predictor.box2box_transform.weights) == (10, 10, 5, 5)


def test_a_training_step_of_the_whole_model_reaches_every_parameter():
    job = load_job(CONFIGS / "mask_rcnn_focalnet_tiny_srf_1x.yaml", ["MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    model = job.model()
    optimizer = job.optimizer(model)
    boxes = [[25.0, 25.0, 125.0, 150.0], [175.0, 50.0, 225.0, 100.0]]
    instances = Instances((200, 320), gt_boxes=Boxes(torch.tensor(boxes)), gt_classes=torch.tensor([3, 7]))
    instances.gt_masks = PolygonMasks([[np.array([x0, y0, x1, y0, x1, y1, x0, y1])] for x0, y0, x1, y1 in boxes])
    with EventStorage():
        losses = model([{"image": torch.randint(0, 256, (3, 200, 320)), "instances": instances}])
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    before = model.backbone.bottom_up.patch_embed.proj.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(model.backbone.bottom_up.patch_embed.proj.weight, before)


@pytest.mark.parametrize("suffix", ["yaml", "py"])
def test_the_augmentation_resizes_all_images_crops_half_and_flips_half(suffix):
    job = on_meta(CONFIGS / f"mask_rcnn_focalnet_tiny_srf_1x.{suffix}")
    np.random.seed(0)
    image = np.zeros((427, 640, 3), np.uint8)
    augmentations = job.train_mapper().augmentations
    short_sides, cropped, flipped, ratios = set(), 0, 0, []
    for _ in range(100):
        augmented = T.AugInput(image)
        transforms = augmentations(augmented)
        height, width = augmented.image.shape[:2]
        short_sides.add(min(height, width))
        assert max(height, width) <= 1333
        crops = [t for t in transforms.transforms if isinstance(t, T.CropTransform)]
        cropped += len(crops)
        for crop in crops:
            assert 384 <= crop.h <= 600
            assert 384 <= crop.w <= 600
        if crops:
            small = next(t for t in transforms.transforms if isinstance(t, T.ResizeTransform))
            assert min(small.new_h, small.new_w) in (400, 500, 600)
        flipped += any(isinstance(t, T.HFlipTransform) for t in transforms.transforms)
        ratios.append(width / height)
    assert short_sides <= set(range(480, 801, 32))
    assert len(short_sides) == 11
    assert 30 < cropped < 70
    assert 30 < flipped < 70
    assert np.std(ratios) > 0.1


@pytest.mark.parametrize("suffix", ["yaml", "py"])
def test_anchors_are_eight_times_the_stride_in_three_ratios(suffix):
    job = on_meta(CONFIGS / f"mask_rcnn_focalnet_tiny_srf_1x.{suffix}")
    if suffix == "yaml":
        generator = build_anchor_generator(job.cfg, [ShapeSpec(stride=2**level) for level in range(2, 7)])
    else:
        generator = instantiate(job.cfg.model.proposal_generator.anchor_generator)
    for stride, anchors in zip([4, 8, 16, 32, 64], generator.cell_anchors, strict=True):
        sides = anchors[:, 2:] - anchors[:, :2]
        torch.testing.assert_close(sides.prod(1), torch.full((3,), (8.0 * stride) ** 2))
        torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 1.0, 2.0]))
        torch.testing.assert_close(anchors[:, :2], -anchors[:, 2:])
