"""Print the most probable classes of photographs.

    focalnet classify cat.jpg dog.jpg --variant focalnet_tiny_lrf
    focalnet classify cat.jpg --variant focalnet_tiny_lrf --weights focalnet_tiny_lrf.pth
    focalnet classify cat.jpg --weights my_finetuned_model/
    focalnet classify cat.jpg --weights classifier.onnx

With a variant alone, its published weights are fetched. Weights alone must be a folder or hub id with a config.json,
or an ONNX file of `focalnet export`.
The exit status is 0 if every image was classified, 1 if some were not (each is named), 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from focalnet_backbone.features.images import load_image
from focalnet_backbone.models.classify import load_classifier, top_classes
from focalnet_backbone.network.variants import list_variants
from focalnet_backbone.system.command_line import fail, parse, positive, printable, program
from focalnet_backbone.system.devices import choose_device


def parse_args() -> argparse.Namespace:
    """The command line's arguments; exits with status 2 if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--variant", metavar="NAME", help=f"one of {', '.join(list_variants())}")
    parser.add_argument("--weights", metavar="SOURCE", help="a file, a folder, a hub id or an address")
    parser.add_argument("--topk", type=positive, default=5, metavar="K", help="classes an image (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (%(default)s)")
    return parse(parser)


def open_classifier(args: argparse.Namespace) -> Callable[[str], list[tuple[str, float]]]:
    """What maps an image's path to its most probable classes, by this package or by onnxruntime."""
    if args.weights and args.weights.endswith(".onnx"):
        from focalnet_backbone.export.run import OnnxClassifier

        exported = OnnxClassifier(args.weights)
        return lambda path: exported.top_classes(path, load_image(path).permute(1, 2, 0).numpy(), args.topk)
    device = choose_device(args.device)
    model, processor = load_classifier(args.variant, args.weights)
    model.to(device)
    return lambda path: top_classes(model, processor, load_image(path), args.topk)


@program("classify.py")
def main() -> int:
    """Run the command line; returns its exit status."""
    args = parse_args()
    try:
        classify = open_classifier(args)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        return fail("classify.py", error)
    status = 0
    for path in args.images:
        try:
            classes = classify(path)
        except (OSError, ValueError) as error:
            fail("classify.py", error)
            status = 1
            continue
        print(printable(path))
        for name, probability in classes:
            print(f"  {probability:6.1%}  {printable(name)}")
    return status
