"""METEOR's mistakes, as a user meets them: one sentence that says what, where and what to do, and nothing begun."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from refusals import KEY, perseid
from typer.testing import Result
from wrong_inputs import HEAD, QUESTIONS, question
from wrong_inputs import METEOR as OF_QUESTIONS

from perseid.cli import exits
from perseid.engines.protocol import Message, Request, Sampling
from perseid.engines.recorded import Recorder
from perseid.engines.scripted import ScriptedEngine

METEOR = HEAD + "  methods: [meteor]\n"
ENDPOINT = "openai: {baseUrl: 'http://localhost:1/v1', model: strong, apiKeyEnv: MENTOR_KEY}"


def answer(subject: str) -> str:
    return json.dumps({"kind": "mentor-answer", "subject": subject, "answer": "Answer: 8"})


TRAIN = question("t1", "How many legs has a spider?") + "\n" + question("t2", "How many legs has a crab?") + "\n"
DEV = question("d1", "How many legs has a scorpion?") + "\n"
GOOD = {"train.jsonl": TRAIN, "dev.jsonl": DEV, "answers.jsonl": answer("t1") + "\n"}


def write(directory: Path, run: str, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content, encoding="utf-8")
    (directory / "run.yaml").write_text(run, encoding="utf-8")
    return directory / "run.yaml"


def assert_refused(result: Result, directory: Path) -> None:
    assert result.exit_code == exits.MISTAKE, result.output
    assert isinstance(result.exception, SystemExit), "something escaped"
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert not (directory / "runs").exists(), "a mistake was found after something was made"


SPEC: dict[str, tuple[str, int, str, str]] = {
    "a method of another name": ("  methods: [metor]\n", 7, "spec.methods[0]", "meteor"),
    "a stage of another name": (
        "  meteor: {stages: [self-asessment]}\n",
        7,
        "spec.meteor.stages[0]",
        "self-assessment",
    ),
    "an unknown field": ("  meteor:\n    questons: {}\n", 8, "spec.meteor.questons", "questions"),
    "an unknown column": (
        "  meteor:\n    questions:\n      train: {source: csv, path: a.csv, columns: {titel: Title}}\n",
        9,
        "spec.meteor.questions.train.columns.titel",
        "title",
    ),
    "an endpoint that is not said": ("  meteor:\n    mentor: {type: openai}\n", 8, "spec.meteor.mentor", "openai"),
    "a judge's model that is not said": ("  meteor:\n    judge: {type: model}\n", 8, "spec.meteor.judge", "ref"),
    "answers that are not said": ("  meteor:\n    mentor: {type: recorded}\n", 8, "spec.meteor.mentor", "path"),
    "the pack with a path": (
        "  meteor:\n    questions:\n      dev: {split: dev, path: a.jsonl}\n",
        9,
        "spec.meteor.questions.dev",
        "takes no path",
    ),
    "the pack without a split": (
        "  meteor:\n    questions:\n      test: [{name: mine}]\n",
        9,
        "spec.meteor.questions.test[0]",
        "train, dev or test",
    ),
    "a file that is not said": (
        "  meteor:\n    questions:\n      train: {source: parquet}\n",
        9,
        "spec.meteor.questions.train",
        "needs the field path",
    ),
    "a configuration of a file": (
        "  meteor:\n    questions:\n      train: {source: jsonl, path: train.jsonl, config: main}\n",
        9,
        "spec.meteor.questions.train",
        "config is for source hub",
    ),
    "two currencies": (
        "  meteor:\n    mentor: {path: pack, price: {currency: EUR}}\n    judge: {price: {currency: USD}}\n",
        7,
        "spec.meteor",
        "one currency",
    ),
    "no tries": (
        "  meteor:\n    selfAssessment: {maxTries: 0}\n",
        8,
        "spec.meteor.selfAssessment.maxTries",
        "at most 16",
    ),
    "a decoding of another name": (
        "  meteor:\n    selfEvolution:\n      expensive: [greedy, beem]\n",
        9,
        "spec.meteor.selfEvolution.expensive[1]",
        "beam",
    ),
    "a key instead of a variable's name": (
        "  meteor:\n    mentor:\n      type: openai\n      openai:\n        baseUrl: http://localhost:1/v1\n"
        f"        model: strong\n        apiKeyEnv: {KEY}\n",
        13,
        "spec.meteor.mentor.openai.apiKeyEnv",
        "The key itself never stands in a spec",
    ),
}


@pytest.mark.parametrize("name", SPEC)
def test_a_mistake_in_the_file_is_told_with_its_line_and_its_field(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, line, path, hint = SPEC[name]
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, HEAD + text, {})
    for command in ("validate", "run"):
        result = perseid(command, file)
        assert_refused(result, tmp_path)
        assert f"{file}:{line}:" in result.stderr, result.stderr
        assert path in result.stderr
        assert hint in result.stderr
        assert KEY not in result.stderr


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a run whose file is right."""

    says: tuple[str, ...]
    """What the message has in it."""
    files: Mapping[str, str | None] = field(default_factory=dict)
    """Instead of, or beside, the good ones. None: not there."""
    meteor: str = ""
    """Instead of the recorded mentor."""
    environment: Mapping[str, str] = field(default_factory=dict)
    run: str | None = None
    """Instead of the whole file."""


