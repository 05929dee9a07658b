"""Bodies, signatures and fair shares."""

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from app.domain.adapter import FileEntry
from app.domain.errors import AdapterSafetyError, InvalidField
from app.domain.job import Fault, Job, JobResult
from app.domain.job_event import job_event_data
from app.domain.room import Room
from app.domain.signing import new_secret, signed_headers
from app.domain.webhook import (
    MAX_BODY_BYTES,
    Endpoint,
    Secret,
    check_description,
    check_events,
    event_body,
)
from tests.samples import a_job, an_adapter

NOW = datetime.now(UTC)
BODY = event_body("job.succeeded", {"id": "1"}, NOW)


def test_a_secret_is_32_random_bytes_in_base64() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(base64.b64decode(text.removeprefix("whsec_"))) == 32 for text in made)


def test_a_signature_is_what_the_specification_gives_as_its_example() -> None:
    """Of the specification's repository: its test vector."""
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        '{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        datetime.fromtimestamp(1614265330, UTC),
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_library_verifies_each_of_several_secrets_and_no_other() -> None:
    secrets = [new_secret(), new_secret()]
    headers = dict(signed_headers("evt_1", BODY, secrets, datetime.now(UTC)))
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in secrets:
        assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers)


def test_a_tampered_body_id_or_time_does_not_verify() -> None:
    secret = new_secret()
    headers = dict(signed_headers("evt_1", BODY, [secret], datetime.now(UTC)))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY.replace('"1"', '"2"'), headers)
    for name, value in (("webhook-id", "evt_2"), ("webhook-timestamp", "1")):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(BODY, {**headers, name: value})


def test_a_secret_that_was_rotated_out_signs_until_it_expires() -> None:
    old = Secret("old", NOW, NOW + timedelta(hours=24))
    endpoint = Endpoint("e", "u", ("job.failed",), (Secret("new", NOW), old), NOW)
    assert endpoint.signing(NOW + timedelta(hours=23)) == ["new", "old"]
    assert endpoint.signing(NOW + timedelta(hours=24)) == ["new"]


def test_a_secret_is_in_no_representation() -> None:
    endpoint = Endpoint("e", "u", ("job.failed",), (Secret("whsec_x", NOW),), NOW)
    assert "whsec_x" not in repr(endpoint)


def test_a_body_has_a_type_a_time_and_data() -> None:
    body = json.loads(event_body("verdict.issued", {"a": "\u00fc"}, NOW))
    assert list(body) == ["type", "timestamp", "data"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])


def test_a_body_of_20_kb_is_refused() -> None:
    with pytest.raises(ValueError, match="must be under 20000"):
        event_body("verdict.issued", {"a": "a" * MAX_BODY_BYTES}, NOW)
    room = MAX_BODY_BYTES - len(event_body("verdict.issued", {"a": ""}, NOW))
    assert len(event_body("verdict.issued", {"a": "a" * (room - 1)}, NOW)) == 19_999
    with pytest.raises(ValueError, match="20000 bytes"):
        event_body("verdict.issued", {"a": "a" * room}, NOW)


def test_a_job_that_succeeded_is_told_with_what_it_left() -> None:
    result = JobResult(FileEntry("1" * 64, 5), FileEntry("2" * 64, 7))
    job = replace(ended("succeeded"), result=result, revisions={"org/chat": "c" * 40})
    data = job_event_data(job)
    assert data["links"] == {"self": f"/v1/jobs/{job.id}", "report": f"/v1/jobs/{job.id}/report"}
    assert data["result"]["report"] == {"sha256": "1" * 64, "size_bytes": 5}
    assert (data["kind"], data["status"], data["adapter"]) == ("patch", "succeeded", job.adapter)
    assert (data["base_model"], data["chat_model"]) == ("org/base", "org/chat")
    assert data["revisions"] == {"org/chat": "c" * 40}
    assert data["fault"] is None


def test_a_job_that_failed_is_told_with_its_fault() -> None:
    data = job_event_data(replace(ended("failed"), fault=Fault.of(AdapterSafetyError())))
    code, title = AdapterSafetyError.code, AdapterSafetyError.title
    assert data["fault"] == {"code": code, "title": title, "detail": AdapterSafetyError.message}
    assert (data["result"], list(data["links"])) == (None, ["self"])


@given(st.text(min_size=1), st.integers(1, 100_000))
def test_whatever_a_job_is_called_its_event_fits_a_body(text: str, times: int) -> None:
    huge = (text * times)[:50_000]
    job = replace(
        ended("failed"),
        base_model=huge,
        chat_model=huge,
        fault=Fault("worker-fault", "The worker failed", huge, {}),
        revisions={f"{number}{huge}": "c" * 4000 for number in range(20)},
    )
    assert len(event_body("job.failed", job_event_data(job), NOW)) < MAX_BODY_BYTES


def ended(status: str) -> Job:
    return a_job(an_adapter(), status=status, started_at=NOW, finished_at=NOW)


def test_events_are_named_in_one_order_each_once() -> None:
    assert check_events(["job.failed", "job.succeeded", "job.failed"]) == (
        "job.succeeded",
        "job.failed",
    )
    for wrong in ([], ["job.cancelled"]):
        with pytest.raises(InvalidField, match="events"):
            check_events(wrong)


@pytest.mark.parametrize("wrong", ["a" * 201, "a\nb", "\x00"])
def test_a_description_is_short_and_printable(wrong: str) -> None:
    with pytest.raises(InvalidField, match="description"):
        check_description(wrong)


def test_room_is_shared_by_tenants_and_endpoints() -> None:
    room = Room(most=4, of_tenant=3, of_endpoint=2)
    taken = [("a", "1"), ("a", "1"), ("a", "1"), ("a", "2"), ("a", "3"), ("b", "4"), ("b", "5")]
    assert [room.take(*each) for each in taken] == [True, True, False, True, False, True, False]
    assert (room.full_tenants, room.full_endpoints, room.free) == (["a"], ["1"], 0)
    room.give_back("a", "1")
    assert (room.full_tenants, room.full_endpoints, room.free) == ([], [], 1)
    other = room.copy()
    assert other.take("b", "5")
    assert room.take("b", "5")
