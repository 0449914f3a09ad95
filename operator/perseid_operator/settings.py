"""The operator's settings: environment variables, read and checked once, at the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, cast, get_args

from pydantic import ValidationError

from perseid.api.pipeline import StageDefaults
from perseid_operator.kfp.errors import KfpSettingsError
from perseid_operator.kfp.settings import KfpSettings
from perseid_operator.setting_values import Reader, SettingsError

__all__ = ["VARIABLES", "LogFormat", "LogLevel", "Settings", "SettingsError", "WorkflowSight", "load_settings"]

WorkflowSight = Literal["auto", "on", "off"]
LogFormat = Literal["json", "text"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

GRACE_SECONDS_BLIND = 600.0
"""KFP was seen to keep a Workflow without a row for 450 s, and to execute it meanwhile."""
GRACE_SECONDS_SEEING = 60.0
"""KFP makes the Workflow before the row: who sees Workflows sees what a lost answer left behind."""
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DAY = 86_400.0

VARIABLES: Mapping[str, str] = {
    "PERSEID_KFP_ENDPOINT": "URL of the Kubeflow Pipelines API, without /apis. Required.",
    "PERSEID_KFP_NAMESPACE": "Namespace of the pipeline runs in a multi-user installation.",
    "PERSEID_KFP_TOKEN_FILE": "File with the token for that API, read again whenever it changes.",
    "PERSEID_KFP_CA_FILE": "File with the certificate authority of that API.",
    "PERSEID_KFP_UI_URL": (
        "Root of the pipelines' UI as seen by people, for links: the address of KFP's own, or with Kubeflow's dashboard"
        " https://HOST/_/pipeline."
    ),
    "PERSEID_KFP_TIMEOUT_SECONDS": "Longest wait for an answer of that API. Default: 30.",
    "PERSEID_STORAGE": "Root of the runs' files: s3://bucket/prefix, or an absolute directory. Required.",
    "PERSEID_STAGE_IMAGE": "Image of the stages of runs that name none. Empty: perseid-stage:latest.",
    "PERSEID_STAGE_ENV": "Environment variables of all stages: a JSON list, as spec.pipeline.env of a run.",
    "PERSEID_STAGE_SECRET_ENV": "Those from Secrets of the stages' namespace: a JSON list, as spec.pipeline.secretEnv.",
    "PERSEID_STAGE_SERVICE_ACCOUNT": "Service account of the stages of runs that name none. Empty: KFP's own.",
    "PERSEID_STAGE_IMAGE_PULL_SECRETS": "Secrets for the registry of the stages' image, separated by commas.",
    "PERSEID_WATCH_NAMESPACE": "Namespaces of the EvolutionRuns, separated by commas. Empty: all.",
    "PERSEID_POLL_SECONDS": "Between two looks at the runs under way. Default: 15.",
    "PERSEID_SUBMIT_GRACE_SECONDS": (
        "How long a run may still appear after its submission was not answered. Default: 60 where Workflows are seen,"
        " 600 where not."
    ),
    "PERSEID_WORKFLOWS": "Whether Argo Workflows are looked at: auto (where allowed), on, off. Default: auto.",
    "PERSEID_WORKFLOWS_NAMESPACE": "Namespace of the Workflows. Empty: wherever KFP makes them.",
    "PERSEID_LOST_RUN_SECONDS": "How long a run's Workflow may be missing before the run counts as lost. Default: 300.",
    "PERSEID_CANCEL_SECONDS": "After that long in CANCELING a run is deleted. Default: 300.",
    "PERSEID_CLEANUP_SECONDS": "How long a deleted EvolutionRun waits for its runs to end. Default: 600.",
    "PERSEID_PROGRESS_SECONDS": "Least time between two status writes that only tell progress. Default: 30.",
    "PERSEID_HTTP_PORT": "Port of /livez, /readyz and /metrics; 0: any that is free. Default: 8080.",
    "PERSEID_LEADER_ELECTION": "Whether several replicas share a Lease: true or false. Default: false.",
    "PERSEID_LEASE_NAMESPACE": "Namespace of the Lease. Default: the pod's own.",
    "PERSEID_LOG_FORMAT": "json or text. Default: json.",
    "PERSEID_LOG_LEVEL": "DEBUG, INFO, WARNING or ERROR. Default: INFO.",
}
"""Every variable, and what it says."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator was told at its start. Times are seconds."""

    kfp: KfpSettings
    """How to reach Kubeflow Pipelines."""
    storage: str
    """Root of the runs' files, without a slash at its end."""
    stages: StageDefaults = field(default_factory=StageDefaults)
    """What stages get whose run says nothing of it."""
    watch_namespaces: tuple[str, ...] = ()
    """Empty: the whole cluster."""
    poll_seconds: float = 15.0
    submit_grace_seconds: float | None = None
    """None: by whether Workflows are seen, see `submit_grace`."""
    workflows: WorkflowSight = "auto"
    workflows_namespace: str | None = None
    """None: wherever KFP makes them."""
    lost_run_seconds: float = 300.0
    cancel_seconds: float = 300.0
    cleanup_seconds: float = 600.0
    progress_seconds: float = 30.0
    http_port: int = 8080
    leader_election: bool = False
    lease_namespace: str | None = None
    """Never None where `leader_election` is True."""
    log_format: LogFormat = "json"
    log_level: LogLevel = "INFO"

    @property
    def cluster_wide(self) -> bool:
        """Whether the EvolutionRuns of all namespaces are carried through."""
        return not self.watch_namespaces

    def submit_grace(self, workflows_seen: bool) -> float:
        """How many seconds a run may still appear after its submission was not answered."""
        if self.submit_grace_seconds is not None:
            return self.submit_grace_seconds
        return GRACE_SECONDS_SEEING if workflows_seen else GRACE_SECONDS_BLIND


