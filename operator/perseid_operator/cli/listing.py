"""`perseid get`: runs as a table or as JSON, once or for as long as somebody watches."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from perseid_operator.cli.access import Access
from perseid_operator.cli.errors import WatchEndedError
from perseid_operator.cli.runs import SeenRun, seen_run
from perseid_operator.cli.tables import links, run_line, runs_table

BRIEF_WATCH_SECONDS = 1.0
"""A watch that ends sooner is not begun again at once: something is wrong with the API server."""
Key = tuple[str, str]


class Listing:
    """Runs of a namespace, or of all (None), or the one of a name."""

    def __init__(
        self,
        access: Access,
        namespace: str | None,
        name: str | None,
        console: Console,
        output: Literal["table", "json"],
    ) -> None:
        self._access = access
        self._namespace = namespace
        self._name = name
        self._console = console
        self._json = output == "json"
        self._shown: dict[Key, str] = {}

    async def show(self) -> None:
        """Print what is there now."""
        runs, _ = await self._now()
        if self._json:
            self._print(json.dumps([one.row() for one in runs], indent=2))
        elif runs:
            self._console.print(self._table(runs))
            for link in links(runs):
                self._console.print(link, soft_wrap=True)
        else:
            where = "any namespace" if self._namespace is None else f"namespace {self._namespace}"
            Console(stderr=True).print(
                f"There are no EvolutionRuns in {where} ({self._access.target.source}).",
                highlight=False,
                markup=False,
                emoji=False,
                soft_wrap=True,
            )

    async def watch(self) -> None:
        """Print what is there, and then every change; ends when a run that was named is deleted.

        A terminal shows one table that changes; anything else gets a line, or a JSON object on a line, per change.
        """
        if self._json or not self._console.is_terminal:
            await self._watch(None)
            return
        with Live(console=self._console, auto_refresh=False) as live:
            await self._watch(live)

    async def _watch(self, live: Live | None) -> None:
        while True:
            runs, version = await self._now()
            known = {(one.namespace, one.name): one for one in runs}
            for gone in [key for key in self._shown if key not in known]:
                self._tell_gone(gone, live)
            self._tell(known, live)
            begun = time.monotonic()
            try:
                async for event in self._access.changes(self._namespace, version, self._name):
                    one = seen_run(event["object"])
                    key = (one.namespace, one.name)
                    if event["type"] == "DELETED":
                        known.pop(key, None)
                        self._tell_gone(key, live)
                        if self._name is not None:
                            return
                    else:
                        known[key] = one
                    self._tell(known, live)
            except WatchEndedError:
                if time.monotonic() - begun < BRIEF_WATCH_SECONDS:
                    await asyncio.sleep(BRIEF_WATCH_SECONDS)

    async def _now(self) -> tuple[list[SeenRun], str]:
        if self._name is None:
            found, version = await self._access.runs(self._namespace)
            return [seen_run(one) for one in found], version
        assert self._namespace is not None  # a name is looked for in one namespace
        raw = await self._access.run(self._namespace, self._name)
        return [seen_run(raw)], str(raw["metadata"].get("resourceVersion", ""))

    def _table(self, runs: Sequence[SeenRun]) -> Table:
        every = self._namespace is None
        return runs_table(runs, datetime.now(UTC), namespaces=every, width=self._console.width)

    def _tell(self, known: dict[Key, SeenRun], live: Live | None) -> None:
        if live is not None:
            rows = [known[key] for key in sorted(known)]
            live.update(Group(self._table(rows), *links(rows)), refresh=True)
            return
        for key, one in sorted(known.items()):
            text = json.dumps(one.row()) if self._json else run_line(one)
            if self._shown.get(key) != text:
                self._shown[key] = text
                self._print(text)

    def _tell_gone(self, key: Key, live: Live | None) -> None:
        self._shown.pop(key, None)
        namespace, name = key
        if live is None:
            gone = {"namespace": namespace, "name": name, "phase": "Deleted"}
            self._print(json.dumps(gone) if self._json else f"{namespace}/{name}  Deleted")

    def _print(self, text: str) -> None:
        self._console.out(text, highlight=False)
