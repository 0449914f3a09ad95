"""Fast tests come first: what is broken should be known in seconds, not after the engines have started.

With several processes a file's tests stay in one, since they share what their fixtures start (`--dist loadfile`): so
files that have only fast tests come before all others.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import hypothesis
import pytest

hypothesis.settings.register_profile("perseid", deadline=None)  # a test asserts nothing about time
hypothesis.settings.load_profile("perseid")

pytest_plugins = ["cluster_fixtures"]


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell has started us in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files_with_slow_tests = {item.path for item in items if _is_slow(item)}
    items.sort(key=lambda item: (item.path in files_with_slow_tests, _is_slow(item)))


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Commands that run in a test's process set handlers as if it were their own."""
    handlers = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    yield
    for sign, handler in handlers.items():
        signal.signal(sign, handler)
