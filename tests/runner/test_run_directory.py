from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from run_fakes import make_run

from perseid.runner import directory
from perseid.runner.directory import RunDirectory, absolute_paths, write_atomically
from perseid.runner.errors import RunnerError


def test_a_directory_is_held_by_one_run_at_a_time(tmp_path: Path) -> None:
    one, same = RunDirectory(tmp_path / "runs" / "fake"), RunDirectory(tmp_path / "runs" / "fake")
    with one.locked(), pytest.raises(RunnerError, match="in use by another command of Perseid's"), same.locked():
        raise AssertionError("two runs in one directory")
    with same.locked():
        pass  # free again


def test_a_run_that_starts_while_somebody_looks_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path)
    with run.locked():
        assert run.in_use()
    looking = (tmp_path / ".lock").open("rb")
    fcntl.flock(looking, fcntl.LOCK_SH)
    waited: list[float] = []

    def a_moment(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            looking.close()

    monkeypatch.setattr(directory.time, "sleep", a_moment)
    with run.locked():
        assert run.in_use()
    assert len(waited) == 3
    assert not run.in_use()


def test_an_onlooker_that_never_leaves_is_told_as_one_that_works_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path)
    monkeypatch.setattr(directory.time, "sleep", lambda seconds: None)
    with (tmp_path / ".lock").open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        with pytest.raises(RunnerError, match="is in use"), run.locked():
            raise AssertionError("held by another")


def test_a_new_run_gets_an_identity_that_it_keeps(tmp_path: Path) -> None:
    first = RunDirectory(tmp_path).accept(make_run())
    assert RunDirectory(tmp_path).accept(make_run()) == first
    assert RunDirectory(tmp_path / "other").accept(make_run()).uid != first.uid


def test_changed_settings_are_refused_with_every_field_that_changed(tmp_path: Path) -> None:
    RunDirectory(tmp_path).accept(make_run(seed=1))
    changed = make_run(seed=2, finetune={"lora": {"rank": 4}}, suspend=True)
    with pytest.raises(RunnerError) as caught:
        RunDirectory(tmp_path).accept(changed)
    message = str(caught.value)
    assert "spec.seed: 1 -> 2" in message
    assert "spec.finetune.lora.rank: 16 -> 4" in message
    assert "spec.suspend:" not in message
    assert "another metadata.name" in message
    RunDirectory(tmp_path).accept(make_run(seed=1))  # the refusal has changed nothing


def test_more_generations_and_a_suspension_are_accepted(tmp_path: Path) -> None:
    before = RunDirectory(tmp_path).accept(make_run(generations={"max": 1}))
    assert RunDirectory(tmp_path).accept(make_run(generations={"max": 4}, suspend=True)) == before
    with pytest.raises(RunnerError, match=r"spec\.generations\.patience: 1 -> 2"):
        RunDirectory(tmp_path).accept(make_run(generations={"max": 4, "patience": 2}))


@pytest.mark.parametrize("name", ["status.json", "run.json"])
@pytest.mark.parametrize("content", ["", "{", "{}", '{"uid": 7}'])
def test_a_broken_file_is_named_with_what_to_do(tmp_path: Path, name: str, content: str) -> None:
    RunDirectory(tmp_path).accept(make_run())
    (tmp_path / name).write_text(content)
    with pytest.raises(RunnerError, match="cannot be read") as caught:
        RunDirectory(tmp_path).accept(make_run())
    assert str(tmp_path / name) in str(caught.value)
    assert "move the directory away" in str(caught.value)


def test_relative_paths_start_at_the_directory_of_the_file(tmp_path: Path) -> None:
    run = make_run(
        model={"ref": "./model"},
        problems={
            "train": {"source": "jsonl", "path": "data/train.jsonl"},
            "dev": {"source": "mbpp", "path": "/data/mbpp.jsonl"},
            "test": [{"source": "hub", "path": "org/name", "split": "test"}, {"source": "humaneval"}],
        },
    )
    spec = absolute_paths(run, tmp_path).spec
    assert spec.model.ref == str(tmp_path / "model")
    assert spec.problems.train.path == str(tmp_path / "data" / "train.jsonl")
    assert spec.problems.dev.path == "/data/mbpp.jsonl"
    assert [one.path for one in spec.problems.test] == ["org/name", None]


