"""What is generated in charts/perseid is up to date, and the generator says what is wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chart_helm import CHART, REPOSITORY

sys.path.append(str(REPOSITORY / "scripts"))

import chart as generator
from chart import Value, ValuesError, values

GENERATOR = REPOSITORY / "scripts" / "chart.py"


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A chart of the test's own, made from the manifests."""
    own = tmp_path / "charts" / "perseid"
    shutil.copytree(CHART, own)
    monkeypatch.setattr(generator, "CHART", own)
    return own


def test_copies_and_readme_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, GENERATOR, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_change_in_manifests_or_values_makes_it_stale(copy: Path) -> None:
    assert generator.stale() == []
    for name in ("files/manifests/base/role.yaml", "values.yaml", "Chart.yaml"):
        path = copy / name
        before = path.read_text(encoding="utf-8")
        path.write_text(before.replace("operator", "worker"), encoding="utf-8")
        assert len(generator.stale()) == 1, name
        path.write_text(before, encoding="utf-8")


def test_a_copy_that_is_missing_or_that_nobody_asked_for_is_stale(copy: Path) -> None:
    copies = copy / "files" / "manifests"
    copies.joinpath("base", "crd.yaml").unlink()
    copies.joinpath("base", "more.yaml").touch()
    assert [path.name for path in generator.stale()] == ["crd.yaml", "more.yaml"]


def test_a_row_is_made_of_the_whole_comment_and_a_mapping_with_one_is_a_row_of_its_own() -> None:
    text = """
# No row.

# -- First line,
# second line.
one: 1
group:
  # -- A list.
  two: [2]
  # -- All of it.
  three:
    four: 4
"""
    assert values(text) == [
        Value("one", 1, "First line, second line."),
        Value("group.two", [2], "A list."),
        Value("group.three", {"four": 4}, "All of it."),
    ]


def test_a_value_that_no_comment_describes_is_an_error_that_names_it() -> None:
    with pytest.raises(ValuesError, match=r"no .* above group.two, three"):
        values("# -- One.\none: 1\ngroup:\n  two: 2\n# a comment, but no description\nthree: {}\n")


def test_the_readme_has_a_row_for_every_value_and_a_first_run() -> None:
    text = (CHART / "README.md").read_text(encoding="utf-8")
    for value in values((CHART / "values.yaml").read_text(encoding="utf-8")):
        assert f"| `{value.path}` |" in text
    assert "kind: EvolutionRun" in text
