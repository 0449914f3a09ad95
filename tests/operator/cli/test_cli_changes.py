"""`perseid suspend`, `resume` and `approve`: what is changed, and when nothing is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cluster_runs import ClusterRun
from stand_in_api import StandInApi
from typer.testing import Result

from perseid.api.base import APPROVED_GENERATION
from perseid.cli import exits

Perseid = Callable[..., Result]


def waiting(**spec: object) -> ClusterRun:
    """Generation 0 has ended; generation 1 waits for approval."""
    generations = {"max": 4, "approval": "manual"}
    return ClusterRun(generations=generations, **spec).generation(candidate=0.5, parent=0.4)


def annotation(api: StandInApi) -> str | None:
    return api.runs["lab", "small"]["metadata"]["annotations"].get(APPROVED_GENERATION)


@pytest.mark.parametrize(
    ("options", "before", "after"),
    [
        ((), "drain", "drain"),
        ((), "terminate", "terminate"),
        (("--terminate",), "drain", "terminate"),
        (("--drain",), "terminate", "drain"),
    ],
)
def test_suspend_holds_a_run_by_the_policy_that_is_asked_for_or_its_own(
    api: StandInApi, perseid: Perseid, options: tuple[str, ...], before: str, after: str
) -> None:
    api.put(ClusterRun(suspendPolicy=before).running().object())
    result = perseid("suspend", "small", *options)
    assert result.exit_code == exits.OK, result.output
    spec = api.runs["lab", "small"]["spec"]
    assert (spec["suspend"], spec["suspendPolicy"]) == (True, after)
    ((kind, _),) = api.patches
    assert kind == "application/merge-patch+json"
    assert ("is stopped" in result.stderr) == (after == "terminate")


def test_a_suspended_run_is_not_suspended_twice_but_may_be_stopped(api: StandInApi, perseid: Perseid) -> None:
    api.put(ClusterRun(suspend=True).object())
    assert "is suspended already" in perseid("suspend", "small").stderr
    assert api.patches == []
    assert perseid("suspend", "small", "--terminate").exit_code == exits.OK
    assert api.runs["lab", "small"]["spec"]["suspendPolicy"] == "terminate"


def test_resume_lets_a_suspended_run_go_on_and_leaves_others_alone(api: StandInApi, perseid: Perseid) -> None:
    api.put(ClusterRun(suspend=True).observe().object())
    assert perseid("resume", "small").exit_code == exits.OK
    assert api.runs["lab", "small"]["spec"]["suspend"] is False
    result = perseid("resume", "small")
    assert result.exit_code == exits.OK
    assert "is not suspended" in result.stderr
    assert len(api.patches) == 1


@pytest.mark.parametrize("command", ["suspend", "resume", "approve"])
def test_a_run_that_is_over_is_not_changed(api: StandInApi, perseid: Perseid, command: str) -> None:
    api.put(ClusterRun(generations={"max": 1}).generation(candidate=0.5, parent=0.4).object())
    result = perseid(command, "small")
    assert result.exit_code == exits.MISTAKE
    assert "small is Completed" in result.stderr
    assert api.patches == []


def test_somebody_elses_run_is_changed_with_a_warning(api: StandInApi, perseid: Perseid) -> None:
    api.put(ClusterRun(managedBy="example.com/other").object())
    assert "up to that to heed this" in perseid("suspend", "small").stderr
    assert api.runs["lab", "small"]["spec"]["suspend"] is True


def test_approve_approves_the_generation_that_waits_and_the_brain_starts_it(api: StandInApi, perseid: Perseid) -> None:
    run = waiting()
    assert not run.submitted
    api.put(run.object())
    result = perseid("approve", "small")
    assert result.exit_code == exits.OK, result.output
    assert annotation(api) == "1"
    assert "generation 1 of small is approved" in result.stderr
    assert run.observe(approved_generation=int(annotation(api) or "")).submitted


def test_a_later_generation_may_be_approved_ahead_of_time(api: StandInApi, perseid: Perseid) -> None:
    api.put(waiting().object())
    assert perseid("approve", "small", "--generation", "3").exit_code == exits.OK
    assert annotation(api) == "3"


@pytest.mark.parametrize(
    ("run", "options", "reason"),
    [
        (ClusterRun(generations={"max": 3}).running(), (), "approval is automatic"),
        (ClusterRun(generations={"max": 3, "approval": "manual"}).running(), (), "no generation of small waits"),
        (ClusterRun(generations={"max": 3, "approval": "manual"}, suspend=True).observe(), (), "is suspended"),
        (waiting(), ("--generation", "0"), "is the first and needs no approval"),
        (waiting(), ("--generation", "4"), "has no generation 4: spec.generations.max is 4"),
        (ClusterRun(generations={"max": 3, "approval": "manual"}), (), "has no status yet"),
    ],
    ids=["automatic", "one is under way", "suspended", "the first", "beyond the last", "no status"],
)
def test_where_nothing_waits_the_reason_is_told_and_nothing_is_changed(
    api: StandInApi, perseid: Perseid, run: ClusterRun, options: tuple[str, ...], reason: str
) -> None:
    api.put(run.object())
    result = perseid("approve", "small", *options)
    assert result.exit_code == exits.MISTAKE
    assert reason in result.stderr
    assert api.patches == []


def test_a_generation_that_has_begun_needs_no_approval_any_more(api: StandInApi, perseid: Perseid) -> None:
    run = waiting()
    run.observe(approved_generation=1)
    assert run.submitted
    api.put(run.object())
    assert "generation 1 of small has begun already" in perseid("approve", "small", "--generation", "1").stderr


def test_an_approval_is_neither_repeated_nor_taken_back(api: StandInApi, perseid: Perseid) -> None:
    run = waiting()
    run.annotations = {APPROVED_GENERATION: "2"}
    api.put(run.object())
    assert "generation 1 of small is approved already" in perseid("approve", "small").stderr
    assert "generation 1 of small is approved already" in perseid("approve", "small", "--generation", "1").stderr
    assert api.patches == []
    assert perseid("approve", "small", "--generation", "3").exit_code == exits.OK
