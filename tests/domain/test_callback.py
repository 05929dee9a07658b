"""Where callbacks may go, by the URL and by the addresses that its host leads to."""

from ipaddress import ip_address

import pytest

from app.domain.callback import (
    Allowed,
    CallbackRules,
    check_addresses,
    check_url,
    is_public,
    parse_allowed,
)
from app.domain.errors import InvalidField
from app.domain.webhook_errors import CallbackRefused

STRICT = CallbackRules()
REFUSED = {
    "https://127.0.0.1/": "not public",
    "https://10.0.0.1/": "not public",
    "https://169.254.169.254/latest/meta-data": "not public",
    "https://168.63.129.16/": "not public",
    "https://100.100.100.200/": "not public",
    "https://0.0.0.0/": "not public",
    "https://255.255.255.255/": "not public",
    "https://224.0.0.1/": "not public",
    "https://localhost/": "not public",
    "https://[::1]/": "not public",
    "https://[::]/": "not public",
    "https://[::ffff:127.0.0.1]/": "not public",
    "https://[::127.0.0.1]/": "not public",
    "https://[2002:7f00:1::]/": "not public",
    "https://[64:ff9b::a9fe:a9fe]/": "not public",
    "https://[64:ff9b:1::1]/": "not public",
    "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/": "not public",
    "https://[fe80::1]/": "not public",
    "https://[fd00:ec2::254]/": "not public",
    "https://[ff02::1]/": "not public",
    "https://[2001:db8::1]/": "not public",
    "https://[2620:4f:8000::1]/": "not public",
    "https://192.175.48.1/": "not public",
    "https://[2400:cb00::5efe:5db8:d822]/": "not public",
    "https://[2400:cb00::200:5efe:7f00:1]/": "not public",
    "https://[fe80::1%25eth0]/": "cannot be read",
    "https://[::1/": "not a URL",
    "https://a[2606:4700::1111]/": "cannot be read",
    "https://[2606:4700::1111]a/": "cannot be read",
    "https://[v1.x]/": "cannot be read",
    "https://[hooks.example]/": "not a URL|cannot be read",  # by Python's release
    "https://hooks.example:/": "cannot be read",
    "https://hooks.example:+443/": "cannot be read",
    "https://2130706433/": "four decimal",
    "https://0x7f000001/": "four decimal",
    "https://0x7f.1/": "four decimal",
    "https://127.1/": "four decimal",
    "https://0177.0.0.1/": "four decimal",
    "https://017700000001/": "four decimal",
    "https://1.2.3.4.5/": "four decimal",
    "https://256.1.1.1/": "four decimal",
    "http://hooks.example/": "must be https",
    "ftp://hooks.example/": "must be https",
    "//hooks.example/": "must be https",
    "hooks.example": "must be https",
    "https://": "no name",
    "https:///path": "no name",
    "https://hooks.example./": "no name",
    "https://-hooks.example/": "no name",
    "https://hooks..example/": "no name",
    "https://hooks%2eexample/": "no name",
    f"https://{'a' * 64}.example/": "no name",
    "https://user@hooks.example/": "credentials",
    "https://user:word@hooks.example/": "credentials",
    "https://hooks.example@127.0.0.1/": "credentials",
    "https://hooks.example\\@127.0.0.1/": "backslash",
    "https://hooks.example/#fragment": "fragment",
    "https://hooks.example/ x": "ASCII",
    "https://hooks.example/\t": "ASCII",
    "https://\u2460.example/": "ASCII",
    "https://hooks.example/\x00": "ASCII",
    "https://hooks.example:0/": "the port must",
    "https://hooks.example:22/": "the port must",
    "https://hooks.example:25/": "the port must",
    "https://hooks.example:65536/": "port cannot be read",
    "https://hooks.example:x/": "port cannot be read",
    "": "1 to 2000",
    "https://hooks.example/" + "a" * 2000: "1 to 2000",
}


