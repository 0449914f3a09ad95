"""Wrong run files, data and models, each with what its message must say: what is wrong, where, and what to do.

METEOR's own are in test_preflight_meteor.py, what needs a server in test_friendly_servers.py, what needs a limit or a
process in test_friendly_surroundings.py, and every way in which a field can be wrong in tests/api/test_load.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

HEAD = """\
apiVersion: perseid.dev/v1alpha1
kind: EvolutionRun
metadata:
  name: small
spec:
  engine: {type: transformers}
"""
FILES = """\
  problems:
    train: {source: jsonl, path: train.jsonl}
    dev: {source: jsonl, path: dev.jsonl, name: dev}
    test: []
"""
OF_FILES = HEAD + FILES
MBPP = OF_FILES.replace("{source: jsonl, path: train.jsonl}", "{source: mbpp, path: train.jsonl}")
QUESTIONS = """\
    questions:
      train: {source: jsonl, path: train.jsonl}
      dev: {source: jsonl, path: dev.jsonl, name: dev}
      test: []
"""
METEOR = HEAD + "  methods: [meteor]\n  meteor:\n    mentor: {type: recorded, path: answers.jsonl}\n" + QUESTIONS
MEND = "put that right, or give other problems there"
DIRECTORY = object()
"""In place of a file's content: there is a directory of its name."""


def problem(name: str, **more: object) -> str:
    tests = [f"assert {name}(1) == 1"]
    return json.dumps({"id": name, "statement": f"Write {name}.", "entry_point": name, "tests": tests, **more}) + "\n"


def question(identity: str, title: str, **more: object) -> str:
    return json.dumps({"id": identity, "title": title, "check": {"type": "number", "value": 8}, **more})


def mbpp_row(number: int, **more: object) -> str:
    row = {
        "task_id": number,
        "text": "Add one.",
        "code": "def f(x):\n  return x + 1",
        "test_list": ["assert f(1) == 2"],
    }
    return json.dumps(row | more) + "\n"


GOOD: dict[str, str | bytes] = {
    "train.jsonl": problem("same") + problem("itself"),
    "dev.jsonl": problem("unchanged"),
}


@dataclass(frozen=True)
class Wrong:
    """A run that must be refused."""

    says: tuple[str, ...]
    """All of what, where and what to do. `{dir}` is the directory of the run file."""
    run: str | bytes = OF_FILES
    files: Mapping[str, str | bytes | object | None] = field(default_factory=dict)
    """Instead of, or beside, the good ones. None: not there."""
    tiny_model: bool = False
    """`model/` is a whole model; `files` then damage it."""


def spec(text: str) -> str:
    return HEAD + text