def role(**roles: str) -> str:
    return METEOR + "  meteor:\n" + "".join(f"    {name}: {{{text}}}\n" for name, text in roles.items()) + QUESTIONS


RECORDED = "type: recorded, path: answers.jsonl"
UNCHECKED = json.dumps({"id": "t1", "title": "Why is the sky blue?"}) + "\n"
EXISTING = {"train.jsonl": TRAIN, "dev.jsonl": DEV}
WRONG: dict[str, Wrong] = {
    # Data.
    "no JSON on a line": Wrong(
        ("spec.meteor.questions.train", "train.jsonl:17: not JSON", "column", "put that right"),
        {"train.jsonl": "".join(question(f"t{n}", f"Question {n}?") + "\n" for n in range(16)) + '{"id": "t16", \n'},
    ),
    "a record's field of another name": Wrong(
        ("train.jsonl:1: famly of Question",), {"train.jsonl": question("t1", "A?", famly="x") + "\n"}
    ),
    "an id twice": Wrong(
        ("dev.jsonl:2: the id 'd1' is already on line 1", "spec.meteor.questions.dev"),
        {"dev.jsonl": question("d1", "A?") + "\n" + question("d1", "B?") + "\n"},
    ),
    "a file without questions": Wrong(("train.jsonl", "has no records"), {"train.jsonl": "\n\n"}),
    "a column that is not there": Wrong(
        ("train.csv: there is no column 'title', but 'Titel'", "set columns.title"),
        {"train.csv": "Titel,body\na,b\n"},
        run=OF_QUESTIONS.replace("{source: jsonl, path: train.jsonl}", "{source: csv, path: train.csv}"),
    ),
    "a split that nothing falls into": Wrong(
        ("none of 1 questions falls into the split", "give the splits as files of their own"),
        {"train.jsonl": question("t1", "How do I sort list number 2?") + "\n"},
        run=OF_QUESTIONS.replace("path: train.jsonl}", "path: train.jsonl, split: dev}"),
    ),
    "questions in object storage": Wrong(
        ("s3://bucket/train.jsonl: questions are read from files", "copy them to a file"),
        run=OF_QUESTIONS.replace("path: train.jsonl", "path: 's3://bucket/train.jsonl'"),
    ),
    "a check with a broken regular expression": Wrong(
        ("question 't1'", "'(8' is no regular expression", "correct the check", "train.jsonl"),
        {"train.jsonl": question("t1", "A?", check={"type": "pattern", "pattern": "(8"}) + "\n"},
    ),
    "a check whose answer is no option": Wrong(
        ("question 'd1'", "is none of the options"),
        {"dev.jsonl": question("d1", "A?", check={"type": "choice", "options": ["1", "2"], "answer": "six"}) + "\n"},
    ),
    "a check whose test is no Python": Wrong(
        ("question 't1'", "tests.1 of the check is not valid Python"),
        {"train.jsonl": question("t1", "A?", check={"type": "code", "tests": ["assert True", "assert ("]}) + "\n"},
    ),
    "a question in train and in dev": Wrong(
        ("have the same text as one of spec.meteor.questions.train", "'t1' and 'd1'", "take them out"),
        {"dev.jsonl": question("d1", "how many legs has a SPIDER") + "\n"},
    ),
    "an id in train and in dev": Wrong(
        ("have the same id as one of spec.meteor.questions.train, for example 't2'",),
        {"dev.jsonl": question("t2", "How many legs has a beetle?") + "\n"},
    ),
    "a family in train and in dev": Wrong(
        ("have the same family as one of spec.meteor.questions.train",),
        {
            "train.jsonl": question("t1", "How many legs has a spider?", family="legs") + "\n",
            "dev.jsonl": question("d1", "How many legs do spiders have?", family="legs") + "\n",
        },
    ),
    "a question in dev and in test": Wrong(
        ("spec.meteor.questions.test[1] have the same text as one of spec.meteor.questions.dev",),
        run=OF_QUESTIONS.replace("test: []", "test: [{split: test}, {source: jsonl, path: dev.jsonl, name: again}]"),
    ),
    "two sets of one name in both methods": Wrong(
        ("two evaluation sets are called same", "spec.problems.dev.name", "spec.meteor.questions.dev.name"),
        run=OF_QUESTIONS.replace("[meteor]", "[sra-mcts, meteor]").replace("name: dev", "name: same")
        + "  problems: {dev: {source: pack, split: dev, name: same}}\n",
    ),
    "answers broken on a line": Wrong(
        ("spec.meteor.mentor:", "answers.jsonl:2: lacks answer", "put that right"),
        {"answers.jsonl": answer("t1") + "\n" + '{"kind": "mentor-answer", "subject": "t2"}\n'},
    ),
    "answers to other questions": Wrong(
        ("spec.meteor.mentor: none of the 1 question(s)", "in spec.meteor.questions.train", "'t1'", "'z9'"),
        {"answers.jsonl": answer("z9") + "\n"},
    ),
    "answers of another kind": Wrong(
        ("spec.meteor.judge: ", "has no answers of kind 'judge'", "spec.meteor.judge.record"),
        run=role(mentor=RECORDED, judge=RECORDED),
    ),
    "no answers": Wrong(("answers.jsonl holds no answers",), {"answers.jsonl": ""}),
    "a verifier without a check in train": Wrong(
        ("type is verifier, but no question of spec.meteor.questions.train", "openai, model or recorded"),
        {"train.jsonl": UNCHECKED},
    ),
    "a verifier without a check in dev": Wrong(
        ("type is verifier, but no question of spec.meteor.questions.dev",),
        {"dev.jsonl": UNCHECKED.replace("t1", "d1")},
    ),
    # Surroundings.
    "no key": Wrong(
        ("spec.meteor.mentor:", "environment variable MENTOR_KEY", "MENTOR_KEY_FILE", "neither is set"),
        run=role(mentor=f"type: openai, {ENDPOINT}"),
    ),
    "no key of a judge, without the stage that he judges in": Wrong(
        ("spec.meteor.judge:", "environment variable MENTOR_KEY"),
        run=role(stages_="", judge=f"type: openai, {ENDPOINT}").replace("stages_: {}", "stages: [self-evolution]"),
    ),
    "an empty key": Wrong(
        ("MENTOR_KEY", "neither is set"),
        environment={"MENTOR_KEY": " "},
        run=role(mentor=f"type: openai, {ENDPOINT}"),
    ),
    "a key that is no key": Wrong(
        ("MENTOR_KEY", "white space", "bare key"),
        environment={"MENTOR_KEY": f"Bearer {KEY}"},
        run=role(mentor=f"type: openai, {ENDPOINT}"),
    ),
    "a key's file that is not there": Wrong(
        ("key.txt, which the variable MENTOR_KEY_FILE names", "FileNotFoundError"),
        environment={"MENTOR_KEY_FILE": "key.txt"},
        run=role(mentor=f"type: openai, {ENDPOINT}"),
    ),
    "a key's file with two lines": Wrong(
        ("key.txt, which the variable MENTOR_KEY_FILE names", "bare key"),
        {"key.txt": f"{KEY}\n{KEY}\n"},
        environment={"MENTOR_KEY_FILE": "key.txt"},
        run=role(mentor=f"type: openai, {ENDPOINT}"),
    ),
    "no file of questions": Wrong(("train.jsonl cannot be read: No such file",), {"train.jsonl": None}),
    "a directory of questions": Wrong(
        ("train.jsonl cannot be read: Is a directory",), {"train.jsonl": None, "train.jsonl/x": ""}
    ),
    "no file of answers": Wrong(
        ("spec.meteor.mentor:", "answers.jsonl cannot be read: No such file", "spec.meteor.mentor.path"),
        {"answers.jsonl": None},
    ),
    "a directory of answers": Wrong(
        ("answers.jsonl cannot be read: Is a directory",), {"answers.jsonl": None, "answers.jsonl/x": ""}
    ),
    "answers in object storage": Wrong(
        ("spec.meteor.mentor:", "lie in object storage"), run=role(mentor="type: recorded, path: 's3://bucket/a.jsonl'")
    ),
    "a record below a file": Wrong(
        ("spec.meteor.mentor.record is", "dev.jsonl is a file and no directory"),
        run=role(mentor="type: model, ref: org/name, record: dev.jsonl/paid/answers.jsonl"),
    ),
    "a record that is a directory": Wrong(
        ("spec.meteor.judge.record is", "which is a directory; give the file"),
        {"paid/x": ""},
        run=role(mentor=RECORDED, judge="type: model, ref: org/name, record: paid"),
    ),
    "a record in object storage": Wrong(
        ("spec.meteor.judge.record is s3://bucket/paid.jsonl", "give a path"),
        run=role(mentor=RECORDED, judge="type: model, ref: org/name, record: 's3://bucket/paid.jsonl'"),
    ),
    "two models' records in one file": Wrong(
        ("spec.meteor.mentor.record and spec.meteor.judge.record are both", "a file of its own"),
        run=role(
            mentor="type: model, ref: org/one, record: paid.jsonl",
            judge="type: model, ref: org/two, record: ./paid.jsonl",
        ),
    ),
    "a mentor's directory without a model": Wrong(
        ("spec.meteor.mentor.ref is", "config.json"), run=role(mentor="type: model, ref: ./models/strong")
    ),
}  # fmt: skip


