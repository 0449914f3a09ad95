"""Endpoints that a run asks: whether there is a key, and whether somebody who serves the model is there.

Nothing is asked that costs anything: the list of models, and where that does not help a chat without a message, which
every server refuses, each kind of refusal for its own reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from perseid.api.engine import OpenAISpec
from perseid.api.spec import DefinitionSpec
from perseid.engines.protocol import EngineError
from perseid.runner.errors import RunnerError

if TYPE_CHECKING:  # what asks is imported where there is somebody to ask
    import httpx

SYNTHESIS = "spec.synthesis"
_SHOWN = 5
"""Models that a message lists at most."""


def check_keys(spec: DefinitionSpec, *, keys: bool) -> None:
    """Raise RunnerError for an endpoint of the search whose key is not here, where keys must be here."""
    for field, endpoint in _of_synthesis(spec) if keys else ():
        key_of(field, endpoint)


def check_endpoints(spec: DefinitionSpec) -> None:
    """Raise RunnerError for an endpoint of the run that cannot be reached, refuses the key, or serves no such model."""
    asked: set[tuple[str, str, str | None]] = set()
    for field, endpoint in (*_of_synthesis(spec), *_of_meteor(spec)):
        who = (endpoint.base_url, endpoint.model, endpoint.api_key_env)
        if who not in asked:
            asked.add(who)
            _ask(field, endpoint)


def key_of(field: str, endpoint: OpenAISpec) -> str | None:
    """The endpoint's key, None where it takes none. Raises RunnerError where it is not here."""
    if endpoint.api_key_env is None:
        return None
    from perseid.engines.factory import api_key

    try:
        return api_key(endpoint.base_url, endpoint.api_key_env)
    except EngineError as error:
        raise RunnerError(
            f"{field}: {error}; set it before the run starts, or another name in {field}.apiKeyEnv"
        ) from error


def _of_synthesis(spec: DefinitionSpec) -> Iterator[tuple[str, OpenAISpec]]:
    if "sra-mcts" not in spec.methods:
        return
    if spec.synthesis.policy_endpoint is not None:
        yield f"{SYNTHESIS}.policyEndpoint", spec.synthesis.policy_endpoint
    if spec.synthesis.evaluator_endpoint is not None:
        yield f"{SYNTHESIS}.evaluatorEndpoint", spec.synthesis.evaluator_endpoint


def _of_meteor(spec: DefinitionSpec) -> Iterator[tuple[str, OpenAISpec]]:
    if "meteor" not in spec.methods:
        return
    mentor, judge = spec.meteor.mentor, spec.meteor.judge
    if "mentor-supervised" in spec.stages and mentor.type == "openai" and mentor.openai is not None:
        yield "spec.meteor.mentor.openai", mentor.openai
    if judge.type == "openai" and judge.openai is not None:
        yield "spec.meteor.judge.openai", judge.openai


def _ask(field: str, endpoint: OpenAISpec) -> None:
    import httpx

    root = endpoint.base_url.rstrip("/")
    where = f"{field}: the endpoint {endpoint.base_url}"
    key = key_of(field, endpoint)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        with httpx.Client(headers=headers, timeout=endpoint.timeout_seconds, follow_redirects=True) as client:
            listed = client.get(f"{root}/models")
            _check_answer(where, field, endpoint, listed, "GET /models")
            served = _served(where, listed)
            if endpoint.model in served:
                return
            chat = {"model": endpoint.model, "messages": []}
            refused = client.post(f"{root}/chat/completions", json=chat)
            _check_answer(where, field, endpoint, refused, "POST /chat/completions")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        what = (
            f"gave no answer within {endpoint.timeout_seconds:g} s"
            if isinstance(error, httpx.TimeoutException)
            else f"cannot be reached ({type(error).__name__}: {error})"
        )
        raise RunnerError(
            f"{where} {what}; start the server, or correct {field}.baseUrl (for example http://localhost:8000/v1)"
        ) from error
    if refused.status_code in (404, 405):
        raise RunnerError(f"{where} {_not_there(field, endpoint, served, refused.status_code)}")


def _check_answer(where: str, field: str, endpoint: OpenAISpec, answer: httpx.Response, asked: str) -> None:
    code = answer.status_code
    if code in (401, 403):
        place = f"the key in the variable {endpoint.api_key_env}" if endpoint.api_key_env else f"{field}.apiKeyEnv"
        what = "refuses the API key" if endpoint.api_key_env else "wants an API key"
        raise RunnerError(f"{where} {what} (it answers {code} to {asked}); check {place}")
    if code >= 500:
        raise RunnerError(f"{where} answers {code} to {asked}; look at the server's log, and run again when it serves")


def _served(where: str, answer: httpx.Response) -> list[str]:
    """Names of the models that it says it serves; none where it does not say."""
    if answer.status_code != 200:
        return []
    try:
        listed = answer.json()
    except ValueError as error:
        kind = answer.headers.get("content-type", "no content type").split(";")[0]
        raise RunnerError(
            f"{where} answers GET /models with something that is no JSON ({kind}); is it the API's root, which usually"
            " ends in /v1?"
        ) from error
    models = listed.get("data") if isinstance(listed, dict) else None
    rows = models if isinstance(models, list) else []
    return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def _not_there(field: str, endpoint: OpenAISpec, served: list[str], code: int) -> str:
    if not served:
        return (
            f"has neither /models nor /chat/completions with the model {endpoint.model!r} (it answers {code}); correct"
            f" {field}.baseUrl, which usually ends in /v1, or {field}.model"
        )
    near = difflib.get_close_matches(endpoint.model, served, n=1)
    shown = ", ".join(served[:_SHOWN]) + (f" and {len(served) - _SHOWN} more" if len(served) > _SHOWN else "")
    hint = f"did you mean {near[0]}?" if near else f"set {field}.model to one of them"
    return f"serves no model {endpoint.model!r}; it serves {shown}: {hint}"