@pytest.mark.parametrize("url", REFUSED, ids=lambda url: repr(url)[:60])
def test_a_url_that_may_not_be_called_is_refused_by_its_field(url: str) -> None:
    with pytest.raises(InvalidField, match=REFUSED[url]) as refused:
        check_url(url, STRICT)
    assert refused.value.facts["field"] == "url"


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example",
        "https://Hooks.Example:443/a/b?c=d",
        "https://hooks.example:8443/",
        "https://hooks.example:80/",
        "https://xn--bcher-kva.example/",
        "https://93.184.216.34/",
        "https://[2606:4700::1111]/",
        "https://[64:ff9b::5db8:d822]/",
        "https://[::ffff:93.184.216.34]/",
        "https://0x7f.example/",
    ],
)
def test_a_public_url_is_taken_as_it_is(url: str) -> None:
    assert check_url(url, STRICT) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/",
        "http://[::ffff:127.0.0.1]:8080/",
        "http://localhost:8080/",
        "http://hooks.internal/",
        "https://HOOKS.internal/",
        "https://10.1.2.3/",
        "http://some.name/",  # which may lead to an allowed network: told when it is looked up
    ],
)
def test_what_the_operator_allows_is_taken_and_by_http_too(url: str) -> None:
    rules = CallbackRules(parse_allowed(["127.0.0.0/8", "10.1.2.3", "Hooks.Internal", "localhost"]))
    assert check_url(url, rules) == url


def test_an_allowed_network_lets_nothing_else_through() -> None:
    rules = CallbackRules(parse_allowed(["10.1.0.0/16"]))
    for url in ("https://10.2.0.1/", "https://[2002:a01:1::]/", "https://127.0.0.1/"):
        with pytest.raises(InvalidField):
            check_url(url, rules)


def test_behind_a_proxy_a_name_must_be_allowed_by_name_to_do_without_tls() -> None:
    rules = CallbackRules(parse_allowed(["10.0.0.0/8", "hooks.internal"]), is_proxied=True)
    check_url("http://hooks.internal/", rules)
    check_url("http://10.0.0.1/", rules)
    with pytest.raises(InvalidField, match="https"):
        check_url("http://some.name/", rules)


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "10.0.0.0/33", "a b", "-", "*", "https://x"])
def test_an_entry_that_is_neither_a_network_nor_a_name_is_told_at_the_start(entry: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        parse_allowed([entry])


def test_one_address_that_is_not_public_refuses_the_host() -> None:
    found = [ip_address("93.184.216.34"), ip_address("10.0.0.1")]
    with pytest.raises(CallbackRefused, match="not public") as refused:
        check_addresses("hooks.example", found, Allowed(), is_plain=False)
    assert "10.0.0.1" not in str(refused.value)  # which is nobody's business
    check_addresses("hooks.example", found[:1], Allowed(), is_plain=False)
    check_addresses("hooks.example", found, parse_allowed(["10.0.0.0/8"]), is_plain=False)
    check_addresses("hooks.example", found, parse_allowed(["hooks.example"]), is_plain=True)


def test_without_tls_every_address_must_be_allowed() -> None:
    found = [ip_address("93.184.216.34"), ip_address("10.0.0.1")]
    with pytest.raises(CallbackRefused, match="http goes"):
        check_addresses("name", found, parse_allowed(["10.0.0.0/8"]), is_plain=True)
    check_addresses("name", found[1:], parse_allowed(["10.0.0.0/8"]), is_plain=True)


def test_a_host_without_an_address_is_refused() -> None:
    with pytest.raises(CallbackRefused, match="no address"):
        check_addresses("name", [], Allowed(), is_plain=False)


def test_what_python_calls_global_and_we_call_public_differ_on_our_side_alone() -> None:
    for text in ("1.1.1.1", "2606:4700::1111", "10.0.0.1", "fe80::1%eth0", "192.88.99.1"):
        address = ip_address(text)
        assert not is_public(address) or address.is_global
