#!/usr/bin/env python3
"""Write a few photographs to try things on: those that scikit-image brings along.

    python tools/make_sample_photos.py photos

The exit status is 0 if they were written, 2 if they could not be.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from focalnet_backbone.system.command_line import fail, parse, program
from focalnet_backbone.system.files import whole_file
from focalnet_backbone.system.outputs import claim

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def holds(path: Path, pixels: np.ndarray) -> bool:
    """Whether a file is this picture, as of an earlier run."""
    try:
        with Image.open(path) as image:
            return np.array_equal(np.asarray(image), pixels)
    except (OSError, ValueError):
        return False


@program("make_sample_photos.py")
def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write into, made if need be")
    args = parse(parser)
    try:
        import skimage.data

        photos = {args.folder / f"{name}.png": getattr(skimage.data, name)() for name in PHOTOGRAPHS}
        missing = [path for path in photos if not holds(path, photos[path])]
        claim([(path, path.stem) for path in missing])
        for path in missing:
            # Without the mark of results, as they are to be taken for photographs.
            with whole_file(path) as unfinished:
                Image.fromarray(photos[path]).save(unfinished)
    except ModuleNotFoundError as error:
        return fail("make_sample_photos.py", ModuleNotFoundError(f"needs scikit-image ({error})"))
    except OSError as error:
        return fail("make_sample_photos.py", error)
    print(f"wrote {len(PHOTOGRAPHS)} photographs to {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
