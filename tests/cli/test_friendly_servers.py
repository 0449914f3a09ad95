"""Servers that a run needs and that will not do: endpoints and the hub. Each is real, and nothing is made."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from aiohttp import web
from refusals import KEY, perseid, refused, write
from wrong_inputs import OF_FILES

from perseid.cli import exits
from perseid.engines.errors import ModelDownloadError
from perseid.engines.models import resolve_model
from served import Served

# Endpoints.


class Endpoint(Served):
    """Answers everything with one status and text, or as a server of the model `there`."""

    def __init__(self, status: int = 200, text: str = "", kind: str = "application/json", models: str = "") -> None:
        super().__init__()
        self._status, self._text, self._kind, self._models = status, text, kind, models
        self.asked: list[str] = []

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_route("*", "/{path:.*}", self._handle)

    async def _handle(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        if self._models and request.path == "/v1/models":
            rows = [{"id": name} for name in self._models.split()]
            return web.json_response({"object": "list", "data": rows})
        return web.Response(status=self._status, text=self._text, content_type=self._kind)


def with_endpoint(url: str, key: str = "", field: str = "policyEndpoint") -> str:
    return OF_FILES + f"  synthesis: {{{field}: {{baseUrl: '{url}/v1', model: small, timeoutSeconds: 20{key}}}}}\n"


NAMED_KEY = ", apiKeyEnv: PERSEID_TEST_KEY"
ANSWERS: dict[str, tuple[Endpoint, str, tuple[str, ...]]] = {
    "401 without a key": (Endpoint(401), "", ("wants an API key", "answers 401", "policyEndpoint.apiKeyEnv")),
    "401 with a key": (
        Endpoint(401, f"bad key {KEY}"), NAMED_KEY, ("refuses the API key", "the key in the variable PERSEID_TEST_KEY")
    ),
    "404": (Endpoint(404), "", ("neither /models nor /chat/completions", "correct", "baseUrl", "ends in /v1")),
    "500": (Endpoint(500), "", ("answers 500 to GET /models", "look at the server's log")),
    "a page for people": (
        Endpoint(200, "<html>Welcome</html>", "text/html"), "", ("no JSON (text/html)", "ends in /v1?")
    ),
    "another model": (
        Endpoint(404, models="smaller big"), "", ("serves no model 'small'", "smaller, big", "did you mean smaller?")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_an_endpoint_that_will_not_do_is_refused_before_the_run_begins(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, key, says = ANSWERS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERSEID_TEST_KEY", KEY)
    with endpoint:
        file = write(tmp_path, with_endpoint(endpoint.url, key))
        refused(perseid("run", file), "spec.synthesis.policyEndpoint: the endpoint http://127.0.0.1", *says)
    assert not (tmp_path / "runs").exists()
    assert perseid("validate", file).exit_code == exits.OK, "a file is valid wherever its endpoint is"


@pytest.mark.parametrize("models", ["small", "", "small:latest"])
def test_an_endpoint_that_serves_the_model_is_asked_nothing_that_costs(
    models: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that has no list of models, and one that lists it under a longer name: it refuses the empty chat."""
    monkeypatch.chdir(tmp_path)
    with Endpoint(400, models=models) as endpoint:
        suspended = with_endpoint(endpoint.url) + "  suspend: true\n"
        result = perseid("run", write(tmp_path, suspended), "--quiet")
    assert result.exit_code == exits.SUSPENDED, result.output
    assert endpoint.asked[0] == "GET /v1/models"
    assert endpoint.asked[1:] == ([] if models == "small" else ["POST /v1/chat/completions"])


