"""`python -m focalnet_backbone`: the command `focalnet`, also for `torchrun -m`."""

import sys

from focalnet_backbone.command import main

if __name__ == "__main__":
    sys.exit(main())
