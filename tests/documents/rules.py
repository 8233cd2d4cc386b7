"""The one list of what the tests do otherwise than the pages say: what is not run, and what is made smaller."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from tests.documents.pages import PAGES, Item, read_items


@dataclass(frozen=True)
class Rule:
    """What is done otherwise for the commands and snippets that match.

    A command is matched as one line, a snippet as a whole; the first rule that matches holds. A rule that matches
    nothing on any page is stale, and a test fails.

    Attributes:
        match: pattern of the text, in which `*` stands for anything.
        needs: what it takes that a test does not have. It is not run then.
        refused: what its last line of errors says where that is lacking. It is run nevertheless, to be refused: this
            shows that it is right up to there.
        add: words that the command is given in addition, so that it takes seconds.
        replace: a text in the command, and what takes its place, because of what was added to one before.
    """

    match: str
    needs: str = ""
    refused: str = ""
    add: str = ""
    replace: tuple[str, str] = ("", "")

    def fits(self, item: Item) -> bool:
        """Whether it is about that command or snippet."""
        return fnmatchcase(item.text, self.match.replace("[", "[[]"))


RULES = [
    Rule("bash tools/setup.sh", needs="an environment to be made; tests/test_tools.py runs it in one that is complete"),
    Rule("bash tools/demo.sh", needs="minutes; tests/test_demo.py runs it with --quick"),
    Rule("bash tools/gpu_check.sh*", needs="a GPU; tests/test_gpu_check.py runs it on the CPU with --quick"),
    Rule("bash tools/check.sh*", needs="to be outside of the tests, which it runs"),
    Rule("pip install *", needs="a package index, and an environment to change"),
    # export.md
    Rule("focalnet export focalnet_tiny_lrf *", needs="a network, and published weights"),
    Rule("focalnet export *", needs="half a minute each; tests/export and tests/openmmlab/test_deploy.py run them"),
    Rule("focalnet predict work_dirs/upernet.onnx *", needs="what was exported before"),
    Rule("python work_dirs/upernet_example.py *", needs="what was exported before"),
    # command.md
    Rule("focalnet sample data/sample", add="--train 4 --val 2 --size 64"),
    Rule(
        "focalnet train upernet_focalnet_sample.py",
        add="--cfg-options train_cfg.max_iters=2 train_cfg.val_interval=2 train_dataloader.batch_size=2",
    ),
    Rule("focalnet * work_dirs/upernet_focalnet_sample/iter_1200.pth*", replace=("iter_1200.pth", "iter_2.pth")),
    # detectron2.md
    Rule("python tools/train_net.py *configs/detectron2/mask_rcnn_focalnet_tiny_srf_1x*", "COCO", "coco_2017_*"),
    Rule("python tools/predict.py *_1x.yaml model_final.pth photo.jpg *", "a trained model", "no image at photo.jpg"),
    Rule("python tools/make_sample_dataset.py data/sample", add="--train 4 --val 2 --size 64"),
    Rule("python tools/train_net.py *_sample.yaml *", add="SOLVER.MAX_ITER 1 SOLVER.IMS_PER_BATCH 1"),
    # mmsegmentation.md, mmdetection.md
    Rule("bash tools/dist_train.sh configs/mm*", needs="8 GPUs, and ADE20K or COCO"),
    Rule("bash tools/dist_test.sh configs/mm*", needs="8 GPUs, a trained model, and ADE20K or COCO"),
    Rule(
        "python tools/train.py configs/mmseg/upernet_focalnet_sample.py",
        add="--cfg-options train_cfg.max_iters=2 train_dataloader.batch_size=2",
    ),
    Rule("python tools/* *_sample/iter_1200.pth*", replace=("iter_1200.pth", "iter_2.pth")),
    # own-data.md
    Rule(
        "python tools/train.py configs/mmseg/upernet_focalnet_sample.py --train-images *",
        add="--cfg-options train_cfg.max_iters=2 train_dataloader.batch_size=2",
    ),
    Rule("python tools/test.py work_dirs/own/* work_dirs/own/iter_1200.pth", replace=("iter_1200.pth", "iter_2.pth")),
    Rule(
        "python tools/train.py configs/mmdet/mask_rcnn_focalnet_sample.py --train-images *",
        add="--cfg-options train_cfg.max_iters=2 train_dataloader.batch_size=2",
    ),
    # mmpretrain.md
    Rule("focalnet train focalnet_tiny_lrf_finetune*", "photos", "no folder of photos at photos/train"),
    # detectors.md
    Rule(
        "focalnet analyze dino-4scale*",
        replace=("dino-4scale_focalnet_large_fl3_12e_coco.py", "dino_focalnet_sample.py"),
    ),
    Rule("*dino-5scale_focalnet_large_fl4_o365-coco*", needs="a network, and a file of 2.7 GB"),
    Rule("focalnet convert work_dirs/dino-5scale*", needs="a trained detector"),
    Rule("python tools/train.py configs/mmdet/dino_focalnet_sample.py", needs="minutes; tests/test_demo.py trains it"),
    Rule(
        "python tools/train.py configs/mmdet/mask2former_*_sample_panoptic.py", needs="minutes; tests/test_demo.py too"
    ),
    Rule(
        "python tools/train.py configs/mmseg/mask2former_focalnet_sample.py",
        add="--cfg-options train_cfg.max_iters=2 train_cfg.val_interval=2 train_dataloader.batch_size=2",
    ),
    Rule("python tools/predict.py *dino_focalnet_sample.py *", needs="a trained DINO; tests/test_demo.py has one"),
    # models.md
    Rule("python tools/pretrain_mim.py *", add="--steps 1 --warmup-steps 0 --batch-size 2"),
    Rule("python examples/serve.py *", needs="to run until it is stopped; tests/test_serve.py does"),
    Rule("python examples/load_service.py *", needs="a service that runs; tests/test_serve.py does so"),
    Rule("curl *", needs="the service of the line before"),
    # explore.md, report.md
    Rule("focalnet explore *", add="--fields 1 --max-size 64"),
    Rule("focalnet report outputs/mask_rcnn *", "a trained model", "no folder outputs/mask_rcnn"),
    # pyramids.md
    Rule("python tools/extract_features.py photos *", add="--max-size 96"),
    # shards.md
    Rule("focalnet extract photos *", add="--max-size 64"),
    Rule("focalnet extract 's3://*", needs="a bucket; tests/features reads and writes an address in memory"),
    Rule(
        "focalnet benchmark extract *",
        needs="quiet minutes; tests/benchmark/test_extraction.py runs it on a few photos",
    ),
    Rule("focalnet benchmark export *", needs="quiet minutes; tests/export/test_speed.py runs it on a small network"),
    Rule("focalnet extract data/sample/*", add="--variant focalnet_tiny_srf --max-size 64"),
    # compare.md
    Rule("focalnet receptive-field *", add="--size 32 --images 1 --channels 1"),
    Rule("focalnet race *", needs="hours; tests/openmmlab/test_race.py runs it on small networks"),
    Rule("focalnet compare mask_rcnn_*", needs="minutes; tests/benchmark/test_compare.py runs it on small models"),
    Rule("focalnet compare *", add="--size 32 --rounds 1 --measure size"),
    # speed.md
    Rule("python tools/benchmark.py *", add="--size 32 --measure forward memory --scaling 32 64 --rounds 1"),
]


def all_items() -> list[Item]:
    """What the pages have to run, all together."""
    return [item for name in PAGES for item in read_items(name)]


def find_rule(item: Item) -> Rule:
    """The first rule that matches; one that changes nothing if none does."""
    return next((rule for rule in RULES if rule.fits(item)), Rule(item.text))
