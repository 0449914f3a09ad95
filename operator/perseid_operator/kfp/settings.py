"""How to reach Kubeflow Pipelines, and as whom."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from perseid_operator.kfp.errors import KfpSettingsError

API = "/apis/v2beta1"


@dataclass(frozen=True, slots=True)
class KfpSettings:
    """The connection to one KFP API server. Raises KfpSettingsError."""

    endpoint: str
    """URL of the API server or of the proxy in front of it, without /apis: `http://ml-pipeline.kubeflow:8888`."""
    namespace: str | None = None
    """Profile namespace in multi-user mode; None in single-user mode."""
    token_file: Path | None = None
    """File with a service account token, in a projected volume with the audience that KFP wants. Read again whenever
    it changes."""
    user_id: str | None = None
    """Value of the header `kubeflow-userid`, which is the mesh's to set. For tests and port-forwards only."""
    ca_file: Path | None = None
    """Certificate authority of the endpoint; None for the system's."""
    insecure: bool = False
    """Do not check the endpoint's certificate. The client warns at every start."""
    connect_timeout: float = 5.0
    """Seconds to a connection, TLS included."""
    request_timeout: float = 30.0
    """Seconds to the whole answer, the connection included."""
    ui_url: str | None = None
    """Root of the pipelines' user interface, for links: KFP's own, or in Kubeflow's dashboard
    `https://kubeflow.example/_/pipeline`."""

    def __post_init__(self) -> None:
        _check_url("endpoint", self.endpoint)
        if self.ui_url is not None:
            _check_url("UI URL", self.ui_url)
        if API in urlsplit(self.endpoint).path:
            raise KfpSettingsError(f"the KFP endpoint {self.endpoint} must not contain {API}: give the URL before it")
        for name, seconds in (("connect", self.connect_timeout), ("request", self.request_timeout)):
            if not (seconds > 0 and math.isfinite(seconds)):
                raise KfpSettingsError(f"the KFP {name} time-out is {seconds}; give seconds above 0")
        if self.insecure and self.ca_file is not None:
            raise KfpSettingsError("a CA file has no use where KFP's certificate is not checked; leave out one of both")
        if self.user_id is not None and not (self.user_id.isascii() and self.user_id.isprintable()):
            raise KfpSettingsError("the KFP user id must be printable ASCII: it is sent as a header")

    @property
    def api_url(self) -> str:
        """URL below which the calls lie."""
        return self.endpoint.rstrip("/") + API

    def run_url(self, run_id: str) -> str | None:
        """Link to a run in the user interface; None where no user interface is known."""
        if self.ui_url is None:
            return None
        # With several users, Kubeflow's dashboard shows the profile that was chosen last unless a link names one.
        profile = "" if self.namespace is None else f"?ns={quote(self.namespace, safe='')}"
        return f"{self.ui_url.rstrip('/')}/{profile}#/runs/details/{quote(run_id, safe='')}"


def _check_url(what: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port
    except ValueError as error:
        raise KfpSettingsError(f"the KFP {what} is no URL: {error}") from None
    if not usable:
        raise KfpSettingsError(f"the KFP {what} {url!r} is no http:// or https:// URL")
    if parts.username is not None or parts.password is not None:
        raise KfpSettingsError(f"the KFP {what} carries a user name or password; use a token file instead")
    if parts.query or parts.fragment:
        raise KfpSettingsError(f"the KFP {what} {url!r} has a query or fragment; give the root alone")
