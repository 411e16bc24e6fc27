"""A hub on this machine: an HTTP server for folders, as huggingface_hub talks to one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """Repositories by id, and what was asked.

    repositories: folders by id.
    failures: HTTP status and error code of ids that cannot be read.
    downloads: files that were sent, as `id/path`.
    """

    repositories: dict[str, Path] = field(default_factory=dict)
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    downloads: list[str] = field(default_factory=list)
    url: str = ""

    def files(self, name: str) -> dict[str, Path]:
        folder = self.repositories[name]
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path for path in paths}


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            words = self.path.partition("?")[0].strip("/").split("/")
            api = words[:2] == ["api", "models"]
            name = "/".join(words[2:4] if api else words[:2])
            if name in hub.failures and (not api or hub.failures[name][1] != "GatedRepo"):
                status, code = hub.failures[name]
                self.answer(status, X_Error_Code=code, X_Error_Message=code)
            elif name not in hub.repositories:
                self.answer(404, X_Error_Code="RepoNotFound", X_Error_Message="no such model")
            elif api and "nope" in words:
                self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="no revision")
            elif api:
                self.listing(name, tree="tree" in words)
            else:
                self.file(name, "/".join(words[4:]))

        def listing(self, name: str, *, tree: bool) -> None:
            files = hub.files(name).items()
            if tree:
                content: Any = [
                    {"type": "file", "path": n, "size": p.stat().st_size, "oid": etag(p)}
                    for n, p in files
                ]
            else:
                siblings = [{"rfilename": n, "size": p.stat().st_size} for n, p in files]
                content = {"id": name, "sha": COMMIT, "siblings": siblings}
            self.answer(200, json.dumps(content).encode(), Content_Type="application/json")

        def file(self, name: str, path: str) -> None:
            found = hub.files(name)[path]
            if self.command == "GET":
                hub.downloads.append(f"{name}/{path}")
            self.answer(200, found.read_bytes(), ETag=f'"{etag(found)}"', X_Repo_Commit=COMMIT)

    return Handler


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def running(hub: FakeHub) -> Iterator[FakeHub]:
    """Serves a hub on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
