"""Write the question pack, "units of measurement": its questions, their splits, and the mentor's recorded answers.

The pack's files are committed; this program is how they came to be, and gives the same bytes each time. What it writes
is checked by `perseid.data.question_pack_check`, which computes every answer anew from the question's own words.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perseid.data.jsonl import write_jsonl
from perseid.data.records import Check, ChoiceCheck, NumberCheck, PatternCheck, Question, Record

FIELD = "units of measurement"
SEED = 20
Split = Literal["train", "dev", "test"]
SPLIT_CYCLE: tuple[Split, ...] = ("train", "dev", "train", "test", "train")
"""Families of one kind go round: 60, 20 and 20 of a hundred."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit that prefixes go with."""

    name: str
    symbol: str
    quantity: str
    plural: str = ""

    @property
    def many(self) -> str:
        """Its plural."""
        return self.plural or f"{self.name}s"


@dataclass(frozen=True, slots=True)
class Prefix:
    """A metric prefix; `factor` units of the smaller kind make one of the larger."""

    name: str
    symbol: str
    factor: int
    larger: bool
    """The prefixed unit is larger than the plain one."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two units of everyday life, of which `factor` of the smaller make one of the larger."""

    larger: str
    smaller: str
    smaller_many: str
    factor: int
    quantity: str
    larger_many: str = ""

    @property
    def many(self) -> str:
        """Plural of the larger."""
        return self.larger_many or f"{self.larger}s"


METRE, GRAM, LITRE = Unit("metre", "m", "length"), Unit("gram", "g", "mass"), Unit("litre", "l", "volume")
SECOND, WATT, VOLT = Unit("second", "s", "time"), Unit("watt", "W", "power"), Unit("volt", "V", "voltage")
HERTZ = Unit("hertz", "Hz", "frequency", "hertz")
PASCAL, NEWTON = Unit("pascal", "Pa", "pressure"), Unit("newton", "N", "force")
JOULE, AMPERE = Unit("joule", "J", "energy"), Unit("ampere", "A", "electric current")

KILO, HECTO, MEGA = Prefix("kilo", "k", 1000, True), Prefix("hecto", "h", 100, True), Prefix("mega", "M", 10**6, True)
DECI, CENTI, MILLI = Prefix("deci", "d", 10, False), Prefix("centi", "c", 100, False), Prefix("milli", "m", 1000, False)

PREFIXED: tuple[tuple[Prefix, tuple[Unit, ...]], ...] = (
    (KILO, (METRE, VOLT, GRAM, WATT, HERTZ, PASCAL, NEWTON, JOULE, AMPERE, LITRE)),
    (MILLI, (METRE, GRAM, LITRE, SECOND, VOLT, WATT, AMPERE, NEWTON, PASCAL, JOULE)),
    (CENTI, (METRE, LITRE, GRAM)),
    (DECI, (LITRE, METRE)),
    (HECTO, (LITRE, PASCAL)),
    (MEGA, (WATT, HERTZ, JOULE, VOLT, PASCAL)),
)
QUANTITIES = tuple(sorted({unit.quantity for _, units in PREFIXED for unit in units}))

PAIRS = (
    Pair("minute", "second", "seconds", 60, "time"),
    Pair("week", "day", "days", 7, "time"),
    Pair("foot", "inch", "inches", 12, "length", "feet"),
    Pair("decade", "year", "years", 10, "time"),
    Pair("year", "month", "months", 12, "time"),
    Pair("tonne", "kilogram", "kilograms", 1000, "mass"),
    Pair("hour", "minute", "minutes", 60, "time"),
    Pair("yard", "foot", "feet", 3, "length"),
    Pair("century", "year", "years", 100, "time", "centuries"),
    Pair("pound", "ounce", "ounces", 16, "mass"),
    Pair("day", "hour", "hours", 24, "time"),
    Pair("millennium", "year", "years", 1000, "time", "millennia"),
)


class MentorAnswer(Record):
    """A line of the recorded mentor's file."""

    kind: Literal["mentor-answer"] = "mentor-answer"
    subject: str
    answer: str


@dataclass(frozen=True, slots=True)
class Item:
    """A question with the mentor's words before the last line, and what stands in that line."""

    question: Question
    reasoning: str
    final: str

    @property
    def recorded(self) -> MentorAnswer:
        """The mentor's answer."""
        return MentorAnswer(subject=self.question.id, answer=f"{self.reasoning}\nAnswer: {self.final}")


def items() -> Iterator[tuple[Split, Item]]:
    """All items with their splits, family by family."""
    draw = random.Random(SEED)
    family_number = 0
    for prefix, units in PREFIXED:
        for unit in units:
            split = SPLIT_CYCLE[family_number % len(SPLIT_CYCLE)]
            family_number += 1
            for item in prefixed_items(prefix, unit, draw):
                yield split, item
    for pair in PAIRS:
        split = SPLIT_CYCLE[family_number % len(SPLIT_CYCLE)]
        family_number += 1
        for item in pair_items(pair, draw):
            yield split, item


