#!/usr/bin/env python3
"""Write a few photographs to try things on: those that scikit-image brings along.

    python tools/make_sample_photos.py photos

The exit status is 0 if they were written, 1 if they could not be.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image

from focalnet_backbone.system.command_line import fail
from focalnet_backbone.system.files import whole_file

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write into, made if need be")
    args = parser.parse_args()
    try:
        import skimage.data

        for name in PHOTOGRAPHS:
            with whole_file(args.folder / f"{name}.png") as unfinished:
                Image.fromarray(getattr(skimage.data, name)()).save(unfinished)
    except ModuleNotFoundError as error:
        return fail("make_sample_photos.py", ModuleNotFoundError(f"needs scikit-image ({error})"))
    except OSError as error:
        return fail("make_sample_photos.py", error)
    print(f"wrote {len(PHOTOGRAPHS)} photographs to {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