RUN_FILES: dict[str, Wrong] = {
    "an unknown field": Wrong(
        ("run.yaml:7:3", "spec.sede", "no field sede", "Did you mean seed?"), spec("  sede: 1\n")
    ),
    "a field in the wrong place": Wrong(
        ("run.yaml:7:3", "spec.patience", "belongs to spec.generations"), spec("  patience: 2\n")
    ),
    "a text for a number": Wrong(
        ("run.yaml:7:9", "spec.seed", "expected a whole number, got the text 'ten'"), spec("  seed: ten\n")
    ),
    "a number in quotes": Wrong(("run.yaml:7:9", "spec.seed", "Remove the quotes: 10."), spec('  seed: "10"\n')),
    "a huge number": Wrong(
        ("run.yaml:7:9", "spec.seed", "expected a whole number, got the number 1e+308"), spec("  seed: 1e+308\n")
    ),
    "a number with too many digits": Wrong(
        ("run.yaml:7:9", "spec.seed", "is not a number"), spec(f"  seed: {'9' * 5000}\n")
    ),
    "a number below its range": Wrong(
        ("run.yaml:7:22", "spec.finetune.epochs", "must be above 0"), spec("  finetune: {epochs: -1}\n")
    ),
    "a choice of another name": Wrong(
        ("run.yaml:7:", "spec.synthesis.search.algorithm", "Did you mean mcts?"),
        spec("  synthesis: {search: {algorithm: mtcs}}\n"),
    ),
    "no value": Wrong(("run.yaml:7:3", "spec.model", "is empty", "Indent its fields under it"), spec("  model:\n")),
    "a list for a mapping": Wrong(("run.yaml:7:", "spec.model", "a mapping of fields"), spec("  model: [a, b]\n")),
    "a yes without quotes": Wrong(("run.yaml:7:12", "spec.suspend", "Write true."), spec("  suspend: yes\n")),
    "a tab": Wrong(
        ("run.yaml:7:1", "a tab stands where YAML needs spaces", "Indent with spaces."), spec("\tseed: 1\n")
    ),
    "a key twice": Wrong(
        ("run.yaml:8:3", "spec.seed", "given twice", "The first is on line 7."), spec("  seed: 1\n  seed: 2\n")
    ),
    "an anchor that nothing defines": Wrong(
        ("run.yaml:7:10", "undefined alias 'tiny'", "Define the anchor"), spec("  model: *tiny\n")
    ),
    "an alias of what contains it": Wrong(
        ("run.yaml:7:", "contains it", "Break the circle."), spec("  model: &m {ref: *m}\n")
    ),
    "a bracket that stays open": Wrong(
        ("run.yaml:8:1", "the YAML is broken", "Check brackets"), spec("  model: {ref: x\n")
    ),
    "a colon in a text": Wrong(("run.yaml:7:", "a colon stands", "in quotes"), spec("  seed: a: b\n")),
    "a tag": Wrong(
        ("run.yaml:7:", "the YAML tag !secret is not supported", "Remove the tag."), spec("  model: {ref: !secret x}\n")
    ),
    "Latin-1": Wrong(
        ("run.yaml:7:", "not UTF-8: byte 0xe4", "Save it as UTF-8."), HEAD.encode() + b"  seed: 1 # gr\xe4ser\n"
    ),
    "a binary file": Wrong(("run.yaml", "holds zero bytes", "YAML in UTF-8"), b"PK\x03\x04\0\0\0\0"),
    "an empty file": Wrong(("run.yaml", "the file is empty", "Start with `apiVersion"), "\n"),
    "two documents": Wrong(("holds 2 YAML documents", "a file of its own"), HEAD + "---\n" + HEAD),
    "another kind": Wrong(
        ("run.yaml:2:7", "expected EvolutionRun", "Write `kind: EvolutionRun`."), HEAD.replace("EvolutionRun", "Job")
    ),
    "no name": Wrong(("metadata", "name", "the field is missing"), HEAD.replace("  name: small\n", "  labels: {}\n")),
    "a name with capitals": Wrong(
        ("run.yaml:4:9", "metadata.name", "lower-case letters"), HEAD.replace("small", "Small_Run")
    ),
    "a megabyte of settings": Wrong(("bigger than 1 MiB", "data belongs elsewhere"), HEAD + "# long\n" * 200_000),
    "the pack's split of another name": Wrong(
        ("run.yaml:7:", "spec.problems.train", "train, dev or test"),
        spec("  problems: {train: {source: pack, split: trian}}\n"),
    ),
    "two origins of the model": Wrong(
        ("run.yaml:7:", "spec.model", "keep one of them"), spec("  model: {ref: org/name, evolutionRun: other}\n")
    ),
    "a source without its file": Wrong(
        ("run.yaml:7:", "spec.problems.train", "needs the field path"), spec("  problems: {train: {source: jsonl}}\n")
    ),
    "a key in place of a variable's name": Wrong(
        ("apiKeyEnv", "not shown", "The key itself never stands in a spec"),
        spec(
            "  synthesis:\n    policyEndpoint:\n      baseUrl: http://localhost:1/v1\n      model: m\n"
            "      apiKeyEnv: sk-do-not-tell\n"
        ),
    ),
}

