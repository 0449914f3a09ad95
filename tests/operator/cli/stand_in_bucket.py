"""A bucket that speaks as much S3 as reading needs: objects and lists, to whoever has the key."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from aiohttp import web

from served import Served

ACCESS_KEY = "AKIDREADER"


class StandInBucket(Served):
    """Serves a directory as the bucket `models`."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """The bucket and its objects."""
        router.add_get("/models", self._list)
        router.add_get("/models/{key:.+}", self._get)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if f"Credential={ACCESS_KEY}/" in request.headers.get("Authorization", ""):
            return None
        return _error(403, "AccessDenied", "you are not the reader")

    async def _get(self, request: web.Request) -> web.StreamResponse:
        file = self._directory / request.match_info["key"]
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        if not file.is_file():
            return _error(404, "NoSuchKey", "no such key")
        headers = {"ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        return web.Response(body=file.read_bytes(), headers=headers)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        prefix = request.query.get("prefix", "")
        files = sorted(path for path in self._directory.rglob("*") if path.is_file())
        keys = [str(path.relative_to(self._directory)) for path in files]
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>1</Size><ETag>1</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys
            if key.startswith(prefix)
        )
        text = f"<ListBucketResult><Name>models</Name><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")


def _error(status: int, code: str, message: str) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")
