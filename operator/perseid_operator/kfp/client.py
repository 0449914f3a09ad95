"""The calls of Kubeflow Pipelines that the operator needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from perseid_operator.kfp.errors import (
    KfpAmbiguousError,
    KfpExperimentMissingError,
    KfpServerError,
    KfpUnreachableError,
    RunRejectedError,
    UnreachableKind,
)
from perseid_operator.kfp.request import RunRequest, check_experiment_name, check_text, to_json
from perseid_operator.kfp.runs import KfpRun, NotARunError, parse_run
from perseid_operator.kfp.settings import KfpSettings
from perseid_operator.kfp.transport import Answer, OnRequest, Transport

MAX_IDS_PER_LIST = 100
"""KFP lists at most 200 at once, and answers with each run whole."""

_INVALID, _NOT_FOUND = 3, 5
"""Codes in KFP's answers (gRPC's)."""
_REFUSED = frozenset({400, 404, 405, 411, 414, 415, 431})
"""HTTP statuses that leave no doubt that nobody has done anything. 408 and 409 are not among them."""
_NOTHING_SENT = (
    UnreachableKind.DNS,
    UnreachableKind.REFUSED,
    UnreachableKind.TLS,
    UnreachableKind.CONNECT_TIMEOUT,
)


class KfpClient:
    """Asks KFP, one request to a call (a list has one for each page). There are no retries: only the caller knows
    whether it may ask again, and when. (Where a kept connection turns out to be closed, a GET or DELETE goes out once
    more on a new one; a POST never does.)

    All calls raise KfpUnreachableError, KfpUnauthorizedError, KfpRateLimitedError and KfpServerError; what each of
    them leaves known says `perseid_operator.kfp.errors`. Use it in one event loop, as a context manager or with
    `close`.
    """

    def __init__(self, settings: KfpSettings, on_request: OnRequest | None = None) -> None:
        """`on_request(operation, code, seconds)` is told of every exchange; the code is the HTTP status or the kind of
        failure. Raises KfpSettingsError where the CA file cannot be used."""
        self._settings = settings
        self._transport = Transport(settings, on_request)

    @property
    def settings(self) -> KfpSettings:
        """The connection's settings."""
        return self._settings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def check(self) -> None:
        """Return where KFP answers, its database too, and knows who asks. `healthz` would tell neither."""
        answer = await self._transport.send("check", "GET", "/experiments", query={"page_size": "1", **self._scope()})
        self._object("check", answer)

    async def ensure_experiment(self, name: str, description: str, *, probably_new: bool = False) -> str:
        """The id of the experiment with that name, which is made where there is none. May be called again after any
        error. KFP takes names that differ only in case for the same. `probably_new` saves a question where it is.

        Raises RunRejectedError for a name that is not 1 to 128 printable ASCII characters, or a description over 255.
        """
        check_experiment_name(name)
        check_text("the experiment's description", description)
        found = None if probably_new else await self._find_experiment(name)
        if found is not None:
            return found
        body = to_json({"display_name": name, "description": description, **self._scope()})
        answer = await self._transport.send("create_experiment", "POST", "/experiments", body=body)
        if answer.status == 409:
            # It is not new, or somebody was faster.
            found = await self._find_experiment(name)
            if found is None:
                raise KfpServerError(
                    f"{self._transport.where} says that the experiment {name} exists, and does not list it",
                    status=409,
                    text=self._transport.words(answer),
                )
            return found
        if _is_rejection(answer):
            raise self._rejected(f"the experiment {name}", answer)
        return self._text("create_experiment", self._object("create_experiment", answer), "experiment_id")

    async def create_run(self, request: RunRequest) -> KfpRun:
        """Create a run, with one single POST. Look with `get_run` first: KFP starts a run a second time where the id
        is taken. A caller that is cancelled knows as little as after KfpAmbiguousError.

        Raises RunRejectedError (also for what must not be sent at all), KfpExperimentMissingError and
        KfpAmbiguousError. The run's id in the answer may be another than the one asked for with a server that does not
        take ids from clients.
        """
        body = request.to_body()
        what = f"the run {request.run_id} ({request.display_name})"
        try:
            # On a connection of its own: one that was kept may have died in the meantime, and then nobody could tell
            # a request that never arrived from one that did.
            answer = await self._transport.send("create_run", "POST", "/runs", body=body, fresh=True)
        except KfpUnreachableError as error:
            if error.kind in _NOTHING_SENT:
                raise
            raise KfpAmbiguousError(f"nobody knows whether {what} was created: {error}") from None
        text = self._transport.words(answer)
        if _is_rejection(answer):
            raise self._rejected(what, answer)
        if _says_missing(answer, request.experiment_id):
            raise KfpExperimentMissingError(
                f"{self._transport.where} has no experiment {request.experiment_id} any more for {what}: {text!r};"
                " make it anew"
            )
        if answer.status in _REFUSED:
            raise self._transport.failure("create_run", answer)
        if answer.status >= 300:
            raise KfpAmbiguousError(
                f"nobody knows whether {what} was created: {self._transport.where} answered {answer.status}: {text!r}",
                status=answer.status,
                text=text,
                duplicate="Error 1062" in text or "Duplicate entry" in text,
            )
        try:
            return parse_run(answer.data)
        except NotARunError as error:
            raise KfpAmbiguousError(
                f"nobody knows whether {what} was created: {self._transport.where} answered {answer.status} with"
                f" something that is no run ({error}): {text!r}",
                status=answer.status,
                text=text,
            ) from None

    async def get_run(self, run_id: str) -> KfpRun | None:
        """The run; None only where KFP itself says for certain that there is none. A run seen before may have been
        collected: then None does not mean that it never was."""
        answer = await self._transport.send("get_run", "GET", f"/runs/{_quoted(run_id)}")
        if _says_missing(answer, run_id):
            return None
        return self._run("get_run", self._object("get_run", answer))

    async def list_runs(self, run_ids: Iterable[str]) -> dict[str, KfpRun]:
        """Those of the runs that exist, archived ones too, by the ids as they were given."""
        wanted = list(dict.fromkeys(run_ids))
        found: dict[str, KfpRun] = {}
        for start in range(0, len(wanted), MAX_IDS_PER_LIST):
            found |= await self._list_chunk(wanted[start : start + MAX_IDS_PER_LIST])
        return found

    async def terminate(self, run_id: str) -> bool:
        """Ask KFP to stop a run, which then is CANCELING for a while and ends as FAILED.

        False where there is nothing to stop: it is over, being stopped already, or not there. After KfpServerError it
        may show CANCELING and still go on; ask again until it is over.
        """
        answer = await self._transport.send("terminate_run", "POST", f"/runs/{_quoted(run_id)}:terminate")
        if answer.status == 400 and answer.code == _INVALID and "not found" in answer.text.lower():
            return False
        return self._done("terminate_run", run_id, answer)

    async def delete(self, run_id: str) -> bool:
        """Delete a run, with its Workflow and pods. False where there is no such run.

        Where KFP cannot reach Kubernetes it still says that it has deleted it: a Workflow can be left, which KFP
        collects later.
        """
        return self._done(
            "delete_run", run_id, await self._transport.send("delete_run", "DELETE", f"/runs/{_quoted(run_id)}")
        )

    async def _find_experiment(self, name: str) -> str | None:
        predicates = [{"key": "display_name", "operation": "EQUALS", "string_value": name}]
        query = {"filter": _filter(predicates), "page_size": "10", **self._scope()}
        answer = await self._transport.send("list_experiments", "GET", "/experiments", query=query)
        listed = self._objects("list_experiments", self._object("list_experiments", answer), "experiments")
        for experiment in listed:
            if str(experiment.get("display_name", "")).casefold() == name.casefold():
                return self._text("list_experiments", experiment, "experiment_id")
        return None

    async def _list_chunk(self, wanted: list[str]) -> dict[str, KfpRun]:
        by_id = {run_id.casefold(): run_id for run_id in wanted}
        predicates = [{"key": "run_id", "operation": "IN", "string_values": {"values": wanted}}]
        query = {"filter": _filter(predicates), "page_size": str(MAX_IDS_PER_LIST), **self._scope()}
        found: dict[str, KfpRun] = {}
        tokens: set[str] = set()
        while True:
            page = self._object("list_runs", await self._transport.send("list_runs", "GET", "/runs", query=query))
            for entry in self._objects("list_runs", page, "runs"):
                run = self._run("list_runs", entry)
                asked = by_id.get(run.run_id.casefold())
                if asked is None:
                    raise KfpServerError(
                        f"{self._transport.where} listed the run {run.run_id}, which was not asked for: it does not"
                        " honour filters by run id; is it KFP 2.17 or newer?"
                    )
                found[asked] = run
            token = page.get("next_page_token")
            if not token:
                return found
            if not isinstance(token, str) or token in tokens:
                raise KfpServerError(f"{self._transport.where} gave the same page of a list again; its lists never end")
            tokens.add(token)
            query["page_token"] = token

    def _scope(self) -> dict[str, str]:
        return {} if self._settings.namespace is None else {"namespace": self._settings.namespace}

    def _done(self, operation: str, run_id: str, answer: Answer) -> bool:
        if _says_missing(answer, run_id):
            return False
        self._object(operation, answer)
        return True

    def _object(self, operation: str, answer: Answer) -> Mapping[str, Any]:
        data = answer.data
        if answer.status != 200 or not isinstance(data, dict):
            raise self._transport.failure(operation, answer)
        return data

    def _objects(self, operation: str, page: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
        # An empty list is an answer without the key.
        entries = page.get(key) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise KfpServerError(f"{self._transport.where} answered {operation} with {key} that are no list of objects")
        return entries

    def _text(self, operation: str, data: Mapping[str, Any], key: str) -> str:
        value = data.get(key)
        if not isinstance(value, str) or not value:
            raise KfpServerError(f"{self._transport.where} answered {operation} without {key}: {str(data)[:200]!r}")
        return value

    def _run(self, operation: str, data: Any) -> KfpRun:
        try:
            return parse_run(data)
        except NotARunError as error:
            raise KfpServerError(
                f"{self._transport.where} answered {operation} with something that is no run: {error}"
            ) from None

    def _rejected(self, what: str, answer: Answer) -> RunRejectedError:
        text = self._transport.words(answer)
        return RunRejectedError(f"{self._transport.where} refused {what} ({answer.status}): {text}", text=text)


def _is_rejection(answer: Answer) -> bool:
    """Whether the request itself is wrong, in KFP's own words or because it is too large for a proxy. A 400 that is not
    KFP's speaks of the connection."""
    return answer.status == 413 or (answer.status == 400 and answer.code is not None)


def _says_missing(answer: Answer, key: str) -> bool:
    """Whether KFP itself says that what `key` names is not there. A proxy's 404, or the gateway's for a path that it
    does not know, names no id."""
    return answer.status == 404 and answer.code == _NOT_FOUND and key.casefold() in answer.text.casefold()


def _quoted(run_id: str) -> str:
    return quote(run_id, safe="")


def _filter(predicates: list[dict[str, Any]]) -> str:
    """A list's filter. KFP decodes it as a URL a second time, so nothing in it may look encoded."""
    text = json.dumps({"predicates": predicates}, separators=(",", ":"))
    return text.replace("%", "\\u0025").replace("+", "\\u002b")