DATA: dict[str, Wrong] = {
    "no such file": Wrong(
        ("spec.problems.train", "{dir}/train.jsonl cannot be read: No such file", "check the path"),
        files={"train.jsonl": None},
    ),
    "a directory in place of a file": Wrong(
        ("spec.problems.dev", "{dir}/dev.jsonl cannot be read: Is a directory", "check the path"),
        files={"dev.jsonl": DIRECTORY},
    ),
    "an empty set": Wrong(
        ("spec.problems.train", "train.jsonl has no records", "write at least one Problem"), files={"train.jsonl": "\n"}
    ),
    "bad JSON on line 17": Wrong(
        ("spec.problems.train", "train.jsonl:17: not JSON", "column", "put that right"),
        files={"train.jsonl": "".join(problem(f"p{n}") for n in range(16)) + '{"id": "p16", "statement": \n'},
    ),
    "a list in place of an object": Wrong(
        ("spec.problems.train", "train.jsonl:2:", "should be an object", MEND),
        files={"train.jsonl": problem("same") + "[1, 2]\n"},
    ),
    "an id twice": Wrong(
        ("spec.problems.train", "train.jsonl:3: the id 'same' is already on line 1", "must be unique"),
        files={"train.jsonl": problem("same") + problem("itself") + problem("same")},
    ),
    "an id in train and in dev": Wrong(
        ("spec.problems.train", "the evaluation set dev, for example same", "take them out of one"),
        files={"dev.jsonl": problem("same")},
    ),
    "a record without a statement": Wrong(
        ("spec.problems.train", "train.jsonl:1: statement of Problem: Field required", MEND),
        files={"train.jsonl": '{"id": "a", "tests": ["assert True"]}\n'},
    ),
    "a record's field of another name": Wrong(
        ("train.jsonl:1: test of Problem: there is no such field", "its fields are id, statement"),
        files={"train.jsonl": problem("same", test="assert True")},
    ),
    "tests that are one text": Wrong(
        ("train.jsonl:1: tests of Problem", "a valid array", MEND),
        files={"train.jsonl": problem("same", tests="assert same(1) == 1")},
    ),
    "a test that does not compile": Wrong(
        ("spec.problems.train", "problem 'itself'", "tests[1] is not valid Python", "itself(1 = 1", "correct it"),
        files={"train.jsonl": problem("same") + problem("itself", tests=["assert True", "assert itself(1 = 1"])},
    ),
    "a test in Python 2": Wrong(
        ("spec.problems.dev", "problem 'unchanged'", "tests[0] is not valid Python", "print", "correct it"),
        files={"dev.jsonl": problem("unchanged", tests=['print "yes"'])},
    ),
    "a setup that does not compile": Wrong(
        ("spec.problems.train", "setup is not valid Python", "correct it"),
        files={"train.jsonl": problem("same", setup="import")},
    ),
    "an entry point that is no name": Wrong(
        ("the entry_point 'my function' is no name of a Python function", "correct it"),
        files={"train.jsonl": problem("same", entry_point="my function")},
    ),
    "no test in train": Wrong(
        ("no problem of spec.problems.train has tests", "the gate would drop every answer", "spec.conversion.gate"),
        files={"train.jsonl": problem("same", tests=[])},
    ),
    "no test in dev": Wrong(
        ("no problem of spec.problems.dev (dev) has tests", "give the problems tests"),
        files={"dev.jsonl": problem("unchanged", tests=[])},
    ),
    "Latin-1": Wrong(
        ("train.jsonl:2: not UTF-8 (byte", "save the file as UTF-8"),
        files={"train.jsonl": problem("same").encode() + '{"id": "grün"}\n'.encode("latin-1")},
    ),
    "UTF-16": Wrong(
        ("train.jsonl:1: not UTF-8", "save the file as UTF-8"), files={"train.jsonl": problem("same").encode("utf-16")}
    ),
    "a pack without that level": Wrong(
        ("spec.problems.train", "no problem is left", "check the split, and the levels"),
        HEAD + FILES.replace("path: train.jsonl", "path: train.jsonl, levels: [easy]"),
    ),
    "a row of MBPP without tests": Wrong(
        ("spec.problems.train", "train.jsonl:2: test_list of a row in MBPP's shape", MEND), MBPP,
        {"train.jsonl": mbpp_row(601) + mbpp_row(602, test_list=[])},
    ),
    "a row of MBPP whose code does not compile": Wrong(
        ("train.jsonl:1: the code or a test does not parse", MEND), MBPP, {"train.jsonl": mbpp_row(601, code="def f(x")}
    ),
    "a row of MBPP whose tests call something else": Wrong(
        ("train.jsonl:1: no test calls a function that the code defines", "it defines f", MEND), MBPP,
        {"train.jsonl": mbpp_row(601, test_list=["assert g(1) == 2"])},
    ),
    "a split of MBPP that is none": Wrong(
        ("spec.problems.train", "mbpp has no split 'trian'", "choose one of prompts, test"),
        MBPP.replace("path: train.jsonl", "path: train.jsonl, split: trian"),
        {"train.jsonl": mbpp_row(601)},
    ),
    "questions in train and dev": Wrong(
        ("have the same text as one of spec.meteor.questions.train", "take them out"), METEOR,
        {
            "train.jsonl": question("t", "How many legs has a spider?"),
            "dev.jsonl": question("d", "How many legs has a SPIDER?"),
            "answers.jsonl": '{"kind": "mentor-answer", "subject": "t", "answer": "8"}\n',
        },
    ),
    "a mentor who answers other questions": Wrong(
        ("spec.meteor.mentor: none of the 1 question(s)", "spec.meteor.questions.train", "name another file"), METEOR,
        {
            "train.jsonl": question("t", "How many legs has a spider?"),
            "dev.jsonl": question("d", "How many legs has a crab?"),
            "answers.jsonl": '{"kind": "mentor-answer", "subject": "z", "answer": "8"}\n',
        },
    ),
}  # fmt: skip

