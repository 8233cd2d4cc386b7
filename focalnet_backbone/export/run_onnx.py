"""Run an exported model on a photo with onnxruntime, numpy and Pillow alone.

python NAME_example.py NAME.onnx photo.jpg [result.png]
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps


def main(model, photo, result=None):
    """Print what the model says of a photo; of a segmenter or detector, write a picture."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    told = json.loads(session.get_modelmeta().custom_metadata_map["focalnet"])
    images = np.asarray(ImageOps.exif_transpose(Image.open(photo)).convert("RGB"))[None]
    if session.get_inputs()[0].type != "tensor(uint8)":
        if len(told.get("mean", ())) != 3:
            sys.exit(f"{model} takes {told['input']}, which no photo is made into here")
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
        Image.fromarray(colours[labels]).save(result or "result.png")
    elif told["task"] == "detection":
        picture = Image.fromarray(images[0])
        for box, score, label in zip(outputs["boxes"], outputs["scores"], outputs["labels"], strict=True):
            if score >= 0.5:
                print(f"{score:6.1%}  {told['classes'][label]}  {box.round(1).tolist()}")
                ImageDraw.Draw(picture).rectangle(box.tolist(), outline="red", width=2)
        picture.save(result or "result.png")
    else:
        for name, found in outputs.items():
            print(name, *found.shape)


if __name__ == "__main__":
    main(*sys.argv[1:])
