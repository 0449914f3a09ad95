"""`perseid export`: a run's model as a directory and on a hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from fabricated_results import BETTER, WORSE, fabricate
from fabricated_stages import write_manifest
from hub_double import HubDouble
from perseid.cli import exits
from perseid.cli.app import app
from perseid.engines.identity import content_id
from perseid.runner.directory import RunDirectory
from tiny_llama import make_model, write_model

SECRET = "hf_averysecrettoken0123456789"
FILES = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "{}", "chat_template.jinja": "{{ x }}"}


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two generations; the first one's model is the best, and its files are there."""
    monkeypatch.setenv("PERSEID_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    model.mkdir()
    for name, text in FILES.items():
        (model / name).write_text(text)
    write_manifest(model)
    (model / "README.md").write_text("of the base")
    place = tmp_path / "run"
    fabricated = fabricate(place, BETTER, WORSE).model_dump_json(by_alias=True)
    (place / "status.json").write_text(_placed(fabricated, model))
    for file in [*place.glob("evaluations/*/scores.json"), *place.glob("generations/*/attempts/*/result.json")]:
        file.write_text(_placed(file.read_text(), model))
    return place


def _placed(text: str, model: Path) -> str:
    return text.replace('"/m/0"', json.dumps(str(model))).replace('"model0"', json.dumps(content_id(model)))


def test_weights_tokenizer_and_card_are_written_and_are_the_model_that_was_scored(run: Path, tmp_path: Path) -> None:
    to = tmp_path / "new" / "mine"
    result = export(run, "--to", to, "--license", "mit")
    assert result.exit_code == exits.OK, result.output
    assert f"wrote {to}: the model of generation 0 of fabricated" in result.stderr
    assert {path.name for path in to.iterdir()} == {*FILES, "perseid-model.json", "README.md"}
    assert content_id(to) == content_id(tmp_path / "model")
    assert not list(to.parent.glob(".*")), "nothing is left beside it"


def test_the_card_says_data_method_scores_licence_and_digests(run: Path, tmp_path: Path) -> None:
    assert export(run, "--to", tmp_path / "mine", "--license", "mit").exit_code == exits.OK
    card = (tmp_path / "mine" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    told = yaml.safe_load(front)
    assert (told["license"], told["base_model"], told["library_name"]) == ("mit", "org/base", "transformers")
    assert told["tags"] == ["perseid", "sra-mcts"]
    scores = {one["dataset"]["name"]: one["metrics"][0]["value"] for one in told["model-index"][0]["results"]}
    assert scores == {"dev": 0.6875, "held-out": 0.6875}
    for said in (
        "| dev (decided its promotion) | 4 | 25.0 % [",
        "generation 0: 12 of 40 answers became training data",
        "SRA-MCTS (arXiv 2411.11053)",
        "org/base after 1 generation of learning from what was made with it",
        "merged into the weights, 3 epochs, learning rate 0.0003",
        "sha256:data",
        content_id(tmp_path / "model"),
        "## Licence\n\nmit.",
    ):
        assert said in body, said
    assert "no evidence" not in body
    assert "of the base" not in body


def test_a_model_that_is_no_better_says_so_and_an_unknown_licence_is_not_made_up(run: Path, tmp_path: Path) -> None:
    scores = next(run.glob("evaluations/held-out-model0/scores.json"))
    base = next(run.glob("evaluations/held-out-base/scores.json")).read_text()
    scores.write_text(base.replace('"base"', json.dumps(content_id(tmp_path / "model"))))
    assert export(run, "--to", tmp_path / "mine").exit_code == exits.OK
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "On held-out the interval of the gain contains zero: this is no evidence" in card
    assert "Not stated: the terms of org/base hold" in card
    assert "license" not in yaml.safe_load(card.split("---\n")[1])


@pytest.mark.parametrize(
    ("algorithm", "tag", "says"),
    [
        ("mcts", "sra-mcts", "SRA-MCTS (arXiv 2411.11053): the model searched for plans by Monte Carlo tree search"),
        ("tot", "tree-of-thoughts", "with Tree of Thoughts in place of its search"),
        ("cot", "chain-of-thought", "wrote each plan as one chain of thought"),
        (
            "direct",
            "rejection-sampling",
            "Rejection sampling: the model wrote code for each problem alone, without a plan",
        ),
    ],
)
def test_the_card_says_by_which_algorithm_answers_were_made(
    run: Path, tmp_path: Path, algorithm: str, tag: str, says: str
) -> None:
    file = run / "run.json"
    told = json.loads(file.read_text())
    told["spec"]["synthesis"]["search"]["algorithm"] = algorithm
    file.write_text(json.dumps(told))
    assert export(run, "--to", tmp_path / "mine").exit_code == exits.OK
    card = (tmp_path / "mine" / "README.md").read_text()
    assert says in card
    assert yaml.safe_load(card.split("---\n")[1])["tags"] == ["perseid", tag]
    assert "\n\n\n" not in card
    assert ("Monte Carlo" in card) == (algorithm == "mcts")
    assert "and learned from answers that were kept\n(by their problems' tests)." in card


def test_a_model_whose_scores_are_not_there_is_exported_with_a_card_that_says_so(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "evaluations")
    result = export(run, "--to", tmp_path / "mine")
    assert result.exit_code == exits.OK, result.output
    assert "## Scores\n\nIt was not scored" in (tmp_path / "mine" / "README.md").read_text()


def test_of_both_methods_each_dev_set_is_marked_as_deciding(run: Path, tmp_path: Path) -> None:
    file = run / "run.json"
    told = json.loads(file.read_text())
    told["spec"]["methods"] = ["sra-mcts", "meteor"]
    told["spec"]["meteor"]["questions"]["dev"]["name"] = "held-out"
    file.write_text(json.dumps(told))
    for result in run.glob("generations/*/attempts/*/result.json"):
        result.write_text(result.read_text().replace('"name":"dev"', '"name":"all-dev"'))
    assert export(run, "--to", tmp_path / "mine").exit_code == exits.OK
    card = (tmp_path / "mine" / "README.md").read_text()
    for name in ("dev", "held-out"):
        assert f"| {name} (decided its promotion, with the others so marked) |" in card


@pytest.mark.slow  # imports transformers and loads a model
def test_an_export_is_loaded_by_transformers_alone(run: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before = content_id(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    write_model(tmp_path / "model", make_model())
    for file in [*run.rglob("*.json")]:
        file.write_text(file.read_text().replace(before, content_id(tmp_path / "model")))
    result = export(run, "--to", tmp_path / "mine")
    assert result.exit_code == exits.OK, result.output
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "mine")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "mine")
    prompt = tokenizer("hello", return_tensors="pt")
    assert model.generate(**prompt, max_new_tokens=3, do_sample=False).shape[1] > prompt["input_ids"].shape[1]


def test_a_directory_that_is_not_empty_is_refused_and_an_empty_one_is_taken(run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    result = export(run, "--to", tmp_path / "full")
    assert result.exit_code == exits.MISTAKE
    assert "is not empty; name one that is" in result.stderr
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert export(run, "--to", tmp_path / "empty").exit_code == exits.OK
    assert "is a file" in export(run, "--to", tmp_path / "full" / "mine.txt").stderr


def test_weights_that_were_changed_are_not_exported_and_nothing_is_left(run: Path, tmp_path: Path) -> None:
    (tmp_path / "model" / "model.safetensors").write_text("others")
    result = export(run, "--to", tmp_path / "mine")
    assert result.exit_code == exits.MISTAKE
    assert "is not the model that fabricated was scored with" in result.stderr
    assert not (tmp_path / "mine").exists()


def test_what_is_not_there_or_not_made_is_told(run: Path, tmp_path: Path) -> None:
    result = export(run, "--to", tmp_path / "mine", "--generation", "1")
    assert result.exit_code == exits.MISTAKE
    assert "the model of generation 1 of fabricated cannot be exported: model '/m/1': there is no directory" in (
        result.stderr
    )
    rejected = tmp_path / "rejected"
    RunDirectory(rejected).write_status(fabricate(rejected, WORSE))
    result = export(rejected, "--to", tmp_path / "mine")
    assert result.exit_code == exits.MISTAKE
    assert "there is nothing to export; --generation N exports" in result.stderr


def test_pushing_uploads_the_export_with_the_token_of_the_environment_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubDouble() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", SECRET)
        result = export(run, "--to", tmp_path / "mine", "--push", "me/better")
        assert result.exit_code == exits.OK, result.output
        assert f"pushed {hub.url}/me/better" in result.stderr
        assert hub.repositories == {"me/better": True}, "private unless it is asked to be public"
        assert set(hub.files) == {*FILES, "perseid-model.json", "README.md"}
        assert hub.files["model.safetensors"] == b"weights"
        assert hub.tokens == {f"Bearer {SECRET}"}
        assert SECRET not in result.output
        assert SECRET.encode() not in b"".join(hub.files.values())


def test_a_push_that_was_refused_keeps_the_export_and_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with HubDouble(refuse=403) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        result = export(run, "--to", tmp_path / "mine", "--push", "me/better")
        assert result.exit_code == exits.MISTAKE
        assert "the hub refused me/better (403)" in result.stderr
        assert "may write there" in result.stderr
        assert SECRET not in result.output
    with HubDouble() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        result = export(run, "--to", tmp_path / "mine", "--push", "me/better", "--public")
        assert result.exit_code == exits.OK, result.output
        assert hub.repositories == {"me/better": False}
        assert "README.md" in hub.files
    result = export(run, "--to", tmp_path / "mine", "--push", "no/such/name")
    assert result.exit_code == exits.MISTAKE
    assert "is not a valid name for the hub" in result.stderr


def test_a_hub_that_cannot_be_reached_is_told(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = export(run, "--to", tmp_path / "mine", "--push", "me/better")
    assert result.exit_code == exits.MISTAKE
    assert "the hub could not be reached" in result.stderr
    assert (tmp_path / "mine" / "README.md").exists()


def test_the_card_of_a_meteor_run_names_its_mentor_and_that_its_terms_may_bind(run: Path, tmp_path: Path) -> None:
    file = run / "run.json"
    file.write_text(file.read_text().replace('"sra-mcts"', '"sra-mcts", "meteor"', 1))
    assert export(run, "--to", tmp_path / "mine").exit_code == exits.OK
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "\n\nMETEOR (arXiv 2411.11933), on units of measurement, stages mentor-supervised, self-assessment" in card
    assert "answers of a mentor (recorded), whose terms of use may bind what learns from them" in card
    assert "Questions: questions-pack-train. None of them is an evaluation question." in card
    assert yaml.safe_load(card.split("---\n")[1])["tags"] == ["perseid", "sra-mcts", "meteor"]
