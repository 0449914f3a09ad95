"""Every call of the client, and how the double calls the request that it makes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from kfp_samples import new_id, run_request

from perseid_operator.kfp import KfpClient

Call = Callable[[KfpClient], Awaitable[object]]
ID = new_id()
CALLS: dict[str, Call] = {
    "check": lambda kfp: kfp.check(),
    "list_experiments": lambda kfp: kfp.ensure_experiment("name", ""),
    "create_run": lambda kfp: kfp.create_run(run_request(ID)),
    "get_run": lambda kfp: kfp.get_run(ID),
    "list_runs": lambda kfp: kfp.list_runs([ID]),
    "terminate_run": lambda kfp: kfp.terminate(ID),
    "delete_run": lambda kfp: kfp.delete(ID),
}


async def archive(kfp: KfpClient, run_id: str) -> None:
    """What people do in KFP's own UI: the operator archives nothing, and must see what they have archived."""
    answer = await kfp._transport.send("archive_run", "POST", f"/runs/{run_id}:archive")
    assert answer.status == 200


SERVED_AS = {"check": "list_experiments"}
every_call = pytest.mark.parametrize("name", CALLS)
every_read = pytest.mark.parametrize("name", [name for name in CALLS if name != "create_run"])