def test_a_run_that_goes_on_does_not_ask_its_endpoint_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have all answers that it needs."""
    monkeypatch.chdir(tmp_path)
    with Endpoint(models="small") as endpoint:
        file = write(tmp_path, with_endpoint(endpoint.url) + "  suspend: true\n")
        assert perseid("run", file, "--quiet").exit_code == exits.SUSPENDED
    assert perseid("run", file, "--quiet").exit_code == exits.SUSPENDED


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("field", ["policyEndpoint", "evaluatorEndpoint"])
def test_a_closed_port_is_told_with_the_endpoint(field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, with_endpoint(f"http://127.0.0.1:{closed_port()}", field=field))
    refused(perseid("run", file), f"spec.synthesis.{field}", "cannot be reached", "start the server, or correct")
    assert not (tmp_path / "runs").exists()


def test_a_mentor_that_cannot_be_reached_is_told_with_its_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mentor = f"{{type: openai, openai: {{baseUrl: 'http://127.0.0.1:{closed_port()}/v1', model: strong}}}}"
    run = OF_FILES.split("  problems")[0] + f"  methods: [meteor]\n  meteor: {{mentor: {mentor}}}\n"
    refused(perseid("run", write(tmp_path, run)), "spec.meteor.mentor.openai: the endpoint", "cannot be reached")


def test_a_url_without_its_scheme_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, with_endpoint("localhost:8000"))
    refused(perseid("run", file), "cannot be reached (UnsupportedProtocol", "for example http://localhost:8000/v1")


def test_a_key_that_is_not_there_is_told_with_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERSEID_TEST_KEY", raising=False)
    file = write(tmp_path, with_endpoint("http://localhost:1", NAMED_KEY))
    refused(
        perseid("run", file),
        "spec.synthesis.policyEndpoint: ",
        "in the environment variable PERSEID_TEST_KEY",
        "set it before the run starts",
    )
    assert perseid("validate", file).exit_code == exits.OK, "a cluster has the key in a Secret"


# The hub.


class BrokenHub(Served):
    """A hub that knows `org/small` only, and breaks every download off after some bytes of it."""

    COMMIT = "0123456789012345678901234567890123456789"

    def __init__(self) -> None:
        super().__init__()
        self.downloads = 0

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/models/org/small/revision/main", self._files)
        router.add_get(f"/api/models/org/small/tree/{self.COMMIT}", self._tree)
        router.add_route("*", "/org/small/resolve/{revision}/{name}", self._file)
        router.add_route("*", "/{path:.*}", self._unknown)

    async def _files(self, _: web.Request) -> web.Response:
        names = [{"rfilename": name} for name in ("config.json", "model.safetensors")]
        return web.json_response({"id": "org/small", "sha": self.COMMIT, "siblings": names})

    async def _unknown(self, _: web.Request) -> web.Response:
        return web.Response(status=404, headers={"X-Error-Code": "RepoNotFound"})

    async def _tree(self, _: web.Request) -> web.Response:
        names = ("config.json", "model.safetensors")
        return web.json_response([{"type": "file", "path": name, "size": 100000, "oid": name} for name in names])

    async def _file(self, request: web.Request) -> web.StreamResponse:
        headers = {"ETag": '"abc"', "X-Repo-Commit": self.COMMIT, "Content-Length": "100000"}
        answer = web.StreamResponse(headers=headers)
        await answer.prepare(request)
        if request.method == "GET":
            self.downloads += 1
            await answer.write(b"x" * 1000)
            assert request.transport is not None
            request.transport.close()
        return answer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BrokenHub:
    """The hub's client, with no cache and nothing to wait for between its tries."""
    import huggingface_hub.constants as constants
    import huggingface_hub.file_download as file_download

    hub = BrokenHub()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    return hub


def point_to(hub: BrokenHub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.mark.parametrize(
    ("ref", "says"),
    [("org/smal", "the hub has no such model, or it is private"), ("org/small", "was interrupted")],
)
def test_a_model_that_the_hub_does_not_give_is_told_before_the_run_begins(
    ref: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: BrokenHub
) -> None:
    monkeypatch.chdir(tmp_path)
    with hub:
        point_to(hub, monkeypatch)
        result = perseid("run", write(tmp_path, OF_FILES + f"  model: {{ref: {ref}}}\n"))
    refused(result, f"spec.model.ref: model '{ref}'", says)
    assert not (tmp_path / "runs").exists()


def test_a_download_that_breaks_off_is_told_and_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: BrokenHub
) -> None:
    with hub:
        point_to(hub, monkeypatch)
        with pytest.raises(ModelDownloadError, match="run again to resume") as caught:
            resolve_model("org/small", cache_dir=tmp_path)
    assert hub.downloads > 0
    assert "'org/small'" in str(caught.value)
    assert "\n" not in str(caught.value)
