"""Rules on updates: what of a spec is fixed, by `perseid.api.identity.MAY_CHANGE`, and what may only grow."""

from __future__ import annotations

from collections.abc import Mapping

from perseid.api.identity import MAY_CHANGE
from perseid_operator.crd.errors import CrdError
from perseid_operator.crd.rules import Rule
from perseid_operator.crd.schema import Path, Schema, cel_name, cel_text, child, spell

_SPEC: Path = ("spec",)
_MAY_ONLY_GROW: Path = ("spec", "generations", "max")
"""Below what was done already it would mean nothing; that a run ends early has other fields."""
_WHY = (
    "Generations made under different settings cannot be compared: create another EvolutionRun for the new value. What"
    " holds, bounds and ends a run may change."
)


def add_immutability(spec: Schema) -> None:
    """Write the rules into the schema of the spec. Raises CrdError where MAY_CHANGE names a field that is not there."""
    may_change: set[Path] = {tuple(str(part) for part in path) for path in MAY_CHANGE}
    absent = sorted(spell(path) for path in {*may_change, _MAY_ONLY_GROW} if child(spec, path[1:]) is None)
    if absent:
        raise CrdError([f"{path} may change or grow, but the spec has no such field" for path in absent])
    _fix(spec, _SPEC, may_change)
    if _MAY_ONLY_GROW in may_change:
        node = child(spec, _MAY_ONLY_GROW[1:])
        assert node is not None
        message = (
            f"{spell(_MAY_ONLY_GROW)} can only grow. To end the run early, set spec.suspend or delete the EvolutionRun."
        )
        _append(node, Rule("self >= oldSelf", message, cause="FieldValueForbidden"))


def _fix(node: Schema, path: Path, may_change: set[Path]) -> None:
    """One rule for a section, whose answer names what was changed in it; deeper only where it must be.

    Not one rule for each field: the API server asks every rule at every write, also of the status, and the sixty that
    there were made a status write a tenth dearer.
    """
    fixed: dict[str, str] = {}
    for name, part in node["properties"].items():
        at = (*path, name)
        if at in may_change:
            continue
        changes_inside = any(changing[: len(at)] == at for changing in may_change)
        is_section = path == _SPEC and "properties" in part and "default" in part
        if changes_inside or is_section:
            if "default" not in part:
                # Rules on parts are not asked when the whole comes or goes.
                fixed[name] = f"has(self.{cel_name(name)}) == has(oldSelf.{cel_name(name)})"
            _fix(part, at, may_change)
        elif "x-kubernetes-preserve-unknown-fields" in part:
            raise CrdError([f"{spell(at)} has no type, so no rule can compare it: move it into an object"])
        else:
            fixed[name] = _same(cel_name(name), always="default" in part)
    if fixed:
        whole = len(fixed) == len(node["properties"])
        _append(node, _rule(path, fixed, whole=whole))


def _same(field: str, *, always: bool) -> str:
    equal = f"self.{field} == oldSelf.{field}"
    return equal if always else f"has(self.{field}) ? has(oldSelf.{field}) && {equal} : !has(oldSelf.{field})"


def _rule(path: Path, fixed: Mapping[str, str], *, whole: bool) -> Rule:
    """`fixed`: for each field the condition that it has not changed; `whole`: whether these are all fields."""
    expression = "self == oldSelf" if whole else " && ".join(f"({same})" for same in fixed.values())
    # Strung together, not made from a list: what a list could cost is more than the API server allows.
    said = [f"(({same}) ? '' : {cel_text(f'{spell((*path, name))} is fixed. ')})" for name, same in fixed.items()]
    return Rule(expression, " + ".join([*said, cel_text(_WHY)]), cause="FieldValueForbidden", computed=True)


def _append(node: Schema, rule: Rule) -> None:
    node.setdefault("x-kubernetes-validations", []).append(rule.as_schema())