OF_MODEL = OF_FILES + "  model: {ref: ./model}\n"
MODELS: dict[str, Wrong] = {
    "no such directory": Wrong(
        ("spec.model.ref is {dir}/model, but there is no {dir}/model/config.json", "a hub id such as org/name"),
        OF_MODEL,
    ),
    "a name that is neither a hub id nor a path": Wrong(
        ("spec.model.ref: model 'llama' is neither a hub id (org/name), nor a local directory",),
        OF_FILES + "  model: {ref: llama}\n",
    ),
    "an embedded model that there is not": Wrong(
        ("spec.model.ref: model 'embedded:gpt-5': there is no embedded model of that name; there is embedded:smollm2",),
        OF_FILES + "  model: {ref: 'embedded:gpt-5'}\n",
    ),
    "no weights": Wrong(
        ("spec.model.ref: model '{dir}/model'", "lacks weights (*.safetensors)", "save_pretrained"), OF_MODEL,
        {"model/model.safetensors": None}, tiny_model=True,
    ),
    "weights that a copy cut off": Wrong(
        ("{dir}/model/model.safetensors (1000 bytes) is damaged or cut off", "copy or download it again"), OF_MODEL,
        {"model/model.safetensors": b"\x20\x03\0\0\0\0\0\0" + b" " * 992}, tiny_model=True,
    ),
    "a pointer of Git LFS": Wrong(
        ("holds a pointer of Git LFS and no weights", "run `git lfs pull` in {dir}/model"), OF_MODEL,
        {"model/model.safetensors": "version https://git-lfs.github.com/spec/v1\nsize 269060552\n"}, tiny_model=True,
    ),
    "a shard of the weights that is not there": Wrong(
        ("model.safetensors.index.json names 1 file(s) that are not there", "copy or download it again"), OF_MODEL,
        {"model/model.safetensors.index.json": '{"weight_map": {"a": "model-2.safetensors"}}'},
        tiny_model=True,
    ),
    "no tokenizer": Wrong(
        ("lacks a tokenizer (tokenizer.json)", "it must hold what save_pretrained"), OF_MODEL,
        {"model/tokenizer.json": None}, tiny_model=True,
    ),
    "a tokenizer without a chat template": Wrong(
        ("spec.model.ref is {dir}/model, whose tokenizer has no chat template", "an instruction-tuned model"), OF_MODEL,
        {"model/chat_template.jinja": None, "model/tokenizer_config.json": "{}"}, tiny_model=True,
    ),
    "a configuration that is no JSON": Wrong(
        ("spec.model.ref is", "config.json cannot be read as JSON", "transformers' format"), OF_MODEL,
        {"model/config.json": "{"}, tiny_model=True,
    ),
}  # fmt: skip
