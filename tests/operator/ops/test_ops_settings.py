from __future__ import annotations

from pathlib import Path

import pytest

from perseid.api.pipeline import EnvSpec, ImagePullSecretSpec, SecretEnvSpec, StageDefaults
from perseid_operator.settings import VARIABLES, Settings, SettingsError, load_settings

LEAST = {"PERSEID_KFP_ENDPOINT": "http://ml-pipeline.kubeflow:8888", "PERSEID_STORAGE": "s3://models/perseid/"}
NOWHERE = Path("/nowhere/namespace")
DEPLOYED = Path(__file__).parents[3] / "manifests" / "base" / "kustomization.yaml"


def load(**changes: str) -> Settings:
    return load_settings({**LEAST, **changes}, NOWHERE)


def mistakes(**changes: str) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        load(**changes)
    return dict(caught.value.mistakes)


def test_the_least_that_must_be_said_is_where_kfp_and_the_storage_are() -> None:
    settings = load()
    assert settings == Settings(kfp=settings.kfp, storage="s3://models/perseid")
    assert settings.kfp.endpoint == "http://ml-pipeline.kubeflow:8888"
    assert settings.kfp.request_timeout == 30
    assert settings.cluster_wide


def test_every_variable_reaches_its_setting(tmp_path: Path) -> None:
    authority = tmp_path / "ca.crt"
    authority.touch()
    settings = load(
        PERSEID_KFP_NAMESPACE="team",
        PERSEID_KFP_TOKEN_FILE="/var/run/token",
        PERSEID_KFP_CA_FILE=str(authority),
        PERSEID_KFP_UI_URL="https://kubeflow.example/pipeline",
        PERSEID_KFP_TIMEOUT_SECONDS="7.5",
        PERSEID_STORAGE="/data/runs",
        PERSEID_STAGE_IMAGE="images.example.org/perseid-stage:1",
        PERSEID_STAGE_ENV='[{"name": "AWS_REGION", "value": "here"}]',
        PERSEID_STAGE_SECRET_ENV='[{"name": "AWS_ACCESS_KEY_ID", "secret": "s3", "key": "id"}]',
        PERSEID_STAGE_SERVICE_ACCOUNT="stages",
        PERSEID_STAGE_IMAGE_PULL_SECRETS="registry, other",
        PERSEID_WATCH_NAMESPACE=" a, b ,a",
        PERSEID_POLL_SECONDS="0.2",
        PERSEID_SUBMIT_GRACE_SECONDS="90",
        PERSEID_WORKFLOWS="ON",
        PERSEID_WORKFLOWS_NAMESPACE="flows",
        PERSEID_LOST_RUN_SECONDS="100",
        PERSEID_CANCEL_SECONDS="101",
        PERSEID_CLEANUP_SECONDS="102",
        PERSEID_PROGRESS_SECONDS="5",
        PERSEID_HTTP_PORT="0",
        PERSEID_LEADER_ELECTION="True",
        PERSEID_LEASE_NAMESPACE="leases",
        PERSEID_LOG_FORMAT="text",
        PERSEID_LOG_LEVEL="debug",
    )
    kfp = settings.kfp
    assert (kfp.namespace, kfp.token_file, kfp.ca_file) == ("team", Path("/var/run/token"), authority)
    assert (kfp.ui_url, kfp.request_timeout) == ("https://kubeflow.example/pipeline", 7.5)
    assert settings == Settings(
        kfp=kfp,
        storage="/data/runs",
        stages=StageDefaults(
            image="images.example.org/perseid-stage:1",
            env=[EnvSpec(name="AWS_REGION", value="here")],
            secret_env=[SecretEnvSpec(name="AWS_ACCESS_KEY_ID", secret="s3", key="id")],
            service_account="stages",
            image_pull_secrets=[ImagePullSecretSpec(name="registry"), ImagePullSecretSpec(name="other")],
        ),
        watch_namespaces=("a", "b"),
        poll_seconds=0.2,
        submit_grace_seconds=90,
        workflows="on",
        workflows_namespace="flows",
        lost_run_seconds=100,
        cancel_seconds=101,
        cleanup_seconds=102,
        progress_seconds=5,
        http_port=0,
        leader_election=True,
        lease_namespace="leases",
        log_format="text",
        log_level="DEBUG",
    )
    assert not settings.cluster_wide


def test_the_list_of_variables_is_the_variables_that_are_read() -> None:
    class Watched(dict[str, str]):
        asked: set[str] = set()

        def get(self, key: str, default: str = "") -> str:  # type: ignore[override]
            self.asked.add(key)
            return super().get(key, default)

    load_settings(Watched(LEAST), NOWHERE)
    assert Watched.asked == set(VARIABLES)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load(**{name: " " for name in VARIABLES if name not in LEAST}) == load()