def prefixed_items(prefix: Prefix, unit: Unit, draw: random.Random) -> Iterator[Item]:
    """Five questions about, say, the kilovolt."""
    name = f"{prefix.name}{unit.name}"
    many = f"{prefix.name}{unit.many}"
    family = name
    large, large_many = (name, many) if prefix.larger else (unit.name, unit.many)
    small_many = unit.many if prefix.larger else many
    rule = f"1 {large} is {prefix.factor} {small_many}"
    first, second = draw.sample(range(2, 10), 2)
    yield number(family, "a", f"How many {small_many} are {first} {large_many}?", first, prefix.factor, rule,
                 large_many, small_many)  # fmt: skip
    yield number(family, "b", f"Convert {second} {large_many} to {small_many}.", second, prefix.factor, rule,
                 large_many, small_many)  # fmt: skip
    symbol = prefix.symbol + unit.symbol
    # Case matters: MV is not mV. A litre is l or L.
    pattern = prefix.symbol + unit.symbol.replace("l", "[lL]")
    yield item(
        family, "symbol", f"What is the symbol of the unit {name}?", PatternCheck(pattern=rf"(?-i:\b{pattern}\b)"),
        f"The symbol of {prefix.name} is {prefix.symbol} and the symbol of {unit.name} is {unit.symbol}. "
        f"Together they are {symbol}.", symbol,
    )  # fmt: skip
    yield from common(family, name, many, unit.name, unit.quantity, prefix.larger, rule, draw)


def pair_items(pair: Pair, draw: random.Random) -> Iterator[Item]:
    """Four questions about, say, the week and its days."""
    rule = f"1 {pair.larger} is {pair.factor} {pair.smaller_many}"
    first, second = draw.sample((2, 3, 4, 5, 10), 2)
    yield number(pair.larger, "a", f"How many {pair.smaller_many} are {first} {pair.many}?", first, pair.factor, rule,
                 pair.many, pair.smaller_many)  # fmt: skip
    yield number(pair.larger, "b", f"Convert {second} {pair.many} to {pair.smaller_many}.", second, pair.factor, rule,
                 pair.many, pair.smaller_many)  # fmt: skip
    yield from common(pair.larger, pair.larger, pair.many, pair.smaller, pair.quantity, True, rule, draw)


def number(
    family: str, suffix: str, title: str, count: int, factor: int, rule: str, large_many: str, small_many: str
) -> Item:
    """A conversion from the larger unit to the smaller."""
    value = count * factor
    reasoning = f"{rule}. So {count} {large_many} are {count} * {factor} = {value} {small_many}."
    return item(family, suffix, title, NumberCheck(value=value), reasoning, str(value))


def common(
    family: str, name: str, many: str, other: str, quantity: str, larger: bool, rule: str, draw: random.Random
) -> Iterator[Item]:
    """Which of two units is larger, and what they measure."""
    word = "larger" if larger else "smaller"
    yield item(
        family, "size", f"Is {a(name)} larger or smaller than {a(other)}?",
        ChoiceCheck(options=("larger", "smaller"), answer=word),
        f"{rule}. So {a(name)} is {word} than {a(other)}.", word,
    )  # fmt: skip
    # Force is no wrong answer for mass: pounds are used for both, and everyday speech weighs in kilograms.
    unfit = {quantity} | ({"force", "mass"} if quantity in {"force", "mass"} else set())
    options = [quantity, *draw.sample([each for each in QUANTITIES if each not in unfit], 2)]
    draw.shuffle(options)
    yield item(
        family, "quantity", f"What do we measure in {many}: {options[0]}, {options[1]} or {options[2]}?",
        ChoiceCheck(options=tuple(options), answer=quantity),
        f"{a(name).capitalize()} is a unit of {quantity}.", quantity,
    )  # fmt: skip


def item(family: str, suffix: str, title: str, check: Check, reasoning: str, final: str) -> Item:
    """One item of the pack."""
    question = Question(
        id=f"units/{family}/{suffix}", title=title, field=FIELD, answer=final, check=check, family=f"units/{family}"
    )
    return Item(question, reasoning, final)


def a(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' or noun == 'hour' else 'a'} {noun}"


def main() -> None:
    """Write the four files."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("directory", type=Path, help="where the four files go")
    directory: Path = arguments.parse_args().directory
    everything = list(items())
    for split in ("train", "dev", "test"):
        write_jsonl(directory / f"{split}.jsonl", (each.question for where, each in everything if where == split))
    write_jsonl(directory / "mentor.jsonl", (each.recorded for where, each in everything if where == "train"))
    print(json.dumps({split: sum(where == split for where, _ in everything) for split in ("train", "dev", "test")}))


if __name__ == "__main__":
    main()
