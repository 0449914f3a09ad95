"""Fast tests come first: what is broken should be known in seconds, not after the engines have started."""

from __future__ import annotations

import pytest

pytest_plugins = ["cluster_fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