def load_settings(environ: Mapping[str, str], namespace_file: Path = NAMESPACE_FILE) -> Settings:
    """Read the settings. A variable that is empty counts as not set.

    Raises SettingsError, which tells every mistake: also a variable that is none but nearly spelled like one.
    """
    read = Reader(environ)
    _check_spelling(environ, read)
    settings = Settings(
        kfp=_kfp(read),
        storage=read.storage("PERSEID_STORAGE"),
        stages=_stages(read),
        watch_namespaces=read.namespaces("PERSEID_WATCH_NAMESPACE"),
        poll_seconds=read.seconds("PERSEID_POLL_SECONDS", 15.0, at_most=3600.0),
        submit_grace_seconds=read.optional_seconds("PERSEID_SUBMIT_GRACE_SECONDS", at_most=DAY),
        workflows=cast("WorkflowSight", read.choice("PERSEID_WORKFLOWS", get_args(WorkflowSight), "auto")),
        workflows_namespace=read.namespace("PERSEID_WORKFLOWS_NAMESPACE"),
        lost_run_seconds=read.seconds("PERSEID_LOST_RUN_SECONDS", 300.0, at_most=DAY),
        cancel_seconds=read.seconds("PERSEID_CANCEL_SECONDS", 300.0, at_most=DAY),
        cleanup_seconds=read.seconds("PERSEID_CLEANUP_SECONDS", 600.0, at_most=DAY),
        progress_seconds=read.seconds("PERSEID_PROGRESS_SECONDS", 30.0, at_most=3600.0),
        http_port=read.port("PERSEID_HTTP_PORT", 8080),
        leader_election=read.flag("PERSEID_LEADER_ELECTION", False),
        lease_namespace=read.namespace("PERSEID_LEASE_NAMESPACE") or _own_namespace(namespace_file),
        log_format=cast("LogFormat", read.choice("PERSEID_LOG_FORMAT", get_args(LogFormat), "json")),
        log_level=cast("LogLevel", read.choice("PERSEID_LOG_LEVEL", get_args(LogLevel), "INFO")),
    )
    _check_together(settings, read, namespace_file)
    read.raise_mistakes()
    return settings


