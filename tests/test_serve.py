"""The example of a service, by a real client over loopback: answers, limits, and what hostile clients get."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import json
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from onnx import TensorProto, helper
from PIL import Image

SERVE = Path(__file__).parents[1] / "examples" / "serve.py"
LIMITS = {"body": 200_000, "pixels": 250_000, "waiting": 16, "batch": 4, "seconds": 1.0}


def _load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def serve():
    yield _load(SERVE)
    del sys.modules["serve"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("serve") / "model.onnx", ["N", "H", "W"])


def make_model(path: Path, sizes: list) -> Path:
    """A segmenter in a file whose label of a pixel is whether its red is above 127."""
    photos = helper.make_tensor_value_info("images", TensorProto.UINT8, [*sizes, 3])
    labels = helper.make_tensor_value_info("labels", TensorProto.INT64, sizes)
    constants = [
        helper.make_tensor("red", TensorProto.INT64, [], [0]),
        helper.make_tensor("half", TensorProto.UINT8, [], [127]),
    ]
    nodes = [
        helper.make_node("Gather", ["images", "red"], ["reds"], axis=3),
        helper.make_node("Greater", ["reds", "half"], ["above"]),
        helper.make_node("Cast", ["above"], ["labels"], to=TensorProto.INT64),
    ]
    graph = helper.make_graph(nodes, "threshold", [photos], [labels], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    told = {"task": "segmentation", "classes": ["dark", "red"], "palette": [[0, 0, 0], [255, 0, 0]]}
    helper.set_model_props(made, {"focalnet": json.dumps(told)})
    onnx.save(made, path)
    return path


@pytest.fixture(scope="module")
def service(serve, model):
    """Its address, with the service running in a thread, and the app."""
    app = serve.make_app(str(model), serve.Limits(**LIMITS))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="critical", limit_concurrency=64))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}", app
    server.should_exit = True
    thread.join(10)


def as_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def bomb(side: int = 50_000) -> bytes:
    """A PNG of a few bytes that says it has as many pixels a side."""
    content = as_png(np.zeros((8, 8, 3), np.uint8))
    header = b"IHDR" + struct.pack(">II", side, side) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def _peak() -> int:
    """The most bytes that this process has held, server and clients together."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def photo(number: int) -> np.ndarray:
    random = np.random.default_rng(number)
    return random.integers(0, 256, (40 + 8 * (number % 3), 50, 3), dtype=np.uint8)


def test_a_photo_is_answered_with_the_class_of_each_pixel(service):
    answer = httpx.post(f"{service[0]}/predict", content=as_png(photo(0)))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), photo(0)[..., 0] > 127)
    assert httpx.get(f"{service[0]}/model").json()["classes"] == ["dark", "red"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "not a whole photo"),
        (b"no photo at all", 400, "not a whole photo"),
        (b"--1a2b\r\nContent-Disposition: form-data\r\n\r\n" + as_png(photo(0)) + b"\r\n--1a2b--", 400, "is a form"),
        (as_png(photo(0))[:900], 400, "not a whole photo"),
        (bomb(), 400, "250000 pixels"),
        (as_png(np.zeros((600, 600, 3), np.uint8)), 400, "250000 pixels"),
        (as_png(np.zeros((1, 9, 3), np.uint8)), 400, "at least 2 pixels a side"),
        (bytes(LIMITS["body"] + 1), 413, "may have 200000 bytes"),
    ],
    ids=["empty", "text", "form", "cut off", "bomb", "large", "a line", "too long"],
)
def test_a_bad_upload_is_refused_in_one_line(service, body, status, message):
    answer = httpx.post(f"{service[0]}/predict", content=body)
    assert answer.status_code == status
    assert message in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


def test_a_file_of_one_size_is_given_one_photo_at_a_time_and_others_are_refused(serve, tmp_path):
    app = serve.make_app(str(make_model(tmp_path / "fixed.onnx", [1, 40, 60])), serve.Limits(**LIMITS))
    right, wrong = as_png(np.zeros((40, 60, 3), np.uint8)), as_png(np.zeros((60, 40, 3), np.uint8))
    with TestClient(app) as client:
        refused = client.post("/predict", content=wrong)
        assert (refused.status_code, refused.json()["detail"]) == (400, "a photo must be 60 pixels wide and 40 high")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.post("/predict", content=right).status_code, range(8)))
    assert answers == [200] * 8
    assert set(app.state.batcher.batches) == {1}


