"""A status that an older version wrote can be read by this one: its fields only grow."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from status_fields import Fields, differences, status_fields

STORED = Path(__file__).with_name("status_fields.json")


@pytest.fixture
def stored() -> Fields:
    return json.loads(STORED.read_text())


def test_whatever_stands_in_old_statuses_is_still_read_and_kept(stored: Fields) -> None:
    found = differences(stored, status_fields())
    assert not found, (
        "clusters hold statuses that this version could not read; convert them where they are read"
        " (perseid_operator.objects.read_status), and then write the fields down anew by"
        f" `python tests/api/status_fields.py > {STORED.relative_to(Path(__file__).parents[2])}`:\n" + "\n".join(found)
    )


def test_the_fields_that_are_written_down_are_all_there_are(stored: Fields) -> None:
    unknown = sorted(status_fields().keys() - stored.keys())
    assert not unknown, (
        f"write them down by `python tests/api/status_fields.py > tests/api/status_fields.json`: {unknown}"
    )


def remove(path: str) -> Callable[[Fields], None]:
    return lambda fields: fields.pop(path)  # type: ignore[return-value]


def change(path: str, **facts: Any) -> Callable[[Fields], None]:
    return lambda fields: fields[path].update(facts)


def rename(path: str, other: str) -> Callable[[Fields], None]:
    def renamed(fields: Fields) -> None:
        fields[other] = fields.pop(path)

    return renamed


def add(path: str, **facts: Any) -> Callable[[Fields], None]:
    return lambda fields: fields.update({path: {"required": False, "nullable": False, **facts}})


def drop_value(path: str, value: str) -> Callable[[Fields], None]:
    return lambda fields: fields[path]["enum"].remove(value)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (remove("promotedScore"), "promotedScore is gone"),
        (rename("current.runId", "current.pipelineRunId"), "current.runId is gone"),
        (remove("generations[].attempts[].charged"), "generations[].attempts[].charged is gone"),
        (change("patienceUsed", type="string"), "type was integer, and is string"),
        (drop_value("conditions[].reason", "RunLost"), "RunLost can no longer be read"),
        (drop_value("current.stages{name}", "convert"), "convert can no longer be read"),
        (change("generations", maxItems=10), "maxItems was 20, and is 10"),
        (change("generations[].attempts[].message", maxLength=100), "maxLength was 512, and is 100"),
        (change("suspendedSeconds", minimum=1), "minimum was 0, and is 1"),
        (change("usage.cost", required=True), "usage.cost: is required now"),
        (change("current", nullable=False), "current: may not be null any more"),
        (change("uid", pattern="^[0-9]+$"), "uid: pattern was"),
        (change("specDigest", pattern="^sha256:"), "specDigest: pattern was None"),
        (add("lineage", required=True), "lineage is new and required"),
        (add("current.lineage", required=True), "current.lineage is new and required"),
    ],
)
def test_what_old_statuses_could_not_be_read_by_is_found(
    stored: Fields, mistake: Callable[[Fields], None], words: str
) -> None:
    changed = copy.deepcopy(stored)
    mistake(changed)
    assert any(words in difference for difference in differences(stored, changed))


def several(*changes: Callable[[Fields], None]) -> Callable[[Fields], None]:
    def all_of_them(fields: Fields) -> None:
        for one in changes:
            one(fields)

    return all_of_them


@pytest.mark.parametrize(
    "growth",
    [
        add("lineage"),
        several(add("lineage"), add("lineage.root", required=True), add("lineage.kin[]", required=True)),
        change("generations", maxItems=40),
        change("uid", required=False),
        lambda fields: fields["conditions[].reason"]["enum"].append("AwaitingStars"),
        lambda fields: fields["uid"].pop("pattern"),
    ],
    ids=["a field", "a part", "more of it", "less is required", "another value", "fewer rules"],
)
def test_a_status_may_grow(stored: Fields, growth: Callable[[Fields], None]) -> None:
    changed = copy.deepcopy(stored)
    growth(changed)
    assert changed != stored
    assert differences(stored, changed) == []