def _kfp(read: Reader) -> KfpSettings:
    endpoint = read.required("PERSEID_KFP_ENDPOINT", "a URL such as http://ml-pipeline.kubeflow.svc:8888")
    ui_url = read.text("PERSEID_KFP_UI_URL")
    stand_in = KfpSettings(endpoint="http://not-set")
    if endpoint is not None:
        try:
            KfpSettings(endpoint=endpoint)
        except KfpSettingsError as error:
            read.mistake("PERSEID_KFP_ENDPOINT", error.args[0])
            endpoint = None
    if ui_url is not None:
        try:
            KfpSettings(endpoint=stand_in.endpoint, ui_url=ui_url)
        except KfpSettingsError as error:
            read.mistake("PERSEID_KFP_UI_URL", error.args[0])
            ui_url = None
    return KfpSettings(
        endpoint=endpoint or stand_in.endpoint,  # Nobody sees the stand-in: its mistake is raised.
        namespace=read.namespace("PERSEID_KFP_NAMESPACE"),
        # It may appear, and does change, later: whoever uses it says what is wrong with it.
        token_file=read.file("PERSEID_KFP_TOKEN_FILE", must_exist=False),
        ca_file=read.file("PERSEID_KFP_CA_FILE", must_exist=True),
        request_timeout=read.seconds("PERSEID_KFP_TIMEOUT_SECONDS", 30.0, at_most=600.0),
        ui_url=ui_url,
    )


def _stages(read: Reader) -> StageDefaults:
    secrets = (read.text("PERSEID_STAGE_IMAGE_PULL_SECRETS") or "").split(",")
    given = {
        "PERSEID_STAGE_IMAGE": ("image", read.text("PERSEID_STAGE_IMAGE")),
        "PERSEID_STAGE_ENV": ("env", read.json_list("PERSEID_STAGE_ENV")),
        "PERSEID_STAGE_SECRET_ENV": ("secret_env", read.json_list("PERSEID_STAGE_SECRET_ENV")),
        "PERSEID_STAGE_SERVICE_ACCOUNT": ("service_account", read.text("PERSEID_STAGE_SERVICE_ACCOUNT")),
        "PERSEID_STAGE_IMAGE_PULL_SECRETS": (
            "image_pull_secrets",
            [{"name": one.strip()} for one in secrets if one.strip()],
        ),
    }
    fitting = {}
    for variable, (name, value) in given.items():
        try:
            StageDefaults.model_validate({name: value})
            fitting[name] = value
        except ValidationError as error:
            first = error.errors()[0]
            where = "".join(f"[{part}]" if isinstance(part, int) else f" {part}" for part in first["loc"][1:])
            read.mistake(variable, f"is not what a run's spec.pipeline takes: {where.strip()} {first['msg']}")
    return StageDefaults.model_validate(fitting)


def _check_together(settings: Settings, read: Reader, namespace_file: Path) -> None:
    """What is wrong only where two settings meet."""
    timeout = settings.kfp.request_timeout
    # With "auto" sight may be there or not, so the shorter grace must hold too.
    grace = settings.submit_grace(workflows_seen=settings.workflows != "off")
    if grace <= timeout:
        read.mistake(
            "PERSEID_SUBMIT_GRACE_SECONDS",
            f"{grace:g} is no more than PERSEID_KFP_TIMEOUT_SECONDS ({timeout:g}): a submission could still be under"
            " way when it is given up; give a longer grace or a shorter time-out",
        )
    if settings.lost_run_seconds < 2 * settings.poll_seconds:
        read.mistake(
            "PERSEID_LOST_RUN_SECONDS",
            f"{settings.lost_run_seconds:g} is less than two rounds of PERSEID_POLL_SECONDS"
            f" ({settings.poll_seconds:g}): one slow answer would lose a run; give at least"
            f" {2 * settings.poll_seconds:g}",
        )
    if (
        settings.leader_election
        and settings.lease_namespace is None
        and not read.is_mistaken("PERSEID_LEASE_NAMESPACE")
    ):
        read.mistake(
            "PERSEID_LEASE_NAMESPACE",
            f"is not set, and {namespace_file} cannot be read; name the namespace of the Lease",
        )


def _check_spelling(environ: Mapping[str, str], read: Reader) -> None:
    # Kubernetes adds variables of its own for services (PERSEID_..._SERVICE_HOST), so only near misses are mistakes.
    for name in sorted(environ):
        if name.startswith("PERSEID_") and name not in VARIABLES:
            near = get_close_matches(name, VARIABLES, n=1, cutoff=0.9)
            if near:
                read.mistake(name, f"is no setting; did you mean {near[0]}?")


def _own_namespace(namespace_file: Path) -> str | None:
    try:
        return namespace_file.read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
