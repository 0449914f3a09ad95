"""`perseid suspend`, `resume` and `approve`: what is changed, and when nothing is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cluster_runs import CHANGES, ClusterRun, changeable_by, waiting
from stand_in_api import StandInApi
from typer.testing import Result

from perseid.api.base import APPROVED_GENERATION
from perseid.cli import exits

Perseid = Callable[..., Result]


def annotation(api: StandInApi) -> str | None:
    return api.runs["lab", "small"]["metadata"]["annotations"].get(APPROVED_GENERATION)


def done(result: Result) -> str:
    """What a command said that did what it was asked to."""
    assert result.exit_code == exits.OK, result.output
    assert result.stdout == ""
    return result.stderr


def refused(result: Result) -> str:
    """What a command said that did nothing."""
    assert result.exit_code == exits.MISTAKE, result.output
    assert result.stdout == ""
    return result.stderr


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
    said = done(perseid("suspend", "small", *options))
    spec = api.runs["lab", "small"]["spec"]
    assert (spec["suspend"], spec["suspendPolicy"]) == (True, after)
    ((kind, _),) = api.patches
    assert kind == "application/merge-patch+json"
    assert ("is stopped" in said) == (after == "terminate")


def test_resume_lets_a_suspended_run_go_on(api: StandInApi, perseid: Perseid) -> None:
    api.put(changeable_by("resume").object())
    assert "goes on" in done(perseid("resume", "small"))
    assert api.runs["lab", "small"]["spec"]["suspend"] is False


@pytest.mark.parametrize(
    ("command", "run", "words"),
    [
        ("suspend", changeable_by("resume"), "is suspended already"),
        ("resume", changeable_by("suspend"), "is not suspended"),
    ],
)
def test_what_is_so_already_is_told_and_not_done_again(
    api: StandInApi, perseid: Perseid, command: str, run: ClusterRun, words: str
) -> None:
    api.put(run.object())
    assert words in done(perseid(command, "small"))
    assert api.patches == []


def test_a_suspended_run_that_drains_may_be_stopped(api: StandInApi, perseid: Perseid) -> None:
    api.put(changeable_by("resume").object())
    done(perseid("suspend", "small", "--terminate"))
    assert api.runs["lab", "small"]["spec"]["suspendPolicy"] == "terminate"


@pytest.mark.parametrize("command", CHANGES)
def test_a_run_that_is_over_is_not_changed(api: StandInApi, perseid: Perseid, command: str) -> None:
    api.put(ClusterRun(generations={"max": 1}).generation(candidate=0.5, parent=0.4).object())
    assert "small is Completed" in refused(perseid(command, "small"))
    assert api.patches == []


@pytest.mark.parametrize("command", CHANGES)
def test_somebody_elses_run_is_changed_with_a_warning(api: StandInApi, perseid: Perseid, command: str) -> None:
    api.put(changeable_by(command, managedBy="example.com/other").object())
    assert "up to that to heed this" in done(perseid(command, "small"))
    assert len(api.patches) == 1


def test_approve_approves_the_generation_that_waits_and_the_brain_starts_it(api: StandInApi, perseid: Perseid) -> None:
    run = waiting()
    assert not run.submitted
    api.put(run.object())
    assert "generation 1 of small is approved" in done(perseid("approve", "small"))
    assert annotation(api) == "1"
    assert run.observe(approved_generation=int(annotation(api) or "")).submitted


def test_a_later_generation_may_be_approved_ahead_of_time(api: StandInApi, perseid: Perseid) -> None:
    api.put(waiting().object())
    done(perseid("approve", "small", "--generation", "3"))
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
    assert reason in refused(perseid("approve", "small", *options))
    assert api.patches == []


def test_a_generation_that_has_begun_needs_no_approval_any_more(api: StandInApi, perseid: Perseid) -> None:
    run = waiting()
    run.observe(approved_generation=1)
    assert run.submitted
    api.put(run.object())
    assert "generation 1 of small has begun already" in refused(perseid("approve", "small", "--generation", "1"))


def test_an_approval_is_neither_repeated_nor_taken_back(api: StandInApi, perseid: Perseid) -> None:
    run = waiting()
    run.annotations = {APPROVED_GENERATION: "2"}
    api.put(run.object())
    assert "generation 1 of small is approved already" in refused(perseid("approve", "small"))
    assert "generation 1 of small is approved already" in refused(perseid("approve", "small", "--generation", "1"))
    assert api.patches == []
    done(perseid("approve", "small", "--generation", "3"))
