"""Whatever is wrong between the command and the cluster is one paragraph and exit code 2, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_runs import CHANGES, ClusterRun, changeable_by
from stand_in_api import StandInApi
from typer.testing import CliRunner, Result

from perseid.cli import exits
from perseid_operator.cli import commands

Perseid = Callable[..., Result]


def paragraph(result: Result) -> str:
    """The error, after seeing that it is one."""
    assert result.exit_code == exits.MISTAKE, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


ALL_COMMANDS = [
    ("get", "small"),
    ("describe", "small"),
    ("logs", "small"),
    ("suspend", "small"),
    ("resume", "small"),
    ("approve", "small"),
    ("report", "small"),
]


@pytest.mark.parametrize("command", [*ALL_COMMANDS, ("get",)], ids=" ".join)
def test_an_expired_token_asks_to_log_in_again(
    api: StandInApi, perseid: Perseid, tmp_path: Path, command: tuple[str, ...]
) -> None:
    api.put(ClusterRun().object())
    expired = api.kubeconfig(tmp_path, token="expired")
    said = paragraph(perseid(*command, "--kubeconfig", expired))
    assert "the token has expired or was never valid. Log in again" in said
    assert f"context stand-in in {expired}" in said


@pytest.mark.parametrize("command", ALL_COMMANDS, ids=" ".join)
def test_what_is_forbidden_is_told_by_verb_and_namespace(
    api: StandInApi, perseid: Perseid, command: tuple[str, ...]
) -> None:
    api.put(ClusterRun().object())
    api.forbidden.add(("get", "evolutionruns", "lab"))
    said = paragraph(perseid(*command))
    assert "you may not get evolutionruns small in namespace lab" in said
    assert 'User "kim" cannot get resource "evolutionruns"' in said


def test_a_list_that_is_forbidden_is_told_by_its_extent(api: StandInApi, perseid: Perseid) -> None:
    api.forbidden |= {("list", "evolutionruns", ""), ("list", "evolutionruns", "lab")}
    assert "you may not list evolutionruns in all namespaces" in paragraph(perseid("get", "-A"))
    assert "you may not list evolutionruns in namespace lab" in paragraph(perseid("get"))


@pytest.mark.parametrize("command", CHANGES)
def test_a_change_that_is_forbidden_changes_nothing(api: StandInApi, perseid: Perseid, command: str) -> None:
    api.put(changeable_by(command).object())
    api.forbidden.add(("patch", "evolutionruns", "lab"))
    assert "you may not patch evolutionruns small in namespace lab" in paragraph(perseid(command, "small"))
    assert api.patches == []


@pytest.mark.parametrize("command", [*ALL_COMMANDS, ("get",), ("get", "-A")], ids=" ".join)
def test_a_cluster_without_the_kind_is_told_to_install_the_operator(
    api: StandInApi, perseid: Perseid, command: tuple[str, ...]
) -> None:
    api.knows_the_kind = False
    said = paragraph(perseid(*command))
    assert "does not know EvolutionRuns: the CustomResourceDefinition evolutionruns.perseid.dev" in said
    assert "Install Perseid's operator" in said


@pytest.mark.parametrize("command", ALL_COMMANDS, ids=" ".join)
def test_a_run_that_is_not_there_is_told_with_the_nearest_name(
    api: StandInApi, perseid: Perseid, command: tuple[str, ...]
) -> None:
    api.put(ClusterRun("smaller-one").object())
    api.put(ClusterRun("zebra").object())
    verb, _ = command
    assert "there is no EvolutionRun smaler-one in namespace lab" in paragraph(perseid(verb, "smaler-one"))
    assert "did you mean smaller-one?" in paragraph(perseid(verb, "smaler-one"))
    assert "there are smaller-one, zebra" in paragraph(perseid(verb, "unlike-all-others"))


def test_without_the_right_to_list_no_names_are_guessed(api: StandInApi, perseid: Perseid) -> None:
    api.put(ClusterRun("smaller-one").object())
    api.forbidden.add(("list", "evolutionruns", "lab"))
    said = paragraph(perseid("describe", "smaler-one"))
    assert "there is no EvolutionRun smaler-one in namespace lab" in said
    assert "smaller-one" not in said


def test_a_cluster_that_is_not_there_is_told_with_its_address(perseid: Perseid, tmp_path: Path) -> None:
    with StandInApi() as gone:
        config = gone.kubeconfig(tmp_path)
    said = paragraph(perseid("get", "--kubeconfig", config))
    assert f"the API server at {gone.url} (context stand-in in {config}) cannot be reached" in said
    assert "Is the cluster up" in said


def test_a_server_that_never_answers_is_given_up(
    api: StandInApi, perseid: Perseid, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    let_go = threading.Event()
    monkeypatch.setattr("perseid_operator.cli.access.REQUEST_SECONDS", 0.2)
    api.before = lambda verb, resource: let_go.wait(30) and None  # type: ignore[func-returns-value]
    try:
        assert "cannot be reached: no answer within 0.2 s" in paragraph(perseid("get"))
    finally:
        let_go.set()


def test_certificates_that_do_not_fit_are_told_as_such(api: StandInApi, perseid: Perseid, tmp_path: Path) -> None:
    config = json.loads(api.kubeconfig(tmp_path).read_text())
    config["clusters"][0]["cluster"]["server"] = api.url.replace("http", "https")  # which it does not speak
    path = tmp_path / "tls"
    path.write_text(json.dumps(config))
    assert "certificates of the API server" in paragraph(perseid("get", "--kubeconfig", path))


def test_a_page_for_signing_in_is_not_taken_for_an_answer(api: StandInApi, perseid: Perseid) -> None:
    api.put(ClusterRun().object())
    for verb in ("list", "get", "patch"):
        api.answers[verb, "evolutionruns"] = (200, "<html>Sign in</html>")
    assert "did not answer like an API server" in paragraph(perseid("get"))
    assert "a proxy's page for signing in" in paragraph(perseid("describe", "small"))


@pytest.mark.parametrize(("code", "text"), [(500, "etcd is down"), (429, "too many requests")])
def test_a_server_in_trouble_is_quoted(api: StandInApi, perseid: Perseid, code: int, text: str) -> None:
    api.answers["list", "evolutionruns"] = (code, text)
    said = paragraph(perseid("get"))
    assert f"answered {code} when asked to list evolutionruns in namespace lab: {text}; try again" in said


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        (422, "spec.suspendPolicy: Unsupported value", "spec.suspendPolicy: Unsupported value"),
        (409, "modified", "somebody changed it at the same time, so nothing was done"),
    ],
    ids=["refused", "a conflict"],
)
@pytest.mark.parametrize("command", CHANGES)
def test_a_change_that_the_server_does_not_take_is_told_with_its_reason(
    api: StandInApi, perseid: Perseid, command: str, code: int, message: str, words: str
) -> None:
    api.put(changeable_by(command).object())
    api.answers["patch", "evolutionruns"] = (code, json.dumps({"kind": "Status", "message": message, "code": code}))
    assert words in paragraph(perseid(command, "small"))


@pytest.mark.parametrize("command", CHANGES)
def test_an_object_that_was_made_anew_in_between_is_not_changed(
    api: StandInApi, perseid: Perseid, command: str
) -> None:
    api.put(changeable_by(command).object())
    other = ClusterRun(uid="11111111-8a51-4b7e-9d15-0d6a3b0c2f11").object()
    api.before = lambda verb, resource: api.put(other) if verb == "patch" else None
    assert "has just been deleted and made anew, so nothing was done" in paragraph(perseid(command, "small"))
    stored = api.runs["lab", "small"]
    assert (stored["spec"], stored["metadata"]["annotations"]) == (other["spec"], {})


@pytest.mark.parametrize("command", CHANGES)
def test_a_run_that_is_deleted_in_between_is_told(api: StandInApi, perseid: Perseid, command: str) -> None:
    api.put(changeable_by(command).object())
    api.before = lambda verb, resource: api.delete("lab", "small") if verb == "patch" else None
    assert "EvolutionRun small has just been deleted from namespace lab" in paragraph(perseid(command, "small"))


def without_a_cluster(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(home))


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


def test_without_a_kubeconfig_one_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_a_cluster(monkeypatch, tmp_path)
    said = paragraph(invoke("get"))
    assert "there is no kubeconfig: ~/.kube/config does not exist" in said
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    assert f"there is no kubeconfig: {tmp_path / 'absent'} does not exist" in paragraph(invoke("get"))
    assert "but there is no such file" in paragraph(invoke("get", "--kubeconfig", tmp_path / "absent"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[", "cannot be read"),
        ("just a text", "is no kubeconfig"),
        ("{clusters: [], users: [], contexts: []}", "has no current-context"),
        ("{current-context: a, clusters: [], users: [], contexts: []}", "has no context a (it has none)"),
        (
            "{current-context: a, clusters: [], users: [], contexts: [{name: a, context: {cluster: b, user: c}}]}",
            "the context a in",
        ),
    ],
    ids=["no YAML", "no mapping", "no choice", "unknown context", "unknown cluster"],
)
def test_a_broken_kubeconfig_is_told_with_its_mistake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, expected: str
) -> None:
    without_a_cluster(monkeypatch, tmp_path)
    path = tmp_path / "broken"
    path.write_text(content)
    said = " ".join(invoke("get", "--kubeconfig", path).stderr.split())
    assert expected in said
    assert "Traceback" not in said
    assert invoke("get", "--kubeconfig", path).exit_code == exits.MISTAKE


def test_a_context_that_is_not_there_is_told_with_those_that_are(perseid: Perseid) -> None:
    assert "has no context prod (it has stand-in)" in paragraph(perseid("get", "--context", "prod"))


def test_the_first_kubeconfigs_choice_and_the_contexts_namespace_count(
    api: StandInApi, perseid: Perseid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put(ClusterRun("here", "lab").object())
    api.put(ClusterRun("there", "other").object())
    second = json.loads(api.kubeconfig(tmp_path, namespace="other").read_text())
    second["contexts"][0]["name"] = second["current-context"] = "second"
    (tmp_path / "second").write_text(json.dumps(second))
    first = api.kubeconfig(tmp_path, namespace="lab")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'absent'}:{tmp_path / 'second'}")
    assert "here" in perseid("get").stdout
    assert "there" in perseid("get", "--context", "second").stdout


def test_a_context_without_a_namespace_means_the_namespace_default(
    api: StandInApi, perseid: Perseid, tmp_path: Path
) -> None:
    api.put(ClusterRun("mine", "default").object())
    result = perseid("get", "--kubeconfig", api.kubeconfig(tmp_path, namespace=None))
    assert "mine" in result.stdout


def test_a_name_and_all_namespaces_do_not_go_together(perseid: Perseid) -> None:
    assert "--all-namespaces do not go together" in paragraph(perseid("get", "small", "-A"))
