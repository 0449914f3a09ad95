"""What the chart renders to for each set of values, as it is kept in golden/: read the difference of a change there.

    python tests/chart/chart_goldens.py    # write anew; `make chart-goldens`

What the chart takes from manifests/ as it is stands there as a note: other tests compare it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.append(str(Path(__file__).parents[1] / "cluster"))  # As pytest does.

from chart_helm import objects_of, value_sets

GOLDEN = Path(__file__).with_name("golden")
SAME = "(the same as in manifests)"


def golden(name: str) -> str:
    """What a set of values is rendered to, in Helm's order."""
    objects = [_without_copies(each) for each in objects_of(name)]
    return yaml.safe_dump_all(objects, sort_keys=False, width=120)


def _without_copies(each: dict[str, Any]) -> dict[str, Any]:
    if each["kind"] in ("CustomResourceDefinition", "PrometheusRule"):
        return {**each, "spec": SAME}
    if each["metadata"]["name"] in ("perseid-operator-dashboard", "perseid-operator-test") and "data" in each:
        return {**each, "data": dict.fromkeys(each["data"], SAME)}
    return each


def main() -> None:
    """Write all of them."""
    for name in value_sets():
        (GOLDEN / f"{name}.yaml").write_text(golden(name), encoding="utf-8")


if __name__ == "__main__":
    main()
