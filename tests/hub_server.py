"""A loopback server that speaks as much of the Hub's file API as loading one repository takes."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def serve_repository(folder: Path, repo_id: str) -> Iterator[str]:
    """Serves `folder` as the model repository `repo_id`; yields the address for HF_ENDPOINT."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer(with_body=True)

        def do_HEAD(self):
            self.answer(with_body=False)

        def answer(self, *, with_body: bool) -> None:
            path = unquote(urlparse(self.path).path)
            for revision in ("main", COMMIT):
                if path.startswith(prefix := f"/{repo_id}/resolve/{revision}/"):
                    return self.send_file(folder / path.removeprefix(prefix), with_body)
                if path.startswith(f"/api/models/{repo_id}/tree/{revision}"):
                    return self.send_tree(path.partition(f"/tree/{revision}")[2].strip("/"), with_body)
            if path in (f"/api/models/{repo_id}", f"/api/models/{repo_id}/revision/main"):
                files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                return self.send_json({"id": repo_id, "sha": COMMIT, "siblings": files}, with_body)
            return self.send_missing("RepoNotFound")

        def send_file(self, file: Path, with_body: bool) -> None:
            if not file.is_file():
                return self.send_missing("EntryNotFound")
            data = file.read_bytes()
            first, status, extra = 0, 200, {}
            if asked := self.headers.get("Range"):
                first = int(asked.removeprefix("bytes=").split("-")[0])
                status, extra = 206, {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
            etag = hashlib.sha256(data).hexdigest()
            return self.send(status, data[first:], with_body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, **extra})

        def send_tree(self, below: str, with_body: bool) -> None:
            if below and not (folder / below).is_dir():
                return self.send_missing("EntryNotFound")
            files = [
                {"type": "file", "path": str(file.relative_to(folder)), "size": file.stat().st_size, "oid": "0" * 40}
                for file in sorted((folder / below).iterdir())
                if file.is_file()
            ]
            return self.send_json(files, with_body)

        def send_json(self, value: object, with_body: bool) -> None:
            self.send(200, json.dumps(value).encode(), with_body, {"Content-Type": "application/json"})

        def send_missing(self, code: str) -> None:
            self.send(404, b"", True, {"X-Error-Code": code, "X-Repo-Commit": COMMIT})

        def send(self, status: int, body: bytes, with_body: bool, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body)), "Accept-Ranges": "bytes"}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