@pytest.mark.parametrize("ref", ["org/name", "embedded:smollm2-135m-instruct", "/models/x"])
def test_a_model_that_is_no_relative_path_stays_as_it_is(tmp_path: Path, ref: str) -> None:
    assert absolute_paths(make_run(model={"ref": ref}), tmp_path).spec.model.ref == ref


def test_paths_of_questions_answers_and_records_start_at_the_directory_of_the_file(tmp_path: Path) -> None:
    endpoint = {"baseUrl": "http://localhost:1/v1", "model": "strong"}
    run = make_run(
        meteor={
            "questions": {
                "train": {"source": "jsonl", "path": "data/train.jsonl"},
                "dev": {"source": "csv", "path": "/data/dev.csv"},
                "test": [
                    {"source": "parquet", "path": "../test.parquet"},
                    {"source": "pack", "split": "test"},
                    {"source": "hub", "path": "org/name"},
                    {"source": "hub", "path": "./dataset"},
                ],
            },
            "mentor": {"type": "recorded", "path": "answers/mentor.jsonl"},
            "judge": {"type": "openai", "openai": endpoint, "record": "paid/judge.jsonl"},
        }
    )
    meteor = absolute_paths(run, tmp_path / "here").spec.meteor
    here = str(tmp_path / "here")
    assert meteor.questions.train.path == f"{here}/data/train.jsonl"
    assert meteor.questions.dev.path == "/data/dev.csv"
    assert [one.path for one in meteor.questions.test] == [
        f"{tmp_path}/test.parquet", None, "org/name", f"{here}/dataset"
    ]  # fmt: skip
    assert (meteor.mentor.path, meteor.mentor.record) == (f"{here}/answers/mentor.jsonl", None)
    assert (meteor.judge.path, meteor.judge.record) == (None, f"{here}/paid/judge.jsonl")


@pytest.mark.parametrize("ref", ["org/name", "embedded:smollm2-135m-instruct", "s3://bucket/model", "/models/x"])
def test_a_mentors_model_is_a_path_only_where_it_says_so(tmp_path: Path, ref: str) -> None:
    def refs(given: str) -> list[str | None]:
        role = {"type": "model", "ref": given}
        meteor = absolute_paths(make_run(meteor={"mentor": role, "judge": role}), tmp_path).spec.meteor
        return [meteor.mentor.ref, meteor.judge.ref]

    assert refs(ref) == [ref, ref]
    assert refs("./strong") == [str(tmp_path / "strong")] * 2


@pytest.mark.parametrize("uri", ["s3://bucket/a.jsonl", "file:///data/a.jsonl", "pack"])
def test_uris_and_the_pack_stay_as_they_are(tmp_path: Path, uri: str) -> None:
    run = make_run(meteor={"mentor": {"type": "recorded", "path": uri}})
    assert absolute_paths(run, tmp_path).spec.meteor.mentor.path == uri
    if uri != "pack":
        questions = {"train": {"source": "jsonl", "path": uri}}
        role = {"type": "model", "ref": "org/name", "record": uri}
        meteor = absolute_paths(make_run(meteor={"questions": questions, "judge": role}), tmp_path).spec.meteor
        assert (meteor.questions.train.path, meteor.judge.record) == (uri, uri)


def test_a_path_means_the_same_run_from_wherever_it_is_read(tmp_path: Path) -> None:
    run = make_run(problems={"train": {"source": "jsonl", "path": "../shared/train.jsonl"}})
    (tmp_path / "here").mkdir()
    assert absolute_paths(run, tmp_path / "here") == absolute_paths(
        make_run(problems={"train": {"source": "jsonl", "path": "shared/train.jsonl"}}), tmp_path
    )


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    write_atomically(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "new \ud800")
    assert file.read_text() == "old\n"
