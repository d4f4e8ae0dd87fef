"""A hub on loopback that answers huggingface_hub as the Hugging Face Hub does, for small files, from memory."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

TOKEN = "hf_token"


class FakeHub(ThreadingHTTPServer):
    """repositories: id -> name -> content of its files, of a single commit."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"

    def commit_of(self, name: str) -> str:
        files = self.repositories[name]
        return hashlib.sha1(b"".join(key.encode() + files[key] for key in sorted(files))).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        if "/tree/" in path:
            self._tree(path.removeprefix("api/models/").partition("/tree/")[0])
        elif path.startswith("api/models/"):
            name, _, revision = path.removeprefix("api/models/").partition("/revision/")
            self._repository(name, revision)
        else:
            name, _, rest = path.partition("/resolve/")
            self._file(name, rest.partition("/")[2])

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._chunks()
        path = unquote(urlsplit(self.path).path).strip("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json(401, {"error": "Invalid username or password."})
        elif path == "api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
            self.server.repositories.setdefault(name, {})
            self._json(200, {"url": f"{self.server.url}/{name}", "id": name, "name": name})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            self._json(
                200,
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]},
            )
        elif "/commit/" in path:
            self._commit(path.removeprefix("api/models/").partition("/commit/")[0], body)
        else:
            self._json(404, {"error": "Not Found"})

    def _repository(self, name: str, revision: str) -> None:
        files = self.server.repositories.get(name)
        if files is None:
            self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        sha = self.server.commit_of(name)
        if revision not in ("", "main", sha):
            self._json(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": file} for file in files]
        self._json(200, {"id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": [], "private": False})

    def _tree(self, name: str) -> None:
        files = self.server.repositories[name].items()
        entries = [{"type": "file", "path": file, "size": len(content), "oid": ""} for file, content in files]
        self._json(200, entries)

    def _file(self, name: str, file: str) -> None:
        content = self.server.repositories.get(name, {}).get(file)
        if content is None:
            self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        etag = hashlib.sha256(content).hexdigest()
        self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": self.server.commit_of(name)})

    def _commit(self, name: str, body: bytes) -> None:
        files = self.server.repositories[name]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        sha = self.server.commit_of(name)
        self._json(200, {"commitUrl": f"{self.server.url}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    def _chunks(self) -> bytes:
        """Read a chunked body."""
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _json(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content)), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Run a hub in a thread."""
    with FakeHub() as hub:
        thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
