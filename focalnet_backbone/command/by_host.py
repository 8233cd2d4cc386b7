"""`focalnet train` and `focalnet test`: the config tells for which framework, whose command line does the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from focalnet_backbone.command import load
from focalnet_backbone.configs import SUFFIXES, is_mmengine, list_configs, open_config
from focalnet_backbone.system.command_line import fail

TRAIN_HELP = """usage: focalnet train CONFIG [FLAGS]

Train the model of a config. CONFIG is a file, or the name of a config that this package carries (`focalnet list
configs`): YAML or a LazyConfig for detectron2, a config of mmengine for mmsegmentation, mmdetection and mmpretrain.

The flags are those of the framework; `focalnet train CONFIG --help` lists them.

examples:
  focalnet sample data/sample
  focalnet train upernet_focalnet_sample.py --work-dir outputs/upernet
  focalnet train mask_rcnn_focalnet_sample.yaml OUTPUT_DIR outputs/mask_rcnn
  focalnet train CONFIG --resume
  focalnet train CONFIG --num-gpus 8                                                     (detectron2)
  torchrun --nproc-per-node 8 -m focalnet_backbone train CONFIG --launcher pytorch       (mmengine)
"""
TEST_HELP = """usage: focalnet test CONFIG WEIGHTS [FLAGS]

Test a trained model on the images that its config names. CONFIG is a file, or the name of a config that this package
carries (`focalnet list configs`), WEIGHTS the checkpoint of the whole model.

The flags are those of the framework; `focalnet test CONFIG --help` lists them.

example:
  focalnet test upernet_focalnet_sample.py outputs/upernet/iter_1200.pth
"""


def train() -> int:
    """Run `focalnet train`; returns its exit status."""
    return _run(TRAIN_HELP, "train", _train_detectron2)


def test() -> int:
    """Run `focalnet test`; returns its exit status."""
    return _run(TEST_HELP, "test", _test_detectron2)


def _run(help_text: str, name: str, run_detectron2: Callable[[Path, list[str]], int]) -> int:
    arguments = sys.argv[1:]
    position = next((i for i, argument in enumerate(arguments) if _names_config(argument)), None)
    if position is None:
        if not arguments or {"-h", "--help"} & set(arguments):
            print(help_text, end="")
            return 0 if arguments else 2
        return fail(
            f"focalnet {name}",
            ValueError(f"no config among {' '.join(arguments)}; `focalnet {name} --help` has examples"),
        )
    rest = [*arguments[:position], *arguments[position + 1 :]]
    if position and arguments[position - 1] == "--config-file":
        rest.remove("--config-file")
    try:
        config = open_config(arguments[position])
        of_mmengine = is_mmengine(config)
    except (OSError, ValueError) as error:
        return fail(f"focalnet {name}", error)
    if of_mmengine:
        return load(name).main([str(config), *rest])
    return run_detectron2(config, rest)


def _names_config(argument: str) -> bool:
    """Whether an argument is a config by its ending, or by its name one of this package's."""
    if argument.startswith("-") or "=" in argument:
        return False
    forms = ((name, str(Path(name).with_suffix("")), Path(name).stem) for name in list_configs())
    return argument.endswith(SUFFIXES) or any(argument in names for names in forms)


def _train_detectron2(config: Path, arguments: list[str]) -> int:
    return _run_train_net(["--config-file", str(config), *arguments])


def _test_detectron2(config: Path, arguments: list[str]) -> int:
    """detectron2 has one command for both, and takes weights as a value of the config."""
    weights = []
    if arguments and not arguments[0].startswith("-"):
        path = arguments.pop(0)
        weights = [f"train.init_checkpoint={path}"] if config.suffix == ".py" else ["MODEL.WEIGHTS", path]
    elif not {"--resume", "-h", "--help"} & set(arguments):
        return fail("focalnet test", ValueError("expected CONFIG WEIGHTS, or CONFIG --resume for the last checkpoint"))
    return _run_train_net(["--config-file", str(config), "--eval-only", *arguments, *weights])


def _run_train_net(arguments: list[str]) -> int:
    return load("train_net").run_command(arguments) or 0
