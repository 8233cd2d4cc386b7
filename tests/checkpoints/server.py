"""A web server on this machine that serves files well or badly, and speaks as much of the hub as its client needs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FileServer:
    """Files by path, and how to serve them.

    Attributes:
        files: content by path, or by path and query where the query matters.
        cut_after: bytes of content after which a connection breaks; None for never.
        resumable: whether a part of a file can be asked for, and the version has a name.
        content_type: of all files.
        requests: method, path and range of every request so far.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: int | None = None
    resumable: bool = True
    content_type: str = "application/octet-stream"
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    address: str = ""

    def add_repository(self, repository: str, files: dict[str, bytes]) -> None:
        """Publish a hub repository."""
        information = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
        self.files[f"/api/models/{repository}"] = json.dumps(information).encode()
        self.files |= {f"/{repository}/resolve/main/{name}": content for name, content in files.items()}

    @contextmanager
    def running(self) -> Iterator[FileServer]:
        """Serve on a free port of this machine."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": self}))
        self.address = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: FileServer

    def do_HEAD(self) -> None:
        self._answer(send_content=False)

    def do_GET(self) -> None:
        self._answer(send_content=True)

    def _answer(self, send_content: bool) -> None:
        served = self.served
        wanted = self.headers.get("Range")
        served.requests.append((self.command, self.path, wanted))
        path = self.path.replace(f"/resolve/{COMMIT}/", "/resolve/main/")
        if path not in served.files:
            path = path.partition("?")[0]
        if path not in served.files:
            self.send_response(404)
            if "/resolve/" in path:
                self.send_header("X-Error-Code", "EntryNotFound")
            elif path.startswith("/api/"):
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = served.files[path]
        etag = hashlib.sha256(content).hexdigest()
        start = 0
        if served.resumable and wanted and self.headers.get("If-Range", f'"{etag}"') == f'"{etag}"':
            start = int(re.fullmatch(r"bytes=(\d+)-\d*", wanted)[1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Type", "application/json" if path.startswith("/api/") else served.content_type)
        self.send_header("X-Repo-Commit", COMMIT)
        if served.resumable:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if send_content:
            end = None if served.cut_after is None else start + served.cut_after
            self.wfile.write(content[start:end])
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass
