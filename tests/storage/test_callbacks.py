"""Calls to receivers on loopback: real sockets, real TLS, and names that lead where tests say."""

import asyncio
import ssl
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpcore
import pytest
from standardwebhooks import WebhookVerificationError

from app.domain.callback import CallbackRules, parse_allowed
from app.domain.signing import new_secret, signed_headers
from app.domain.webhook import Outcome, event_body
from app.storage.callbacks import MAX_SHOWN_BYTES, HttpPoster, resolve
from tests.servers import free_port
from tests.webhooks_receiver import Answer, Receiver, TunnelProxy, make_certificate, trusting

LOOPBACK = CallbackRules(parse_allowed(["127.0.0.0/8"]))
PUBLIC = "93.184.216.34"
BODY = event_body("job.succeeded", {"id": "1"}, datetime.now(UTC))


class Names:
    """A name server that gives its answers one after the other, the last for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, _: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Leading(httpcore.AsyncNetworkBackend):
    """Notes which address is connected to, and leads every connection to loopback: the one way to
    see a connection to a public address without a network."""

    def __init__(self) -> None:
        self.connected: list[str] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append(host)
        return await httpcore.AnyIOBackend().connect_tcp("127.0.0.1", port, timeout)


def post(
    url: str, rules: CallbackRules = LOOPBACK, secrets: list[str] | None = None, **parts: Any
) -> Outcome:
    poster = HttpPoster(rules, **parts)
    headers = signed_headers("evt_1", BODY, secrets or [new_secret()], datetime.now(UTC))
    try:
        return asyncio.run(poster.post(url, headers, BODY.encode()))
    finally:
        poster.close()


# ----------------------------------------------------------------------------------------- the call
def test_a_receiver_verifies_what_came_with_either_secret_and_no_other() -> None:
    new, old = new_secret(), new_secret()
    with Receiver(Answer(200, body=b"thanks")) as receiver:
        outcome = post(receiver.url, secrets=[new, old])
    (came,) = receiver.received
    assert outcome == Outcome(200, None, "thanks", None)
    assert came.verified(new) == came.verified(old) == came.event
    assert came.body == BODY.encode()
    with pytest.raises(WebhookVerificationError):
        came.verified(new_secret())
    assert came.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert came.headers["webhook-id"] == "evt_1"


def test_a_path_and_a_query_are_sent_as_they_are() -> None:
    with Receiver() as receiver:
        post(receiver.at("127.0.0.1", "/a%2Fb?c=%20&d=/../"))
    assert receiver.received[0].path == "/a%2Fb?c=%20&d=/../"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with Receiver() as other:
        with Receiver(Answer(status, {"Location": other.url})) as receiver:
            outcome = post(receiver.url)
        assert (outcome.status, len(receiver.received), other.received) == (status, 1, [])


def test_retry_after_is_brought_however_it_is_spelt() -> None:
    with Receiver(Answer(503, {"rEtRy-AfTeR": "120" + " " * 200 + "x"})) as receiver:
        assert str(post(receiver.url).retry_after).strip() == "120"


def test_no_more_of_an_answer_is_read_than_is_shown() -> None:
    with Receiver(Answer(500, {"Content-Length": str(10**12)}, b"\xff" + b"a" * 10**6)) as receiver:
        outcome = post(receiver.url)
    assert (outcome.status, outcome.response) == (500, "\ufffd" + "a" * (MAX_SHOWN_BYTES - 1))


def test_a_compressed_answer_is_not_unpacked() -> None:
    with Receiver(Answer(200, {"Content-Encoding": "gzip"}, b"\x1f\x8b not gzip")) as receiver:
        assert post(receiver.url).status == 200


def test_a_slow_receiver_is_given_up_at_the_timeout() -> None:
    with Receiver(Answer(after_s=3.0)) as receiver:
        begun_s = time.monotonic()
        outcome = post(receiver.url, timeout_s=0.3)
    assert outcome == Outcome(error="no answer within 0.3 seconds")
    assert time.monotonic() - begun_s < 3.0


def test_a_slow_name_server_counts_too() -> None:
    def slow(_: str, __: int) -> list[str]:
        time.sleep(1.0)
        return ["127.0.0.1"]

    outcome = post("http://slow.example:8080/", resolve=slow, timeout_s=0.2)
    assert outcome == Outcome(error="no answer within 0.2 seconds")


def test_who_does_not_answer_is_told_as_an_error() -> None:
    outcome = post(f"http://127.0.0.1:{free_port()}/")
    assert outcome.status is None
    assert outcome.error


def test_a_name_that_nobody_knows_is_told_as_an_error() -> None:
    assert "cannot be looked up" in str(
        post("https://no-such-host.invalid/", resolve=resolve).error
    )


def test_what_is_no_http_is_told_as_an_error() -> None:
    with Receiver(Answer(200, {"X": "a\r\nbroken"})) as receiver:
        assert post(receiver.url).error


# ---------------------------------------------------------------------------------- where it may go
@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.0.0.1", "not public"),
        ("169.254.169.254", "not public"),
        ("[::ffff:127.0.0.1]", "not public"),
        ("[2002:7f00:1::]", "not public"),
        ("[64:ff9b::7f00:1]", "not public"),
        ("2130706433", "four decimal numbers"),
        ("0x7f000001", "four decimal numbers"),
        ("0177.0.0.1", "four decimal numbers"),
        ("127.1", "four decimal numbers"),
        ("localhost", "not public"),
    ],
)
def test_a_host_that_is_an_address_of_ours_is_refused_before_anything_is_looked_up(
    host: str, reason: str
) -> None:
    names, network = Names(["127.0.0.1"]), Leading()
    outcome = post(f"https://{host}/", CallbackRules(), resolve=names, network=network)
    assert reason in str(outcome.error)
    assert names.asked == network.connected == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "2002:7f00:1::",
     "64:ff9b::a9fe:a9fe", "fe80::1%eth0", "fd00:ec2::254", "0.0.0.0", "100.100.100.200"],
)  # fmt: skip
def test_a_name_that_leads_to_an_address_of_ours_is_refused(address: str) -> None:
    for answers in ([address], [PUBLIC, address], [address, PUBLIC]):
        names, network = Names(answers), Leading()
        outcome = post("https://a.example/", CallbackRules(), resolve=names, network=network)
        assert "not public" in str(outcome.error)
        assert address not in str(outcome.error)
        assert network.connected == []


def test_a_name_that_rebinds_is_connected_at_the_address_that_was_checked(tmp_path: Path) -> None:
    """A public address when it is looked at, ours a moment later."""
    certificate = make_certificate(tmp_path, "rebinds.example")
    names, network = Names([PUBLIC], ["127.0.0.1"]), Leading()
    with Receiver(certificate=certificate) as receiver:
        parts = {"resolve": names, "network": network, "tls": trusting(certificate[0])}
        outcome = post(receiver.at("rebinds.example"), CallbackRules(), **parts)
        assert (outcome.status, names.asked, network.connected) == (
            204,
            ["rebinds.example"],
            [PUBLIC],
        )
        again = post(receiver.at("rebinds.example"), CallbackRules(), **parts)
        assert "not public" in str(again.error)
        assert (len(receiver.received), network.connected) == (1, [PUBLIC])


def test_over_real_sockets_too_the_checked_address_is_the_one_that_is_called() -> None:
    """Two receivers on two addresses, of which one is allowed."""
    rules = CallbackRules(parse_allowed(["127.0.0.2"]))
    with Receiver(host="127.0.0.2") as allowed:
        with Receiver(host="127.0.0.3", port=allowed.port) as forbidden:
            names = Names(["127.0.0.2"], ["127.0.0.3"])
            first = post(allowed.at("rebinds.example"), rules, resolve=names)
            second = post(allowed.at("rebinds.example"), rules, resolve=names)
        assert (first.status, len(allowed.received), forbidden.received) == (204, 1, [])
        assert "not public" in str(second.error)


def test_the_next_address_has_its_turn_where_one_does_not_answer() -> None:
    with Receiver(host="127.0.0.2") as receiver:
        names = Names(["127.0.0.3", "127.0.0.4", "127.0.0.2"])
        assert post(receiver.at("several.example"), resolve=names).status == 204


def test_http_goes_to_addresses_that_are_allowed_alone() -> None:
    network = Leading()
    outcome = post("http://a.example:8080/", resolve=Names([PUBLIC]), network=network)
    assert "operator allows" in str(outcome.error)
    assert network.connected == []


def test_a_name_that_is_allowed_may_lead_anywhere() -> None:
    rules = CallbackRules(parse_allowed(["hooks.internal"]))
    with Receiver() as receiver:
        url = receiver.at("hooks.internal")
        assert post(url, rules, resolve=Names(["127.0.0.1"])).status == 204
        other = receiver.at("other.internal").replace("http:", "https:")
        assert "not public" in str(post(other, rules, resolve=Names(["127.0.0.1"])).error)


# ---------------------------------------------------------------------------------------------- TLS
def test_host_and_sni_and_certificate_are_the_names(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "hooks.example")
    tls, names = trusting(certificate[0]), Names(["127.0.0.1"])
    with Receiver(certificate=certificate) as receiver:
        outcome = post(receiver.at("hooks.example"), resolve=names, tls=tls)
        assert outcome.status == 204
        (came,) = receiver.received
        assert came.headers["host"] == f"hooks.example:{receiver.port}"
        assert receiver.names == ["hooks.example"]


@pytest.mark.parametrize("why", ["another name", "nobody we trust"])
def test_a_certificate_that_is_not_the_names_or_not_trusted_is_refused(
    tmp_path: Path, why: str
) -> None:
    certificate = make_certificate(tmp_path, "hooks.example")
    name = "other.example" if why == "another name" else "hooks.example"
    tls = trusting(certificate[0]) if why == "another name" else ssl.create_default_context()
    with Receiver(certificate=certificate) as receiver:
        outcome = post(receiver.at(name), resolve=Names(["127.0.0.1"]), tls=tls)
    assert "certificate verify failed" in str(outcome.error).lower()
    assert receiver.received == []


# ------------------------------------------------------------------------------------------ proxies
def test_a_proxy_looks_names_up_and_addresses_in_the_url_are_checked_still() -> None:
    """An address that only the proxy may go to: what it is asked for is what it forwards."""
    rules = CallbackRules(parse_allowed(["hooks.internal"]), is_proxied=True)
    names = Names(["127.0.0.1"])
    with Receiver() as proxy:
        parts = {"proxy": f"http://user:p%40ss@127.0.0.1:{proxy.port}", "resolve": names}
        assert post("http://hooks.internal:8080/hook?x=1", rules, **parts).status == 204
        refused = post("https://169.254.169.254/", rules, **parts)
    (came,) = proxy.received
    assert came.path == "http://hooks.internal:8080/hook?x=1"
    assert came.headers["host"] == "hooks.internal:8080"
    assert came.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"
    assert "not public" in str(refused.error)
    assert names.asked == []


def test_through_a_proxy_https_is_a_tunnel_that_the_proxy_may_refuse() -> None:
    with Receiver() as proxy:  # which knows no CONNECT, and says so
        outcome = post(
            "https://a.example/", CallbackRules(), proxy=f"http://127.0.0.1:{proxy.port}"
        )
    assert "501" in str(outcome.error)


def test_through_a_proxy_the_certificate_is_still_the_names(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "hooks.example")
    names, tls = Names(["127.0.0.1"]), trusting(certificate[0])
    with Receiver(certificate=certificate) as receiver, TunnelProxy(receiver.port) as proxy:
        parts = {"proxy": proxy.url, "tls": tls, "resolve": names}
        assert post("https://hooks.example/hook", CallbackRules(), **parts).status == 204
        refused = post("https://other.example/hook", CallbackRules(), **parts)
    assert (proxy.asked, names.asked) == (["hooks.example:443", "other.example:443"], [])
    assert receiver.names == ["hooks.example", "other.example"]
    assert "certificate verify failed" in str(refused.error).lower()
    assert len(receiver.received) == 1
