"""`perseid get` and `describe`: what a user sees of runs in a cluster."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cluster_runs import START, URL, ClusterRun
from rich.console import Console
from stand_in_api import StandInApi
from typer.testing import Result

from perseid.api.base import replace
from perseid.api.reasons import StageState
from perseid.cli import exits
from perseid_operator.cli.access import Access
from perseid_operator.cli.listing import Listing
from perseid_operator.cli.tables import age

Perseid = Callable[..., Result]


def busy(name: str = "small", namespace: str = "lab") -> ClusterRun:
    """Generation 0 is promoted, generation 1 is being trained."""
    run = ClusterRun(name, namespace, generations={"max": 4}).generation(candidate=0.5, parent=0.4)
    return run.running(synthesize=StageState.SUCCEEDED, convert=StageState.SUCCEEDED, finetune=StageState.RUNNING)


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == exits.OK, result.output
    return json.loads(result.stdout)


def test_a_table_shows_how_far_a_run_is_what_it_is_worth_and_its_link(api: StandInApi, perseid: Perseid) -> None:
    run = busy()
    api.put(run.object())
    result = perseid("get")
    assert result.exit_code == exits.OK, result.output
    line, link = [line for line in result.stdout.splitlines() if "small" in line]
    for word in ("Running", "███░░░░░░░ 1/4", "finetune", "0.500", "GenerationInProgress"):
        assert word in line
    assert link == f"small: {URL + run.run_id}"


def test_the_link_of_a_run_that_is_over_is_shown_where_it_is_asked_for_and_makes_no_list_longer(
    api: StandInApi, perseid: Perseid
) -> None:
    over = ClusterRun("over", generations={"max": 1}).running()
    link = URL + over.run_id
    api.put(over.generation(candidate=0.6, parent=0.5).object())
    assert link in perseid("describe", "over").stdout
    assert link in perseid("get", "over").stdout
    api.put(busy("busy").object())
    assert link not in perseid("get").stdout
    assert link in [row["url"] for row in rows(perseid("get", "-o", "json"))]


async def test_a_terminal_of_eighty_columns_shows_a_run_on_one_line_and_redraws_it(
    api: StandInApi, tmp_path: Path
) -> None:
    run = busy("nightly")
    api.put(run.object())
    api.watches = [
        [lambda: api.put(run.generation(candidate=0.6, parent=0.5).object()), lambda: api.delete("lab", "nightly")]
    ]
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    async with await Access.open(api.kubeconfig(tmp_path), None) as access:
        await Listing(access, "lab", "nightly", console, "table").watch()
    rows = [line for line in re.sub("\x1b[^A-Za-z]*[A-Za-z]", "", out.getvalue()).splitlines() if " nightly " in line]
    first, last = rows[0], rows[-1]
    assert all(word in first for word in ("Running", "1/4", "finetune", "0.500"))
    assert all(word in last for word in ("Running", "2/4", "Submitting", "0.600"))
    assert max(map(len, rows)) <= 80


def test_json_has_the_same_for_scripts(api: StandInApi, perseid: Perseid) -> None:
    run = busy()
    api.put(run.object())
    (row,) = rows(perseid("get", "-o", "json"))
    assert row == {
        "namespace": "lab",
        "name": "small",
        "phase": "Running",
        "reason": "GenerationInProgress",
        "generations": "1/4",
        "done": 0.375,  # one generation of four, and two stages of four of the next
        "stage": "finetune",
        "score": "0.500",
        "best": "0.500",
        "gpu_hours": "0.0",
        "created": "2026-01-01T00:00:00+00:00",
        "url": URL + run.run_id,
    }


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (10_799, "179m"),
        (10_860, "3h1m"),
        (172_800, "2d"),
        (180_000, "2d2h"),
        (698_400, "8d"),
        (-5, "0s"),
    ],
)
def test_an_age_is_written_as_kubectl_writes_it(seconds: int, shown: str) -> None:
    assert age(START, START + timedelta(seconds=seconds)) == shown


def test_one_namespace_is_shown_unless_all_are_asked_for(api: StandInApi, perseid: Perseid) -> None:
    for name, namespace in (("b", "lab"), ("a", "lab"), ("c", "other")):
        api.put(ClusterRun(name, namespace).object())
    assert [row["name"] for row in rows(perseid("get", "-o", "json"))] == ["a", "b"]
    assert [row["name"] for row in rows(perseid("get", "-n", "other", "-o", "json"))] == ["c"]
    assert [row["name"] for row in rows(perseid("get", "-A", "-o", "json"))] == ["a", "b", "c"]
    assert [row["name"] for row in rows(perseid("get", "a", "-o", "json"))] == ["a"]
    assert "namespace" in perseid("get", "-A").stdout
    assert "namespace" not in perseid("get").stdout


def test_long_lists_come_in_pages_and_are_shown_whole(api: StandInApi, perseid: Perseid) -> None:
    api.page_size = 3
    for number in range(8):
        api.put(ClusterRun(f"run-{number}").object())
    assert [row["name"] for row in rows(perseid("get", "-o", "json"))] == [f"run-{number}" for number in range(8)]
    assert api.asked.count(("list", "evolutionruns", "lab")) == 3


def test_an_empty_namespace_is_said_to_be_empty(perseid: Perseid) -> None:
    result = perseid("get")
    assert result.exit_code == exits.OK
    assert result.stdout == ""
    assert "There are no EvolutionRuns in namespace lab" in result.stderr
    assert rows(perseid("get", "-o", "json")) == []


def test_a_run_that_cannot_be_read_does_not_hide_the_others(api: StandInApi, perseid: Perseid) -> None:
    api.put(busy("good").object())
    newer = ClusterRun("newer").object()
    newer["status"] = {"phase": "Dreaming", "uid": "what"}
    api.put(newer)
    odd = ClusterRun("odd").object()
    odd["spec"], odd["status"] = "nonsense", ["nonsense"]
    api.put(odd)
    found = {row["name"]: row for row in rows(perseid("get", "-o", "json"))}
    assert found["good"]["phase"] == "Running"
    assert (found["newer"]["phase"], found["newer"]["reason"]) == ("Dreaming", "Unreadable")
    assert found["odd"]["reason"] == "Unreadable"
    assert perseid("get").exit_code == exits.OK
    told = perseid("describe", "newer")
    assert told.exit_code == exits.OK
    assert "cannot be read by this version of Perseid" in told.stdout


def test_a_run_cannot_command_the_terminal(api: StandInApi, perseid: Perseid) -> None:
    run = busy().failed("\x1b[2Jall your lines\x07 are mine :smile: [red]")
    api.put(run.object())
    for shown in (perseid("get"), perseid("describe", "small")):
        assert shown.exit_code == exits.OK
        assert "\x1b" not in shown.output
        assert "\x07" not in shown.output
    assert "all your lines  are mine :smile: [red]" in " ".join(perseid("describe", "small").stdout.split("\n"))


def test_describe_says_where_a_run_is_why_and_what_it_has(api: StandInApi, perseid: Perseid) -> None:
    run = busy()
    api.put(run.object())
    result = perseid("describe", "small")
    assert result.exit_code == exits.OK, result.output
    page = result.stdout
    for word in (
        "lab/small",
        "Running: GenerationInProgress",
        "Best so far: the model of generation 0",
        f"generation 1, attempt 0, run {run.run_id}",
        "✓ synthesize   ✓ convert   ▶ finetune   · evaluate",
        URL + run.run_id,
        "+10.0 [+9.0, +11.0]",
        "Promoted",
        "BackendReady",
    ):
        assert word in page, word


def meteor(**spec: object) -> ClusterRun:
    return ClusterRun(methods=["meteor"], **spec)


def test_a_run_of_meteor_shows_its_own_stages_and_its_share_counts_them(api: StandInApi, perseid: Perseid) -> None:
    done, doing = {"mentor-supervised": StageState.SUCCEEDED}, {"self-assessment": StageState.RUNNING}
    api.put(meteor(generations={"max": 2}).running(**done, **doing).object())
    (row,) = rows(perseid("get", "-o", "json"))
    assert (row["stage"], row["done"]) == ("self-assessment", 0.125), "one stage of four of the first of two"
    stages = "✓ mentor-supervised   ▶ self-assessment   · self-evolution   · evaluate"
    assert stages in perseid("describe", "small").stdout
    assert "self-assessment" in perseid("get").stdout


def test_stages_that_a_run_of_both_methods_leaves_out_are_not_waited_for(api: StandInApi, perseid: Perseid) -> None:
    run = ClusterRun(methods=["sra-mcts", "meteor"], meteor={"stages": ["self-evolution"]})
    api.put(run.running(synthesize=StageState.SUCCEEDED).object())
    (row,) = rows(perseid("get", "-o", "json"))
    assert row["done"] == 0.2
    page = perseid("describe", "small").stdout
    assert "✓ synthesize   · convert   · finetune   · self-evolution   · evaluate" in page


def test_describe_shows_the_stages_of_a_run_that_has_not_begun_or_is_over(api: StandInApi, perseid: Perseid) -> None:
    stages = "stages      mentor-supervised, self-assessment, self-evolution, evaluate"
    api.put(meteor().object())
    assert stages in perseid("describe", "small").stdout
    api.put(meteor().generation(candidate=0.5, parent=0.4).object())
    page = perseid("describe", "small").stdout
    assert "Completed" in page
    assert stages in page


def test_stages_of_a_run_whose_spec_cannot_be_read_are_shown_all_the_same(api: StandInApi, perseid: Perseid) -> None:
    run = ClusterRun().running(synthesize=StageState.SUCCEEDED).object()
    run["spec"]["methods"] = ["another-method"]
    api.put(run)
    assert "✓ synthesize   · convert" in perseid("describe", "small").stdout
    assert rows(perseid("get", "-o", "json"))[0]["done"] == round(1 / 7, 4)


def test_describe_says_what_mentors_have_used(api: StandInApi, perseid: Perseid) -> None:
    run = meteor(generations={"max": 2}).generation(candidate=0.5, parent=0.4)
    assert run.status is not None
    run.status = replace(run.status, usage=replace(run.status.usage, cost=1.5, mentor_tokens=1_234_567))
    api.put(run.object())
    page = perseid("describe", "small").stdout
    assert "0.0 GPU hours, cost of mentors 1.50, 1,234,567 tokens of mentors" in page
    api.put(busy().object())
    assert "mentors" not in perseid("describe", "small").stdout


def test_describe_names_the_approval_that_is_waited_for(api: StandInApi, perseid: Perseid) -> None:
    run = ClusterRun(generations={"max": 3, "approval": "manual"}).generation(candidate=0.5, parent=0.4)
    api.put(run.object())
    assert "`perseid approve small -n lab` starts generation 1" in perseid("describe", "small").stdout


def test_describe_says_when_nobody_has_taken_a_run_up(api: StandInApi, perseid: Perseid) -> None:
    api.put(ClusterRun().object())
    page = perseid("describe", "small").stdout
    assert "Pending: nobody has taken it up yet" in page


def test_describe_says_where_generations_are_that_the_status_has_no_room_for(api: StandInApi, perseid: Perseid) -> None:
    run = ClusterRun(generations={"max": 30, "patience": 30})
    for _ in range(25):
        run.generation(candidate=0.3, parent=0.4)
    api.put(run.object())
    page = perseid("describe", "small").stdout
    assert "Generations 0 to 15 are no longer in the status" in page
    assert "small-6f2c1f3e-history-0" in page


def test_a_watch_tells_each_change_once_and_ends_with_the_named_run(api: StandInApi, perseid: Perseid) -> None:
    run = ClusterRun(generations={"max": 2})
    api.put(run.object())
    seen = run.running(synthesize=StageState.RUNNING).object()
    api.watches = [
        [
            lambda: api.put(seen),
            lambda: api.put(seen),  # a write that changes nothing to be seen
            lambda: api.put(ClusterRun("bystander").object()),
            lambda: api.put(run.running(synthesize=StageState.SUCCEEDED, convert=StageState.RUNNING).object()),
            lambda: api.delete("lab", "small"),
        ]
    ]
    result = perseid("get", "small", "--watch", "-o", "json")
    assert result.exit_code == exits.OK, result.output
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["phase"], one.get("stage")) for one in told] == [
        ("Pending", ""),
        ("Running", "synthesize"),
        ("Running", "convert"),
        ("Deleted", None),
    ]


def test_a_watch_goes_on_after_the_api_server_has_ended_it(
    api: StandInApi, perseid: Perseid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perseid_operator.cli.listing.BRIEF_WATCH_SECONDS", 0.01)
    run = ClusterRun()
    api.put(run.object())
    api.watches = [
        [None],  # the version is too old
        [],  # the stream just ends
        [lambda: api.put(run.running().object()), lambda: api.delete("lab", "small")],
    ]
    result = perseid("get", "small", "-w")
    assert result.exit_code == exits.OK, result.output
    first, second, third = result.stdout.splitlines()
    assert first.startswith("lab/small  Pending")
    assert second.startswith("lab/small  Running")
    assert third == "lab/small  Deleted"
    assert api.asked.count(("watch", "evolutionruns", "lab")) == 3


def test_a_watch_of_all_runs_tells_of_one_that_went_away_between_two_watches(
    api: StandInApi, perseid: Perseid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perseid_operator.cli.listing.BRIEF_WATCH_SECONDS", 0.01)
    api.put(ClusterRun("short-lived").object())
    lists = 0

    def before(verb: str, resource: str) -> None:
        nonlocal lists
        lists += verb == "list"
        if verb == "list" and lists == 2:
            api.delete("lab", "short-lived")
        if verb == "list" and lists == 3:
            api.answers["list", "evolutionruns"] = (503, "down")  # which ends the command

    api.before = before
    result = perseid("get", "-w")
    assert result.stdout.splitlines()[1] == "lab/short-lived  Deleted"
    assert result.exit_code == exits.MISTAKE
    assert "answered 503" in result.stderr
