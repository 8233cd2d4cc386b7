"""Draw how far FocalNets and other networks look, side by side (arXiv 1701.04128).

    focalnet receptive-field --out fields.png
    focalnet receptive-field focalnet_tiny_lrf swin_tiny resnet_50 --stage 4 --size 384 --out fields.png
    focalnet receptive-field focalnet_tiny_srf focalnet_tiny_lrf --photos photos/ --weights pretrained --out fields.png

Drawn is the magnitude of the gradient of the middle of a stage's map with respect to the image's pixels, averaged over
images (noise, or photos scaled to --size) and channels. Squares hold 50 % and 95 % of it. Random weights show what an
architecture lets through before it has learnt anything; pretrained ones are fetched.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF
from tqdm import tqdm

from focalnet_backbone.benchmark.twins.networks import list_networks, make_network
from focalnet_backbone.checkpoints import CheckpointError
from focalnet_backbone.features.images import load_image, normalize
from focalnet_backbone.features.to_files import plan_outputs
from focalnet_backbone.pictures.draw import draw_receptive_fields
from focalnet_backbone.pictures.receptive_field import mean_receptive_field
from focalnet_backbone.system.command_line import fail, parse, positive, printable, program
from focalnet_backbone.system.devices import choose_device
from focalnet_backbone.system.outputs import claim, result_file

DEFAULT = [
    "focalnet_tiny_srf",
    "focalnet_tiny_lrf",
    "swin_tiny",
    "focal_transformer_tiny",
    "convnext_tiny",
    "resnet_50",
]


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(list_networks())
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {names} (default: {', '.join(DEFAULT)})")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.png", help="the picture")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the sides of the squares too")
    parser.add_argument("--stage", type=int, choices=range(1, 5), default=3, help="whose map (default: 3, stride 16)")
    parser.add_argument("--size", type=positive, default=224, metavar="PIXELS", help="side of the images (%(default)s)")
    parser.add_argument("--images", type=positive, default=8, metavar="N", help="how many, at most (%(default)s)")
    parser.add_argument("--channels", type=positive, default=8, metavar="N", help="channels an image (%(default)s)")
    parser.add_argument("--photos", nargs="+", metavar="INPUT", help="files, folders or globs, in place of noise")
    parser.add_argument("--weights", choices=["random", "pretrained"], default="random")
    parser.add_argument("--focal-window", type=positive, metavar="N", help="of FocalNets' stages, as detectors have 9")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; the GPU if there is one")
    parser.add_argument("--force", action="store_true", help="replace files that this tool did not write")
    parser.add_argument("--seed", type=int, default=0, help="of random weights, noise and channels (%(default)s)")
    return parser


def make_images(args: argparse.Namespace, photos: list[Path], device: torch.device) -> Iterator[Tensor]:
    """Normalised images `(1, 3, H, W)`: of the photos the middle square, or noise."""
    if not photos:
        generator = torch.Generator().manual_seed(args.seed)
        for _ in range(args.images):
            yield torch.randn(1, 3, args.size, args.size, generator=generator).to(device)
    for photo in photos:
        image = load_image(photo)
        square = TF.center_crop(image, [min(image.shape[1:])] * 2)
        yield normalize(TF.resize(square, [args.size] * 2, antialias=True)[None].to(device), torch.float32)


@program("receptive_field.py")
def main() -> int:
    """Run the command line; returns its exit status."""
    args = parse(make_parser())
    names = list(dict.fromkeys(args.networks or DEFAULT))
    fields = {}
    try:
        if args.out.suffix != ".png":
            raise ValueError(f"--out must be a .png, got {printable(args.out)}")
        outputs = [path for path in (args.out, args.json) if path]
        photos = list(plan_outputs(args.photos, args.out.parent, suffix=""))[: args.images] if args.photos else []
        claim([(path, "the fields") for path in outputs], photos, force=args.force)
        device = choose_device(args.device)
        unknown = [name for name in names if name not in list_networks()]
        for name in [*unknown, *tqdm(names, unit="network", disable=bool(unknown))]:
            torch.manual_seed(args.seed)
            network = make_network(name, focal_window=args.focal_window, pretrained=args.weights == "pretrained")
            images = make_images(args, photos, device)
            fields[name] = mean_receptive_field(
                network.to(device), images, args.stage, channels=args.channels, seed=args.seed
            )
    except (CheckpointError, KeyError, OSError, TypeError, ValueError) as error:
        return fail("receptive_field.py", error)
    sides = {name: {share: field.spread(share) for share in (0.5, 0.95)} for name, field in fields.items()}
    print(f"{'network':<28}{'50 % in (px)':>14}{'95 % in (px)':>14}")
    for name, side in sides.items():
        print(f"{name:<28}{side[0.5]:>14}{side[0.95]:>14}")
    with result_file(args.out) as unfinished:
        draw_receptive_fields(fields).savefig(unfinished, dpi=120)
    if args.json:
        settings = {key: getattr(args, key) for key in ("stage", "size", "images", "channels", "weights", "seed")}
        with result_file(args.json) as unfinished:
            unfinished.write_text(json.dumps({"settings": settings, "sides": sides}, indent=1), encoding="utf-8")
    return 0