def test_all_mistakes_are_told_at_once_with_what_is_allowed() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(
            {"PERSEID_POLL_SECONDS": "soon", "PERSEID_HTTP_PORT": "80800", "PERSEID_WORKFLOWS": "maybe"}, NOWHERE
        )
    told = dict(caught.value.mistakes)
    assert set(told) == {
        "PERSEID_KFP_ENDPOINT",
        "PERSEID_STORAGE",
        "PERSEID_POLL_SECONDS",
        "PERSEID_HTTP_PORT",
        "PERSEID_WORKFLOWS",
    }
    assert told["PERSEID_POLL_SECONDS"] == "is 'soon'; give a number of seconds above 0 and at most 3600"
    for variable, what in told.items():
        assert f"{variable}: {what}" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PERSEID_KFP_ENDPOINT", "ml-pipeline:8888"),
        ("PERSEID_KFP_ENDPOINT", "http://kfp/apis/v2beta1"),
        ("PERSEID_KFP_UI_URL", "kubeflow.example"),
        ("PERSEID_KFP_NAMESPACE", "Team_A"),
        ("PERSEID_KFP_TOKEN_FILE", "token"),
        ("PERSEID_KFP_CA_FILE", "/nowhere/ca.crt"),
        ("PERSEID_KFP_TIMEOUT_SECONDS", "0"),
        ("PERSEID_STORAGE", "runs"),
        ("PERSEID_STORAGE", "/"),
        ("PERSEID_STORAGE", "/data/../etc"),
        ("PERSEID_STORAGE", "s3://"),
        ("PERSEID_STORAGE", "s3://[bucket"),
        ("PERSEID_STORAGE", "s3://bucket/prefix?region=x"),
        ("PERSEID_STORAGE", "gs://bucket"),
        ("PERSEID_STAGE_IMAGE", 1025 * "x"),
        ("PERSEID_STAGE_ENV", "AWS_REGION=here"),
        ("PERSEID_STAGE_ENV", '[{"name": "AWS REGION", "value": "here"}]'),
        ("PERSEID_STAGE_SECRET_ENV", '[{"name": "AWS_ACCESS_KEY_ID", "value": "id"}]'),
        ("PERSEID_STAGE_SERVICE_ACCOUNT", "Stages"),
        ("PERSEID_STAGE_IMAGE_PULL_SECRETS", "Registry"),
        ("PERSEID_WATCH_NAMESPACE", "a,,b"),
        ("PERSEID_POLL_SECONDS", "nan"),
        ("PERSEID_POLL_SECONDS", "-1"),
        ("PERSEID_SUBMIT_GRACE_SECONDS", "inf"),
        ("PERSEID_HTTP_PORT", "\u0663"),
        ("PERSEID_LEADER_ELECTION", "yes"),
        ("PERSEID_LEASE_NAMESPACE", "a,b"),
        ("PERSEID_LOG_FORMAT", "xml"),
        ("PERSEID_LOG_LEVEL", "LOUD"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_name(variable: str, value: str) -> None:
    assert set(mistakes(**{variable: value})) == {variable}


def test_a_password_in_a_url_is_not_repeated() -> None:
    told = mistakes(PERSEID_STORAGE="s3://me:hunter2@bucket/a", PERSEID_KFP_ENDPOINT="http://me:hunter2@kfp")
    assert len(told) == 2
    assert not any("hunter2" in what for what in told.values())


def test_a_variable_that_is_nearly_spelled_like_one_is_a_mistake() -> None:
    assert mistakes(PERSEID_POLL_SECOND="5") == {
        "PERSEID_POLL_SECOND": "is no setting; did you mean PERSEID_POLL_SECONDS?"
    }


def test_variables_that_kubernetes_adds_for_services_are_left_alone() -> None:
    load(
        PERSEID_OPERATOR_METRICS_SERVICE_HOST="10.0.0.1",
        PERSEID_OPERATOR_METRICS_SERVICE_PORT_HTTP="8080",
        PERSEID_OPERATOR_METRICS_PORT="tcp://10.0.0.1:8080",
    )


def test_the_grace_of_a_submission_depends_on_whether_workflows_are_seen_unless_it_is_given() -> None:
    assert load().submit_grace(workflows_seen=True) == 60
    assert load().submit_grace(workflows_seen=False) == 600
    given = load(PERSEID_SUBMIT_GRACE_SECONDS="45")
    assert given.submit_grace(workflows_seen=True) == given.submit_grace(workflows_seen=False) == 45


def test_a_submission_is_not_given_up_while_its_request_may_still_be_under_way() -> None:
    assert "PERSEID_SUBMIT_GRACE_SECONDS" in mistakes(PERSEID_SUBMIT_GRACE_SECONDS="30")
    assert "PERSEID_SUBMIT_GRACE_SECONDS" in mistakes(PERSEID_KFP_TIMEOUT_SECONDS="60")
    load(PERSEID_KFP_TIMEOUT_SECONDS="60", PERSEID_WORKFLOWS="off")


def test_a_run_is_not_lost_after_one_slow_round() -> None:
    assert "PERSEID_LOST_RUN_SECONDS" in mistakes(PERSEID_LOST_RUN_SECONDS="29")
    load(PERSEID_LOST_RUN_SECONDS="30")


def test_the_lease_is_in_the_pods_own_namespace_unless_another_is_named(tmp_path: Path) -> None:
    own = tmp_path / "namespace"
    own.write_text("perseid-system\n")
    elected = {**LEAST, "PERSEID_LEADER_ELECTION": "true"}
    assert load_settings(elected, own).lease_namespace == "perseid-system"
    assert load_settings({**elected, "PERSEID_LEASE_NAMESPACE": "leases"}, own).lease_namespace == "leases"
    assert set(mistakes(PERSEID_LEADER_ELECTION="true")) == {"PERSEID_LEASE_NAMESPACE"}
    assert load().lease_namespace is None


def test_the_manifests_set_only_variables_that_there_are() -> None:
    names = {
        word.split("=")[0].strip("- ")
        for word in DEPLOYED.read_text(encoding="utf-8").splitlines()
        if word.strip().startswith("- PERSEID_")
    }
    assert names
    assert names <= set(VARIABLES)
