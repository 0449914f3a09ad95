"""A stand-in of the hub's API, as far as an upload of small files needs it."""

from __future__ import annotations

import base64
import json

from aiohttp import web

from served import Served


class HubDouble(Served):
    """Takes repositories and commits of small files; remembers them, and the tokens that came."""

    def __init__(self, refuse: int | None = None) -> None:
        super().__init__()
        self.refuse = refuse
        self.repositories: dict[str, bool] = {}
        """By name: whether it is private."""
        self.files: dict[str, bytes] = {}
        self.tokens: set[str] = set()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/api/repos/create", self._create)
        router.add_post("/api/validate-yaml", self._validate)
        router.add_post("/api/models/{owner}/{name}/preupload/{revision}", self._preupload)
        router.add_post("/api/models/{owner}/{name}/commit/{revision}", self._commit)

    async def _create(self, request: web.Request) -> web.Response:
        self.tokens.add(request.headers.get("authorization", ""))
        if self.refuse is not None:
            return web.json_response({"error": "no"}, status=self.refuse)
        asked = await request.json()
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        self.repositories[name] = bool(asked.get("private", asked.get("visibility") == "private"))
        return web.json_response({"url": f"{self.url}/{name}", "name": name})

    async def _validate(self, request: web.Request) -> web.Response:
        return web.json_response({"errors": [], "warnings": []})

    async def _preupload(self, request: web.Request) -> web.Response:
        asked = await request.json()
        files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked["files"]]
        return web.json_response({"files": files})

    async def _commit(self, request: web.Request) -> web.Response:
        for line in (await request.text()).splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        return web.json_response(
            {"commitUrl": f"{self.url}/{name}/commit/abc", "commitOid": "abc", "pullRequestUrl": None}
        )
