"""The CustomResourceDefinition as YAML: the same text for the same models, so that a diff shows what changed."""

from __future__ import annotations

import io
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

COMMAND = "python -m perseid_operator.crd"
_HEADER = f"""\
# The CustomResourceDefinition of EvolutionRun. Generated from the models in perseid.api by
#     {COMMAND}
# Do not edit: change the models, and run that command again.
"""
_NO_TEXT_IN_YAML_1_1 = re.compile(r"(?i:yes|no|on|off|y|n|true|false|null|~)|[-+.0-9].*")


class _Representer(RoundTripRepresenter):
    """Numbers that YAML 1.1 takes for numbers too: `1e-05` is a text there, and `1.0e-05` is none."""

    def represent_float(self, data: float) -> ScalarNode:
        text = repr(data)
        text = text.replace("e", ".0e") if "e" in text and "." not in text else text
        return self.represent_scalar("tag:yaml.org,2002:float", text)


_Representer.add_representer(float, _Representer.represent_float)


def crd_text(definition: dict[str, Any]) -> str:
    """The definition as YAML, with a line that says where it comes from."""
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    buffer = io.StringIO()
    yaml.dump(_quoted(definition), buffer)
    return _HEADER + buffer.getvalue()


def _quoted(value: Any) -> Any:
    """Quotes around texts that kubectl, which reads YAML 1.1, could take for something else. Shares nothing, so that
    no anchors are written."""
    if isinstance(value, dict):
        return {_quoted(key): _quoted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    if isinstance(value, str) and _NO_TEXT_IN_YAML_1_1.fullmatch(value):
        return DoubleQuotedScalarString(value)
    return value
