"""What the client refuses to send, and what it sends."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfp_samples import PIPELINE, PLATFORM, run_request

from perseid_operator.kfp import MAX_BODY_BYTES, KfpClient, RunRejectedError, RunRequest
from perseid_operator.kfp.request import MAX_PARAMETERS_BYTES

REQUEST = run_request("8ce2b0f0-0000-4000-8000-000000000000")


def test_the_body_nests_the_pipeline_and_its_part_for_kubernetes() -> None:
    request = replace(REQUEST, pipeline_root="s3://bucket/root", service_account="trainer")
    assert json.loads(request.to_body()) == {
        "run_id": request.run_id,
        "display_name": request.display_name,
        "description": request.description,
        "experiment_id": request.experiment_id,
        "pipeline_spec": {"pipeline_spec": PIPELINE, "platform_spec": PLATFORM},
        "runtime_config": {"parameters": request.parameters, "pipeline_root": "s3://bucket/root"},
        "service_account": "trainer",
    }


def test_what_is_not_given_is_not_sent() -> None:
    body = json.loads(replace(REQUEST, platform_spec=None).to_body())
    assert set(body["pipeline_spec"]) == {"pipeline_spec"}
    assert set(body["runtime_config"]) == {"parameters"}
    assert "service_account" not in body


@pytest.mark.parametrize("name", ["a", "ns.name-g003-a0", "0", "x" * 255])
def test_a_plain_display_name_is_taken(name: str) -> None:
    assert json.loads(replace(REQUEST, display_name=name).to_body())["display_name"] == name


@pytest.mark.parametrize("name", ["", "x" * 256, "Name", "a b", "a_b", "{{workflow.name}}", "ä", "a\n", "a/b"])
def test_a_display_name_that_kfp_or_argo_would_stumble_over_is_refused(name: str) -> None:
    with pytest.raises(RunRejectedError, match="display name"):
        replace(REQUEST, display_name=name).to_body()


@pytest.mark.parametrize("run_id", ["", "a b", "-a", "a-", "a" * 64, "ä", "a/b", "a\n"])
def test_a_run_id_that_is_no_label_value_is_refused(run_id: str) -> None:
    with pytest.raises(RunRejectedError, match="run id"):
        replace(REQUEST, run_id=run_id).to_body()


def test_a_description_ends_at_255_characters() -> None:
    replace(REQUEST, description="ä" * 255).to_body()
    with pytest.raises(RunRejectedError, match="description has 256 characters"):
        replace(REQUEST, description="ä" * 256).to_body()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"description": "\U0001f680"}, "description"),
        ({"parameters": {"run": {"steps": ["a", "b \U0001f680"]}}}, "runtime_config.parameters.run.steps[1]"),
        ({"parameters": {"\U0001f680": 1}}, "a name in runtime_config.parameters"),
        ({"pipeline_root": "s3://\U00010000"}, "runtime_config.pipeline_root"),
        ({"pipeline_spec": {"root": {"a": "\U0010ffff"}}}, "pipeline_spec.pipeline_spec.root.a"),
    ],
)
def test_a_character_of_four_bytes_is_refused_with_its_place(changes: dict[str, object], place: str) -> None:
    with pytest.raises(RunRejectedError) as caught:
        replace(REQUEST, **changes).to_body()  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{place} contains a character beyond")


def test_half_a_character_is_refused_with_its_place() -> None:
    with pytest.raises(RunRejectedError, match=r"runtime_config\.parameters\.text contains half a character"):
        replace(REQUEST, parameters={"text": "\ud83d"}).to_body()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"bytes"])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(RunRejectedError, match="JSON"):
        replace(REQUEST, parameters={"text": value}).to_body()


def with_pipeline_text(text: str) -> RunRequest:
    return replace(REQUEST, pipeline_spec={"text": text})


def test_a_body_may_have_900_kib_and_not_a_byte_more() -> None:
    spare = MAX_BODY_BYTES - len(with_pipeline_text("").to_body())
    assert len(with_pipeline_text("x" * spare).to_body()) == MAX_BODY_BYTES == 900 * 1024
    with pytest.raises(RunRejectedError, match=f"is {MAX_BODY_BYTES + 1} bytes"):
        with_pipeline_text("x" * (spare + 1)).to_body()
    # Bytes count, and not characters.
    with pytest.raises(RunRejectedError, match="bytes"):
        with_pipeline_text("ä" * (spare // 2 + 1)).to_body()


@pytest.mark.parametrize(("character", "size"), [("x", 1), ("ä", 2), ("<", 6), ("&", 6)])
def test_parameters_may_have_what_fits_into_one_argument_of_a_pod_s_program(character: str, size: int) -> None:
    most = (MAX_PARAMETERS_BYTES - len('{"text":""}')) // size
    replace(REQUEST, parameters={"text": character * most}).to_body()
    with pytest.raises(RunRejectedError, match=f"more than the {96 * 1024} that KFP can hand to a pod"):
        replace(REQUEST, parameters={"text": character * (most + 1)}).to_body()


@pytest.mark.parametrize("value", ["{{workflow.name}}", "{{=1+1}}", "a {{ b", "{{{{$}}"])
def test_what_argo_would_fill_in_a_pods_environment_is_refused_with_its_place(value: str) -> None:
    environment = {"executors": {"exec-a": {"container": {"env": [{"name": "A", "value": value}]}}}}
    with pytest.raises(
        RunRejectedError, match=r"executors\.exec-a\.container\.env\[0\]\.value contains \{\{, which Argo"
    ):
        replace(REQUEST, pipeline_spec=environment).to_body()


@pytest.mark.parametrize("value", ["{{$}}", "{{$.inputs.parameters['a']}}", "{ {", "}}"])
def test_placeholders_of_kfps_own_are_sent(value: str) -> None:
    assert json.loads(replace(REQUEST, pipeline_spec={"args": [value]}).to_body())


@given(st.text(max_size=50), st.text(max_size=20))
def test_every_text_is_either_sent_whole_or_refused(text: str, key: str) -> None:
    request = replace(REQUEST, parameters={"text": text, key: "x"})
    storable = all(character <= "\uffff" and not "\ud800" <= character <= "\udfff" for character in text + key)
    if storable:
        assert json.loads(request.to_body())["runtime_config"]["parameters"] == {"text": text, key: "x"}
    else:
        with pytest.raises(RunRejectedError):
            request.to_body()


@pytest.mark.parametrize("name", ["", "x" * 129, "ä", "a\tb", "\U0001f680"])
async def test_an_experiments_name_that_cannot_be_stored_is_refused_unsent(kfp: KfpClient, name: str) -> None:
    with pytest.raises(RunRejectedError, match="experiment's name"):
        await kfp.ensure_experiment(name, "")


async def test_an_experiments_description_is_checked_too(kfp: KfpClient) -> None:
    with pytest.raises(RunRejectedError, match="description has 256"):
        await kfp.ensure_experiment("name", "x" * 256)
    with pytest.raises(RunRejectedError, match="description contains a character"):
        await kfp.ensure_experiment("name", "\U0001f680")
