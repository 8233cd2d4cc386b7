"""The tiny detector, in a training by several processes that loses the one which started them, in iteration 3."""

import os
import signal
import time

from detectron2.engine import SimpleTrainer
from detectron2.utils import comm

from .tiny_lazy import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

if comm.get_world_size() > 1:
    run_step = SimpleTrainer.run_step

    def run_step_or_kill(self):
        if self.iter == 3:
            if comm.is_main_process():
                os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(1000)  # Who comes this far goes on for long.
        run_step(self)

    SimpleTrainer.run_step = run_step_or_kill
