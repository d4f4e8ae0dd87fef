"""The pages for browsers: the inspector, the guided page, the documentation of the interface, and their files.

They are read once, when the server starts, so that an answer opens no file. Every URL in them is relative, so that they
work behind a proxy that serves them under a prefix.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request, Response

from app.errors import NotFound

STATIC = Path(__file__).parents[1] / "static"

TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

DOCS_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'").replace(
    "img-src 'self'", "img-src 'self' data:"
)
"""Swagger UI sets styles on its elements, and its icons are data URLs."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a browser asks each time whether a file has changed, so it never mixes versions
}


@dataclass(frozen=True)
class Page:
    """A file for browsers; etag changes with its content."""

    content: bytes
    media_type: str
    etag: str
    policy: str

    def answer(self, request: Request) -> Response:
        """Return the file, or 304 if the browser has it."""
        headers = HEADERS | {"Content-Security-Policy": self.policy, "ETag": self.etag}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def add_pages(app: FastAPI) -> None:
    """Add the routes of the pages: /, /learn, /docs and /static/."""
    inspector, learn = _read(STATIC / "index.html"), _read(STATIC / "learn.html")
    docs = _read(STATIC / "docs.html", DOCS_POLICY)
    others = [path for path in STATIC.rglob("*") if path.is_file() and path.suffix != ".html"]
    files = {path.relative_to(STATIC).as_posix(): _read(path) for path in others}

    @app.get("/", include_in_schema=False)
    async def show_inspector(request: Request) -> Response:
        return inspector.answer(request)

    @app.get("/learn", include_in_schema=False)
    async def show_guide(request: Request) -> Response:
        return learn.answer(request)

    @app.get("/docs", include_in_schema=False)
    async def show_docs(request: Request) -> Response:
        return docs.answer(request)

    @app.get("/static/{name:path}", include_in_schema=False)
    async def show_file(request: Request, name: str) -> Response:
        if name not in files:
            raise NotFound(f"there is no file /static/{name}")
        return files[name].answer(request)


def _read(path: Path, policy: str = POLICY) -> Page:
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return Page(content, TYPES.get(path.suffix, "text/plain"), etag, policy)
