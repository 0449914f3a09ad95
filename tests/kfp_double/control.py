"""The control interface over HTTP: POST /double/METHOD with the method's arguments as JSON, GET /double/state."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from aiohttp import web

from kfp_double.failures import Failure
from kfp_double.parts import Script

if TYPE_CHECKING:
    from kfp_double.double import KfpDouble

METHODS = frozenset(
    {
        "answer_next",
        "collect_garbage",
        "come_up",
        "delay_next",
        "drop_next_create",
        "fail_next",
        "finish_run",
        "go_down",
        "hide_state",
        "hold_pending",
        "limit_pages",
        "lose_workflow",
        "revive_run",
        "script",
        "set_agent",
        "set_controller",
        "set_database",
        "set_kubernetes",
        "start_run",
    }
)


def add_control_routes(app: web.Application, double: KfpDouble) -> None:
    """Add the routes to the double's application."""

    async def call(request: web.Request) -> web.Response:
        name = request.match_info["method"]
        if name not in METHODS:
            raise web.HTTPNotFound(text=f"no such method; there are {', '.join(sorted(METHODS))}")
        arguments: dict[str, Any] = await request.json() if request.can_read_body else {}
        if name == "script":
            arguments = {"script_for": Script(**arguments)}
        try:
            answer = getattr(double, name)(**arguments)
            if inspect.isawaitable(answer):
                await answer
        except (TypeError, ValueError) as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        except Failure as failure:
            raise web.HTTPBadRequest(text=failure.text) from None
        return web.json_response(double.describe())

    async def state(request: web.Request) -> web.Response:
        await double.settle()
        return web.json_response(double.describe())

    app.router.add_post("/double/{method}", call)
    app.router.add_get("/double/state", state)
