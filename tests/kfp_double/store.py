"""What survives the double's death: experiments, rows of runs, Workflows, and what is due when.

A Workflow and its row are two commits, in this order, as in the real one: there is no roll-back between them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS experiments (
  experiment_id TEXT PRIMARY KEY COLLATE NOCASE, display_name TEXT UNIQUE COLLATE NOCASE, description TEXT,
  created_at REAL, storage_state TEXT, last_run_created_at REAL, namespace TEXT);
CREATE TABLE IF NOT EXISTS runs (
  run_id TEXT PRIMARY KEY COLLATE NOCASE, experiment_id TEXT, display_name TEXT, description TEXT, storage_state TEXT,
  service_account TEXT, pipeline_spec TEXT, runtime_config TEXT, created_at REAL, scheduled_at REAL, finished_at REAL,
  state TEXT, history TEXT, tasks TEXT, workflow TEXT, reported INTEGER DEFAULT 0, hide_state INTEGER DEFAULT 0,
  number INTEGER);
CREATE TABLE IF NOT EXISTS workflows (
  name TEXT PRIMARY KEY, run_id TEXT COLLATE NOCASE, phase TEXT, created_at REAL, started_at REAL, finished_at REAL,
  deadline REAL, deleted INTEGER DEFAULT 0, script TEXT, tasks TEXT, parameters TEXT, message TEXT);
CREATE INDEX IF NOT EXISTS workflows_of_a_run ON workflows (run_id);
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, kind TEXT, workflow TEXT, held INTEGER DEFAULT 0, payload TEXT);
CREATE INDEX IF NOT EXISTS events_in_order ON events (held, at, seq);
CREATE TABLE IF NOT EXISTS counters (
  name TEXT, run_id TEXT COLLATE NOCASE, value INTEGER, PRIMARY KEY (name, run_id));
"""
_JSON = frozenset({"pipeline_spec", "runtime_config", "history", "tasks", "script", "parameters", "payload"})


class DuplicateError(Exception):
    """A primary key is taken."""


class Store:
    """Tables as dicts. Every change is committed before the call returns."""

    def __init__(self, directory: Path | None) -> None:
        """In memory where there is no directory."""
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(
            ":memory:" if directory is None else directory / "kfp.sqlite", isolation_level=None, check_same_thread=False
        )
        self._database.row_factory = sqlite3.Row
        # A SIGKILL of the process loses nothing of what the kernel has; only a crash of the machine would.
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        self._database.close()

    def insert(self, table: str, **values: Any) -> None:
        """Raises DuplicateError."""
        columns, marks = ", ".join(values), ", ".join("?" * len(values))
        try:
            self._database.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", _encode(values))
        except sqlite3.IntegrityError as error:
            raise DuplicateError(str(error)) from None

    def update(self, table: str, key: dict[str, Any], **values: Any) -> None:
        assignments = ", ".join(f"{name} = ?" for name in values)
        self._database.execute(
            f"UPDATE {table} SET {assignments} WHERE {_where(key)}", [*_encode(values), *_encode(key)]
        )

    def delete(self, table: str, **key: Any) -> None:
        self._database.execute(f"DELETE FROM {table} WHERE {_where(key)}", _encode(key))

    def get(self, table: str, **key: Any) -> dict[str, Any] | None:
        return next(self.select(table, **key), None)

    def select(self, table: str, order: str = "rowid", **key: Any) -> Iterator[dict[str, Any]]:
        return (decode(row) for row in self.select_encoded(table, order, **key))

    def select_encoded(self, table: str, order: str = "rowid", **key: Any) -> list[dict[str, Any]]:
        """Rows with their JSON as text, for whoever throws most of them away: `decode` makes them whole."""
        where = f"WHERE {_where(key)}" if key else ""
        found = self._database.execute(f"SELECT * FROM {table} {where} ORDER BY {order}", _encode(key))
        return [dict(row) for row in found.fetchall()]

    def next_event(self, until: float) -> dict[str, Any] | None:
        """Take the first event that is due."""
        row = self._database.execute(
            "SELECT * FROM events WHERE held = 0 AND at <= ? ORDER BY at, seq LIMIT 1", [until]
        ).fetchone()
        return None if row is None else decode(dict(row))

    def release_events(self, at: float, kinds: tuple[str, ...]) -> None:
        """Events that were held are due, at the earliest then."""
        marks = ", ".join("?" * len(kinds))
        self._database.execute(
            f"UPDATE events SET held = 0, at = MAX(at, ?) WHERE held = 1 AND kind IN ({marks})", [at, *kinds]
        )

    def count(self, name: str, run_id: str = "", by: int = 1) -> None:
        self._database.execute(
            "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT (name, run_id) DO UPDATE SET value = value + ?",
            [name, run_id, by, by],
        )

    def raise_counter(self, name: str, run_id: str, value: int) -> None:
        """Keep the greatest value."""
        self._database.execute(
            "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT (name, run_id) DO UPDATE SET value = MAX(value, ?)",
            [name, run_id, value, value],
        )

    def counter(self, name: str) -> dict[str, int]:
        return {row["run_id"]: row["value"] for row in self.select("counters", name=name)}


def _where(key: dict[str, Any]) -> str:
    return " AND ".join(f"{name} = ?" for name in key)


def _encode(values: dict[str, Any]) -> list[Any]:
    return [json.dumps(value) if name in _JSON else value for name, value in values.items()]


def decode(row: dict[str, Any]) -> dict[str, Any]:
    return {name: json.loads(value) if name in _JSON and value is not None else value for name, value in row.items()}
