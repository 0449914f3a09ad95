"""What the chart renders to is what was last looked at."""

from __future__ import annotations

import pytest
from chart_goldens import GOLDEN, golden
from chart_helm import value_sets


@pytest.mark.parametrize("name", value_sets())
def test_a_set_of_values_is_rendered_as_it_was_last_time(name: str) -> None:
    kept = (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")
    assert golden(name) == kept, "read the difference; where it is meant, `make chart-goldens` keeps it"


def test_there_is_no_golden_without_values() -> None:
    assert sorted(path.stem for path in GOLDEN.iterdir()) == value_sets()
