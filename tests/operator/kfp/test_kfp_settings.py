"""Which settings are taken, and where the links lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from perseid_operator.kfp import KfpClient, KfpSettings, KfpSettingsError


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"endpoint": "ml-pipeline:8888"}, "no http"),
        ({"endpoint": "ftp://kfp"}, "no http"),
        ({"endpoint": "http://"}, "no http"),
        ({"endpoint": "http://kfp:port"}, "no URL"),
        ({"endpoint": "http://kfp/apis/v2beta1"}, "must not contain /apis/v2beta1"),
        ({"endpoint": "http://me:secret@kfp"}, "user name or password"),
        ({"endpoint": "http://secret@kfp"}, "user name or password"),
        ({"endpoint": "http://kfp?a=b"}, "query or fragment"),
        ({"endpoint": "http://kfp", "ui_url": "kubeflow"}, "UI URL"),
        ({"endpoint": "http://kfp", "ui_url": "https://kubeflow.example/#/runs"}, "UI URL .* query or fragment"),
        ({"endpoint": "http://kfp", "connect_timeout": 0.0}, "connect time-out"),
        ({"endpoint": "http://kfp", "request_timeout": float("inf")}, "request time-out"),
        ({"endpoint": "https://kfp", "insecure": True, "ca_file": Path("/ca")}, "leave out one"),
        ({"endpoint": "http://kfp", "user_id": "a\nb"}, "printable ASCII"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(KfpSettingsError, match=complaint) as caught:
        KfpSettings(**settings)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


def test_the_endpoint_may_lie_below_a_path() -> None:
    assert KfpSettings("https://kubeflow.example/pipeline/").api_url == "https://kubeflow.example/pipeline/apis/v2beta1"


def test_links_lead_to_the_user_interface() -> None:
    settings = KfpSettings("http://kfp", ui_url="https://kubeflow.example/pipeline/")
    assert settings.run_url("a/b") == "https://kubeflow.example/pipeline/#/runs/details/a%2Fb"
    assert KfpSettings("http://kfp").run_url("1") is None


def test_with_several_users_a_link_names_the_profile_that_the_dashboard_is_to_show() -> None:
    settings = KfpSettings("http://kfp", namespace="team-a", ui_url="https://kubeflow.example/_/pipeline")
    assert settings.run_url("1") == "https://kubeflow.example/_/pipeline/?ns=team-a#/runs/details/1"


def test_a_ca_file_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(KfpSettingsError, match="CA file"):
        KfpClient(KfpSettings("https://kfp", ca_file=tmp_path / "missing"))
    (tmp_path / "ca").write_text("nonsense")
    with pytest.raises(KfpSettingsError, match="CA file"):
        KfpClient(KfpSettings("https://kfp", ca_file=tmp_path / "ca"))


def test_not_checking_certificates_and_sending_a_token_in_the_clear_are_said_aloud(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    KfpClient(KfpSettings("https://kfp", insecure=True))
    KfpClient(KfpSettings("http://kfp", token_file=tmp_path / "token"))
    assert [record.message for record in caplog.records] == [
        "the certificate of KFP at https://kfp is not checked (insecure)",
        "the token for KFP goes to http://kfp unencrypted",
    ]
