"""Bytes from the CDN: ranges, signatures, and the log's account of them."""

import httpx
import pytest

from tests.hub.server import LocalHub

REPO = "acme/adapter"
FILE = "weights.safetensors"
WEIGHTS = bytes(range(256)) * 1024  # 256 KiB


@pytest.fixture
def hub(local_hub: LocalHub) -> LocalHub:
    local_hub.create(REPO)
    local_hub.commit(REPO, {FILE: WEIGHTS, "config.json": b"0123456789"})
    return local_hub


def cdn_url(hub: LocalHub) -> str:
    answer = httpx.head(f"{hub.endpoint}/{REPO}/resolve/main/{FILE}")
    assert answer.status_code == 302
    return answer.headers["Location"]


@pytest.mark.parametrize(
    ("asked", "first", "count"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=100-", 100, len(WEIGHTS) - 100),
        ("bytes=-8", len(WEIGHTS) - 8, 8),
        (f"bytes=8-{10**9}", 8, len(WEIGHTS) - 8),
    ],
)
def test_a_range_comes_as_asked(hub: LocalHub, asked: str, first: int, count: int) -> None:
    answer = httpx.get(cdn_url(hub), headers={"Range": asked})
    assert answer.status_code == 206
    told = f"bytes {first}-{first + count - 1}/{len(WEIGHTS)}"
    assert answer.headers["Content-Range"] == told
    assert answer.content == WEIGHTS[first : first + count]
    assert hub.log.bytes_of(REPO, FILE) == count


def test_a_range_beyond_the_file_is_refused(hub: LocalHub) -> None:
    answer = httpx.get(cdn_url(hub), headers={"Range": f"bytes={len(WEIGHTS)}-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(WEIGHTS)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "lines=0-1", "bytes=-", "nonsense"])
def test_what_is_no_single_range_gives_the_whole_file(hub: LocalHub, asked: str) -> None:
    answer = httpx.get(cdn_url(hub), headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, WEIGHTS)


def test_a_git_file_on_the_hub_has_ranges_too(hub: LocalHub) -> None:
    url = f"{hub.endpoint}/{REPO}/resolve/main/config.json"
    answer = httpx.get(url, headers={"Range": "bytes=2-4"})
    assert (answer.status_code, answer.content) == (206, b"234")
    assert hub.log.ranges_of(REPO, "config.json") == [(2, 4)]


def test_the_log_tells_each_request_and_what_it_sent(hub: LocalHub) -> None:
    url = cdn_url(hub)
    httpx.get(url, headers={"Range": "bytes=0-9"})
    httpx.get(url)
    assert hub.log.ranges_of(REPO, FILE) == [(0, 9), None]
    assert hub.log.bytes_of(REPO, FILE) == 10 + len(WEIGHTS)
    assert [r.status for r in hub.log.requests()] == [302, 206, 200]
    assert [r.host for r in hub.log.requests()] == ["hub", "cdn", "cdn"]
    hub.log.clear()
    assert hub.log.requests() == []


def test_a_url_that_was_changed_has_expired_or_was_never_given_is_refused(hub: LocalHub) -> None:
    url = cdn_url(hub)
    for wrong in (url[:-1] + "x", url.split("?")[0], url.replace("Expires=", "Expires=9")):
        assert httpx.get(wrong).status_code == 403
    assert httpx.get(url).status_code == 200
    hub.cdn.expire()
    assert httpx.get(url).status_code == 403
    assert httpx.get(cdn_url(hub)).status_code == 200
    hub.faults.expired(times=1)
    assert httpx.get(cdn_url(hub)).status_code == 403
    assert httpx.get(cdn_url(hub)).status_code == 200


def test_a_token_that_reaches_the_cdn_is_on_record(hub: LocalHub) -> None:
    httpx.get(cdn_url(hub), headers={"Authorization": "Bearer secret"})
    assert [r.file for r in hub.log.with_authorization("cdn")] == [FILE]
