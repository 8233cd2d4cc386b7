"""The tiny detector, in a training by several processes that are all killed in the fourth iteration."""

import os
import signal

from detectron2.engine import SimpleTrainer
from detectron2.utils import comm

from .tiny_lazy import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

if comm.get_world_size() > 1:
    run_step = SimpleTrainer.run_step

    def run_step_or_die(self):
        if self.iter == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        run_step(self)

    SimpleTrainer.run_step = run_step_or_die