def test_a_model_or_photo_that_cannot_be_read_is_one_line(serve, tmp_path, capsys):
    (tmp_path / "damaged.onnx").write_bytes(b"damaged")
    other = onnx.load(make_model(tmp_path / "other.onnx", [1, 40, 60]))
    del other.metadata_props[:]
    onnx.save(other, tmp_path / "other.onnx")
    for name in ("damaged.onnx", "missing.onnx", "other.onnx"):
        with pytest.raises(SystemExit, match=f"serve.py: .*{name} is no file of"):
            serve.make_app(str(tmp_path / name))
    with pytest.raises(SystemExit, match="2"):
        _load(SERVE.with_name("load_service.py")).main(["http://127.0.0.1:9", str(tmp_path / "missing.jpg")])
    assert "missing.jpg" in capsys.readouterr().err.splitlines()[-1]


def test_an_upload_without_a_length_or_an_end_is_cut_off(service):
    sent = 0

    def long():
        nonlocal sent
        for _ in range(4000):
            sent += 50_000
            yield bytes(50_000)

    with contextlib.suppress(httpx.TransportError):  # The server may close while the client goes on to send.
        assert httpx.post(f"{service[0]}/predict", content=long(), timeout=20).status_code == 413
    assert sent < 50_000_000  # Of 200 MB.
    with socket.create_connection(("127.0.0.1", int(service[0].rpartition(":")[2]))) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab")
        slow.settimeout(10)
        assert b" 408 " in slow.recv(1000).split(b"\r\n")[0]


def test_hundreds_of_clients_some_hostile_get_their_answers_within_bounded_memory(service):
    address, app = service
    hostile = [b"text", bomb(), bytes(LIMITS["body"] + 1), as_png(photo(1))[:500]]

    async def ask(client: httpx.AsyncClient, number: int) -> int:
        if number % 4 == 3:
            answer = await client.post("/predict", content=hostile[number // 4 % len(hostile)])
            return answer.status_code
        for _ in range(200):
            answer = await client.post("/predict", content=as_png(photo(number)))
            if answer.status_code != 503:
                break
            await asyncio.sleep(0.05)
        labels = np.asarray(Image.open(io.BytesIO(answer.content)))
        np.testing.assert_array_equal(labels, photo(number)[..., 0] > 127)
        return answer.status_code

    async def load() -> list[int]:
        limits = httpx.Limits(max_connections=32)
        async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(400)))

    before = _peak()
    statuses = asyncio.run(load())
    assert statuses.count(200) == 300
    assert set(statuses) <= {200, 400, 413, 503}
    assert max(app.state.batcher.batches) > 1  # Photos that waited were run together.
    assert _peak() - before < 150 << 20
    assert app.state.batcher.taken == 0


def test_the_example_of_load_counts_answers_and_refusals(service, tmp_path, capsys):
    (tmp_path / "photo.png").write_bytes(as_png(photo(0)))
    arguments = [service[0], str(tmp_path / "photo.png"), "--requests", "40", "--clients", "4", "--hostile", "10"]
    assert _load(SERVE.with_name("load_service.py")).main(arguments) == 0
    first, _, *answers = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert first[1:] == ["answers", "a", "second", "from", "4", "clients"]
    assert ["30", "photo", "200"] in answers
    assert ["8", "hostile", "400"] in answers
    assert _load(SERVE.with_name("load_service.py")).main([*arguments[:2], "--requests", "4", "--hostile", "0"]) == 0
    for address in ("http://127.0.0.1:9", "nowhere"):
        with pytest.raises(SystemExit, match="nobody listens"):
            _load(SERVE.with_name("load_service.py")).main([address, arguments[1]])
    command = [sys.executable, str(SERVE.with_name("load_service.py")), "http://127.0.0.1:9", arguments[1]]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert len(said.splitlines()) == 1, said
    # Of uploads that are too long, the service answers some, and closes others that go on.
    assert sum(int(count) for count, kind, _ in answers if kind == "hostile") == 10
