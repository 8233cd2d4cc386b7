"""Run an exported model on a photo with onnxruntime, numpy and Pillow alone.

python NAME_example.py NAME.onnx photo.jpg [result.png]
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps


def main(model, photo, result="result.png"):
    """Print what the model says of a photo; of a segmenter or detector, write a picture."""
    session, told = open_model(model)
    taken = session.get_inputs()[0]
    of_photos = taken.type == "tensor(uint8)"
    if not of_photos and len(told.get("mean", ())) != 3:
        sys.exit(f"{model} takes {told['input']}, which no photo is made into here")
    number, *sides = taken.shape  # A number where it is fixed, else a name.
    picture = fit(open_photo(photo), *(sides[:2] if of_photos else sides[1:]), model)
    images = np.asarray(picture)[None].repeat(number if isinstance(number, int) else 1, axis=0)
    if not of_photos:
        images = images[..., ::-1] if told.get("bgr") else images
        images = ((images - np.float32(told["mean"])) / np.float32(told["std"])).transpose(0, 3, 1, 2)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, {"images": images}), strict=True))
    if told["task"] == "classification":
        logits = outputs["logits"][0]
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        for index in np.argsort(-probabilities)[:5]:
            print(f"{probabilities[index]:6.1%}  {told['classes'][index]}")
    elif told["task"] == "segmentation":
        labels = outputs["labels"][0]
        names, colours = [*told["classes"], "nothing"], np.uint8([*told["palette"], (0, 0, 0)])
        for index in np.unique(labels):
            print(f"{(labels == index).mean():6.1%}  {names[index]}")
        Image.fromarray(colours[labels]).save(result)
    elif told["task"] == "detection":
        for box, score, label in zip(outputs["boxes"], outputs["scores"], outputs["labels"], strict=True):
            if score >= 0.5:
                print(f"{score:6.1%}  {told['classes'][label]}  {box.round(1).tolist()}")
                ImageDraw.Draw(picture).rectangle(box.tolist(), outline="red", width=2)
        picture.save(result)
    else:
        for name, found in outputs.items():
            print(name, *found.shape)


def open_model(path):
    """A file in onnxruntime, and what it tells of itself."""
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common class.
        sys.exit(f"{path} is no model that can be opened: {error}")
    told = session.get_modelmeta().custom_metadata_map.get("focalnet")
    return session, json.loads(told) if told else sys.exit(f"{path} does not tell what it takes, as exported ones do")


def open_photo(path):
    """A photo, upright and in RGB."""
    try:
        return ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        sys.exit(f"{path} cannot be read as a photo: {error}")


def fit(picture, height, width, model):
    """A photo as it is, or at the one height and width that a model's file was made for."""
    width = width if isinstance(width, int) else picture.width
    height = height if isinstance(height, int) else picture.height
    if (width, height) == picture.size:
        return picture
    print(f"resized to {width}x{height}, for which {model} was made; places are told in its pixels", file=sys.stderr)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__.strip())
    main(*sys.argv[1:])