def prepare(wrong: Wrong, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(directory)
    for name in ("MENTOR_KEY", "MENTOR_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in wrong.environment.items():
        monkeypatch.setenv(name, value)
    files = {name: text for name, text in {**GOOD, **wrong.files}.items() if text is not None}
    return write(directory, wrong.run or OF_QUESTIONS, files)


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_in_data_or_surroundings_is_told_in_one_sentence_before_anything_is_made(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first key that is looked for takes a second or more: the endpoints' client is imported."""
    wrong = WRONG[name]
    file = prepare(wrong, tmp_path, monkeypatch)
    before = sorted(tmp_path.rglob("*"))
    is_about_a_key = any("MENTOR_KEY" in said for said in wrong.says)  # which a file for a cluster has in a Secret
    for command in ("run",) if is_about_a_key else ("validate", "run"):
        result = perseid(command, file)
        assert_refused(result, tmp_path)
        assert "\n" not in result.stderr.strip(), result.stderr
        for said in wrong.says:
            assert said in result.stderr, result.stderr
        assert KEY not in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_there_are_more_than_twenty_kinds_of_wrong_input() -> None:
    assert len(SPEC) + len(WRONG) > 20


def assert_valid(file: Path) -> None:
    result = perseid("validate", file)
    assert result.exit_code == exits.OK, result.output


def test_the_pack_and_good_files_are_valid(tmp_path: Path) -> None:
    assert_valid(write(tmp_path, METEOR, {}))
    assert_valid(write(tmp_path, METEOR.replace("[meteor]", "[sra-mcts, meteor]"), {}))
    assert_valid(write(tmp_path, OF_QUESTIONS, GOOD))
    assert_valid(
        write(tmp_path, OF_QUESTIONS.replace("path: train.jsonl", f"path: 'file://{tmp_path}/train.jsonl'"), GOOD)
    )


def test_what_a_run_does_not_use_is_not_looked_at(tmp_path: Path) -> None:
    """METEOR's part of a run by search alone, problems of one by METEOR alone, the mentor where none teaches."""
    assert_valid(write(tmp_path, OF_QUESTIONS.replace("[meteor]", "[sra-mcts]"), {}))
    assert_valid(write(tmp_path, OF_QUESTIONS + "  problems: {train: {source: jsonl, path: absent.jsonl}}\n", GOOD))
    alone = OF_QUESTIONS.replace("  meteor:\n", "  meteor:\n    stages: [self-assessment]\n")
    (tmp_path / "answers.jsonl").unlink()
    assert_valid(write(tmp_path, alone, EXISTING))
    assert perseid("validate", write(tmp_path, OF_QUESTIONS, EXISTING)).exit_code == exits.MISTAKE


def test_a_verifier_needs_some_checks_and_not_all(tmp_path: Path) -> None:
    assert_valid(write(tmp_path, OF_QUESTIONS, {**GOOD, "train.jsonl": TRAIN + UNCHECKED.replace("t1", "t3")}))
    no_checks = {**GOOD, "train.jsonl": UNCHECKED}
    assert_valid(
        write(tmp_path, OF_QUESTIONS.replace("  meteor:\n", "  meteor:\n    stages: [mentor-supervised]\n"), no_checks)
    )
    assert_valid(write(tmp_path, role(mentor=RECORDED, judge="type: model, ref: org/name"), no_checks))


def test_a_dataset_of_the_hub_is_left_to_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("perseid.data.questions.read_hub_table", refuse)
    hub = OF_QUESTIONS.replace(
        "{source: jsonl, path: train.jsonl}", "{source: hub, path: nobody/nothing, split: train}"
    )
    assert_valid(write(tmp_path, hub, GOOD))


async def record(path: Path, subject: str) -> None:
    recorder = Recorder(ScriptedEngine(lambda _: ["Answer: 8"]), path)
    await recorder.generate(Request((Message("user", "x"),), Sampling(16), kind="mentor-answer", subject=subject))
    await recorder.close()


def test_answers_that_a_recorder_wrote_count_even_where_a_kill_cut_off_the_last(tmp_path: Path) -> None:
    asyncio.run(record(tmp_path / "answers.jsonl", "t2"))
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"key":"12')
    assert_valid(write(tmp_path, OF_QUESTIONS, EXISTING))
    asyncio.run(record(tmp_path / "others.jsonl", "z9"))
    result = perseid("validate", write(tmp_path, OF_QUESTIONS.replace("answers.jsonl", "others.jsonl"), EXISTING))
    assert_refused(result, tmp_path)
    assert "is in spec.meteor.questions.train" in result.stderr


def test_a_record_in_a_directory_that_can_be_made_and_a_key_in_a_file_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MENTOR_KEY", raising=False)
    monkeypatch.setenv("MENTOR_KEY_FILE", str(tmp_path / "key.txt"))
    spec = role(mentor=f"type: openai, {ENDPOINT}, record: paid/by/whom.jsonl")
    assert_valid(write(tmp_path, spec, {**EXISTING, "key.txt": KEY + "\n"}))
    assert not (tmp_path / "paid").exists()


def test_one_model_may_record_for_both_roles_into_one_file(tmp_path: Path) -> None:
    same = "type: model, ref: org/one, record: paid.jsonl"
    assert_valid(write(tmp_path, role(mentor=same, judge=same), EXISTING))


def test_the_check_of_the_pack_is_fast_and_loads_no_model_library(tmp_path: Path) -> None:
    """A fresh Python, and imports of the command line, take more than a second."""
    code = """
import sys, time
from pathlib import Path
from perseid.api.load import load_run
from perseid.cli.preflight import check
from perseid.runner.directory import absolute_paths
run = absolute_paths(load_run(Path(sys.argv[1])), Path("/"))
before = time.process_time()
check(run, keys=True)
assert time.process_time() - before < 1, time.process_time() - before
print([name for name in ("torch", "vllm", "transformers", "datasets", "openai", "kfp") if name in sys.modules])
"""
    file = write(tmp_path, METEOR, {})
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
