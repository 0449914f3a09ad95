"""Why no CustomResourceDefinition can be made of the models."""

from __future__ import annotations

from collections.abc import Sequence


class CrdError(Exception):
    """The models say something that a CRD cannot say, or leave out something that it needs. One line per field."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
