from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perseid.decide import SUBMIT_SECONDS
from perseid_operator.kube.protocol import ForbiddenError, Object
from perseid_operator.submission import Doubts, Grace, Workflows

START = datetime(2026, 1, 1, tzinfo=UTC)
RUN = "run"


class Cluster:
    """As much of `Kube` as doubts ask."""

    def __init__(self, visible: bool) -> None:
        self.visible = visible

    async def workflows(self, run_id: str) -> list[Object]:
        if not self.visible:
            raise ForbiddenError("no")
        return []


@pytest.mark.parametrize(("visible", "grace"), [(True, 60.0), (False, 600.0)])
async def test_what_kfp_said_before_the_grace_time_was_over_proves_nothing_however_late_it_is_read(
    visible: bool, grace: float
) -> None:
    """KFP may have finished the creation after it said 404, and have been out of reach ever since."""
    now = START
    kube: Any = Cluster(visible)
    doubts = Doubts(Grace(600, 60), Workflows(kube, allowed=None), lambda: now)
    doubts.intended(RUN)
    doubts.sending(RUN)
    now = START + timedelta(hours=1)
    assert not await doubts.certainly_absent(RUN, START, asked_at=START + timedelta(seconds=grace - 1))
    assert await doubts.certainly_absent(RUN, START, asked_at=START + timedelta(seconds=grace))


async def test_an_intent_that_somebody_else_wrote_may_have_been_acted_on_until_its_time_was_up() -> None:
    kube: Any = Cluster(visible=False)
    doubts = Doubts(Grace(600, 60), Workflows(kube, allowed=None), lambda: START)
    until = START + timedelta(seconds=SUBMIT_SECONDS + 600)
    assert not await doubts.certainly_absent(RUN, START, asked_at=until - timedelta(seconds=1))
    assert await doubts.certainly_absent(RUN, START, asked_at=until)


async def test_a_run_that_was_not_sent_yet_or_has_been_seen_needs_no_grace() -> None:
    kube: Any = Cluster(visible=False)
    doubts = Doubts(Grace(600, 60), Workflows(kube, allowed=None), lambda: START)
    doubts.intended(RUN)
    assert await doubts.certainly_absent(RUN, START, asked_at=START)
    doubts.sending(RUN)
    assert not await doubts.certainly_absent(RUN, START, asked_at=START)
    doubts.seen(RUN)
    assert await doubts.certainly_absent(RUN, START, asked_at=START)
    assert doubts.was_seen(RUN)
