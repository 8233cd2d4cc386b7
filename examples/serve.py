"""Serve a model that `focalnet export --to onnx` wrote, over HTTP.

    pip install fastapi uvicorn onnxruntime numpy Pillow
    python examples/serve.py upernet.onnx --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/predict --output labels.png

FastAPI with uvicorn, since the work is one function behind one address: limits and answers are plain to see here, and
both are what most who deploy already run. LitServe stands on the same two and adds processes and its own batching, for
several GPUs.

A classifier answers with JSON, a segmenter with a PNG whose pixels are class indices. Photos of one size that wait are
run together. What is no photo, too long or too large is refused in one line; when too many wait, with 503.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from PIL import Image, ImageOps
from starlette.requests import ClientDisconnect

FORMATS = ("JPEG", "PNG", "WEBP")
CLOSE = {"Connection": "close"}
TASKS = ("classification", "segmentation")


@dataclass(frozen=True)
class Limits:
    """What is taken of a client.

    Attributes:
        body: bytes of an upload.
        pixels: of a photo, which is known before it is decoded.
        waiting: photos that wait for the model; this many decoded ones are held in memory at most.
        batch: photos that are run together.
        seconds: an upload may last.
    """

    body: int = 8 << 20
    pixels: int = 4_000_000
    waiting: int = 32
    batch: int = 8
    seconds: float = 20.0


class Model:
    """An exported model and what it tells of itself."""

    def __init__(self, path: str) -> None:
        try:
            self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors have no common class.
            raise SystemExit(f"serve.py: {path} is no file of `focalnet export`: {error}") from None
        told = self.session.get_modelmeta().custom_metadata_map.get("focalnet")
        if told is None:
            raise SystemExit(f"serve.py: {path} is no file of `focalnet export`: it does not tell its task")
        self.told = json.loads(told)
        images = self.session.get_inputs()[0]
        # What is not a number is free.
        self.one_at_a_time = images.shape[0] == 1
        self.size = tuple(images.shape[1:3]) if isinstance(images.shape[1], int) else None
        if images.type != "tensor(uint8)" or self.told["task"] not in TASKS:
            raise SystemExit(f"serve.py: {path} is no classifier or segmenter that takes photos")
        self.output = "labels" if self.told["task"] == "segmentation" else "logits"

    def run(self, photos: list[np.ndarray]) -> list[tuple[bytes, str]]:
        """The answer to each photo `(H, W, 3)`, all of one size: its bytes and their media type."""
        found = self.session.run([self.output], {"images": np.stack(photos)})[0]
        return [self._answer(one) for one in found]

    def _answer(self, found: np.ndarray) -> tuple[bytes, str]:
        if self.output == "labels":
            file = io.BytesIO()
            Image.fromarray(found.astype(np.uint8 if len(self.told["classes"]) <= 255 else np.uint16)).save(file, "PNG")
            return file.getvalue(), "image/png"
        probabilities = np.exp(found - found.max())
        probabilities /= probabilities.sum()
        best = np.argsort(-probabilities)[:5]
        classes = [{"class": self.told["classes"][i], "probability": float(probabilities[i])} for i in best]
        return json.dumps(classes).encode(), "application/json"


def read_photo(body: bytes, limits: Limits) -> np.ndarray:
    """The pixels `(H, W, 3)` of an upload, upright. Raises `ValueError` with one line if it is not to be taken."""
    too_large = f"a photo may have no more than {limits.pixels} pixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(body), formats=FORMATS)
            width, height = image.size
            fits = width * height <= limits.pixels
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB")) if fits else None
    except Image.DecompressionBombError:
        raise ValueError(too_large) from None
    except Exception as error:  # Pillow's plugins raise whatever damaged bytes lead them to.
        if body.startswith(b"--"):  # As the parts of a form are parted.
            raise ValueError("the upload is a form; send the photo alone, as curl --data-binary does") from error
        raise ValueError(f"the upload is not a whole photo ({', '.join(FORMATS)})") from error
    if pixels is None:
        raise ValueError(f"{too_large}, this one is {width}x{height}")
    if min(pixels.shape[:2]) < 2:
        raise ValueError("a photo must have at least 2 pixels a side")
    return pixels


async def read_body(request: Request, limits: Limits) -> bytes:
    """The upload, of which no more than the limit is ever held."""
    declared = request.headers.get("content-length", "0")
    body, length = bytearray(), 0

    async def read() -> None:
        # As much again is read and dropped: who still sends when the connection closes may never see the answer.
        nonlocal length
        async for block in request.stream():
            length += len(block)
            if length <= limits.body:
                body.extend(block)
            elif length > 2 * limits.body:
                return

    if declared.isdigit() and int(declared) <= 2 * limits.body:  # Another one need not be sent to be refused.
        await asyncio.wait_for(read(), limits.seconds)
        if length <= limits.body:
            return bytes(body)
    # Closed, so that the rest of the upload, which may have no end, is not read.
    raise HTTPException(413, f"an upload may have {limits.body} bytes", CLOSE)


class Batcher:
    """Runs photos that wait, those of one size together, in one thread beside the server's."""

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.waiting: list[tuple[np.ndarray, asyncio.Future]] = []
        self.taken = 0
        self.arrived = asyncio.Event()
        self.batches: list[int] = []

    @contextlib.contextmanager
    def place(self) -> Any:
        """A place among those that wait. Raises `HTTPException` if there is none."""
        if self.taken >= self.limits.waiting:
            raise HTTPException(503, "too many photos wait; try again", {"Retry-After": "1"})
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def answer(self, photo: np.ndarray) -> tuple[bytes, str]:
        """The model's answer to a photo."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((photo, future))
        self.arrived.set()
        return await future

    async def work(self) -> None:
        """Run what comes, forever."""
        while True:
            await self.arrived.wait()
            batch = self._next()
            if not batch:
                self.arrived.clear()
                continue
            self.batches = [*self.batches[-999:], len(batch)]
            try:
                answers = await asyncio.to_thread(self.model.run, [photo for photo, _ in batch])
            except Exception as error:
                answers = [error] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():  # The client has gone.
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(HTTPException(500, "the model failed on this photo"))
                else:
                    future.set_result(answer)

    def _next(self) -> list[tuple[np.ndarray, asyncio.Future]]:
        self.waiting = [one for one in self.waiting if not one[1].done()]
        if not self.waiting:
            return []
        shape = self.waiting[0][0].shape
        most = 1 if self.model.one_at_a_time else self.limits.batch
        batch = [one for one in self.waiting if one[0].shape == shape][:most]
        chosen = {id(one) for one in batch}
        self.waiting = [one for one in self.waiting if id(one) not in chosen]
        return batch


def make_app(path: str, limits: Limits | None = None) -> FastAPI:
    """The service for an exported model."""
    limits = limits or Limits()
    batcher = Batcher(Model(path), limits)

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(batcher.work())
        yield
        worker.cancel()

    app = FastAPI(title="focalnet", lifespan=life)
    app.state.batcher = batcher

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        with batcher.place():
            try:
                photo = await asyncio.to_thread(read_photo, await read_body(request, limits), limits)
                if batcher.model.size not in (None, photo.shape[:2]):
                    height, width = batcher.model.size
                    raise ValueError(f"a photo must be {width} pixels wide and {height} high")
            except ValueError as error:
                raise HTTPException(400, str(error)) from None
            except asyncio.TimeoutError:  # Another one than TimeoutError on Python 3.10.
                raise HTTPException(408, f"the upload took more than {limits.seconds} seconds", CLOSE) from None
            except ClientDisconnect:  # Nobody reads this answer, and the log needs no traceback.
                raise HTTPException(400, "the upload ended early") from None
            content, kind = await batcher.answer(photo)
        return Response(content, media_type=kind)

    @app.get("/model")
    async def describe() -> dict[str, Any]:
        return batcher.model.told

    return app


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="ONNX file of `focalnet export`")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port (%(default)s)")
    args = parser.parse_args()
    uvicorn.run(make_app(args.model), host=args.host, port=args.port, limit_concurrency=256, timeout_keep_alive=5)


if __name__ == "__main__":
    main()
