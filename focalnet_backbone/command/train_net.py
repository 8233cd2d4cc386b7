"""The command line of `tools/train_net.py`."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import shlex
import sys
from pathlib import Path

from detectron2.engine import default_argument_parser, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.multiprocessing import ProcessExitedException

from focalnet_backbone import own_data
from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.command.data import fail_data, tell_findings
from focalnet_backbone.data_check.detectron2 import check_job
from focalnet_backbone.data_check.findings import DataError
from focalnet_backbone.detectron2.jobs import Job, load_job
from focalnet_backbone.detectron2.own_data import use_own_data
from focalnet_backbone.detectron2.train import claim_output_dir, evaluate_weights, refuse_older_training, train
from focalnet_backbone.system.command_line import called, fail, one_line, parse, printable, program, say_interrupted
from focalnet_backbone.system.interruption import Stopped, end_with_parent
from focalnet_backbone.system.outputs import result_file

logger = logging.getLogger(__name__)

TOOL = "train_net.py"

RESUMED_BY = "with --resume it goes on from the last checkpoint"

USER_ERRORS = (CheckpointError, FloatingPointError, OSError, ValueError)
"""What a wrong config, file or command ends in; all else is a defect, and keeps its traceback."""


def make_parser() -> argparse.ArgumentParser:
    """detectron2's command line, and a dataset in COCO's format."""
    parser = default_argument_parser(
        epilog="""examples:
  train a published set-up on COCO with 8 GPUs:
    train_net.py --num-gpus 8 --config-file configs/detectron2/mask_rcnn_focalnet_tiny_srf_1x.yaml
  go on after an interruption:
    train_net.py --num-gpus 8 --config-file ... --resume
  train on your own data, its classes read from the file, starting from a COCO detector:
    train_net.py --config-file ... --train-json train.json --train-images train/ --val-json val.json \\
        --val-images val/ MODEL.WEIGHTS detector.pth SOLVER.MAX_ITER 5000 OUTPUT_DIR outputs/mine
"""
    )
    parser.description = "Train or evaluate a FocalNet detector with detectron2. On CPU, --num-gpus counts processes."
    own_data.add_arguments(parser)
    parser.add_argument("--force", action="store_true", help="replace files of yours that are in the way")
    parser.add_argument(
        "--save-on-stop",
        choices=["sigterm", "always", "never"],
        default="sigterm",
        help="which signals leave a checkpoint of the iteration in which they come (%(default)s; always: Ctrl-C too)",
    )
    return parser


def job_from_arguments(args: argparse.Namespace) -> Job:
    """The job that the command line asks for, checked, with nothing written yet. Raises one of `USER_ERRORS`."""
    if not args.config_file:
        raise ValueError("--config-file is missing")
    job = load_job(args.config_file, args.opts)
    use_datasets_of_arguments(job, args)
    job.check(train=not args.eval_only)
    if not (args.eval_only or args.resume):
        refuse_older_training(job.output_dir)
    if not args.eval_only:
        claim_output_dir(job, args.config_file, force=args.force)
    return job


def use_datasets_of_arguments(job: Job, args: argparse.Namespace) -> None:
    """Put the data that the command line names in the place of the config's. Raises one of `USER_ERRORS`."""
    data = own_data.read_arguments(args)
    if data:
        use_own_data(job, data)


def main(args: argparse.Namespace) -> None:
    """Train or evaluate in this process, which may be one of several."""
    job = job_from_arguments(args)
    output_dir = Path(job.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    for name in ("detectron2", "fvcore", "focalnet_backbone"):
        setup_logger(str(output_dir), comm.get_rank(), name=name)
    for note in job.notes:
        logger.info("own data: %s", printable(note))
    if args.eval_only:
        results = evaluate_weights(job, last=args.resume)
    else:
        if comm.is_main_process():
            with result_file(output_dir / "config.yaml") as unfinished:
                job.save(unfinished)
        results = train(job, resume=args.resume, save_on_stop=args.save_on_stop)
    for task, name, measure in (("bbox", "box AP", "AP"), ("segm", "mask AP", "AP"), ("sem_seg", "mIoU", "mIoU")):
        if task in results:
            logger.info("%s %.1f", name, results[task][measure])
    if comm.is_main_process() and not args.eval_only:
        print(f"see it: focalnet report {shlex.quote(job.output_dir)}")


def main_of_process(args: argparse.Namespace) -> None:
    """`main`, ending with one line, also in the log, and exit code 2 on an error of the user's."""
    if multiprocessing.parent_process():
        end_with_parent()
    trainer_logger = logging.getLogger("detectron2.engine.train_loop")
    trainer_logger.addFilter(_is_no_traceback)
    try:
        main(args)
    except USER_ERRORS as error:
        logger.error(one_line(error))
        sys.exit(fail(TOOL, error))
    except Stopped as stop:
        if multiprocessing.parent_process():
            sys.exit(stop.status)  # The one that started this process says so.
        raise
    finally:
        trainer_logger.removeFilter(_is_no_traceback)


def _is_no_traceback(record: logging.LogRecord) -> bool:
    """Whether a message of detectron2's trainer is another than the traceback of an error of the user's."""
    return not (record.exc_info and isinstance(record.exc_info[1], USER_ERRORS))


@program(TOOL, resumed_by=RESUMED_BY)
def run_command(arguments: list[str] | None = None) -> None:
    """`tools/train_net.py`."""
    args = parse(make_parser(), arguments)
    try:
        job = job_from_arguments(args)  # What is wrong with it is said before processes start.
        tell_findings(TOOL, check_job(job, train=not args.eval_only).findings)
        launch(main_of_process, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,))
    except DataError as error:
        sys.exit(fail_data(TOOL, error))
    except USER_ERRORS as error:
        sys.exit(fail(TOOL, error))
    except ProcessExitedException as error:
        if error.signal_name:
            print(f"{called(TOOL)}: a process was ended by {error.signal_name}", file=sys.stderr)
        # One that was not killed has said why.
        if error.exit_code in (130, 143):
            say_interrupted(TOOL, KeyboardInterrupt(), RESUMED_BY)
        sys.exit(max(error.exit_code, 1))
    except Stopped as stop:
        # Its processes end after their iteration, with a checkpoint.
        for child in multiprocessing.active_children():
            os.kill(child.pid, stop.number)
        for child in multiprocessing.active_children():
            child.join()
        sys.exit(say_interrupted(TOOL, stop, RESUMED_BY))
