"""Which route answers which request."""

import re
from typing import Any
from urllib.parse import unquote

from tests.hub import errors, reading, talking, writing
from tests.hub.ranges import Sending
from tests.hub.state import State
from tests.hub.wire import Answer, Call

REPO = r"(?P<name>[^/]+/[^/]+?)"
MODEL = rf"/api/models/{REPO}"
REV = r"(?P<rev>refs/(?:pr|convert|heads|tags)/[^/]+|[^/]+)"
TALK = rf"{MODEL}/discussions/(?P<number>\d+)"
LFS = rf"/{REPO}\.git/info/lfs/objects"

ROUTES: list[tuple[str, str, Any]] = [
    ("GET", r"/api/whoami-v2", reading.whoami),
    ("GET", MODEL, reading.model_info),
    ("GET", rf"{MODEL}/revision/{REV}", reading.model_info),
    ("GET", rf"{MODEL}/refs", reading.refs),
    ("GET", rf"{MODEL}/commits/{REV}", reading.commits),
    ("GET", rf"{MODEL}/tree/{REV}(?:/(?P<path>.+))?", reading.tree),
    ("POST", rf"{MODEL}/paths-info/{REV}", reading.paths_info),
    ("GET", rf"/{REPO}/resolve/{REV}/(?P<path>.+)", reading.resolve),
    ("GET", rf"/api/resolve-cache/models/{REPO}/{REV}/(?P<path>.+)", reading.resolve),
    ("GET", rf"/{REPO}/raw/{REV}/(?P<path>.+)", reading.raw),
    ("POST", r"/api/validate-yaml", writing.validate_yaml),
    ("POST", rf"{MODEL}/preupload/{REV}", writing.preupload),
    ("POST", rf"{LFS}/batch", writing.lfs_batch),
    ("POST", rf"{LFS}/verify", writing.lfs_verify),
    ("POST", rf"{MODEL}/commit/{REV}", writing.commit),
    ("GET", rf"{MODEL}/discussions", talking.listed),
    ("POST", rf"{MODEL}/discussions", talking.opened),
    ("GET", TALK, talking.details),
    ("POST", rf"{TALK}/comment", talking.comment),
    ("POST", rf"{TALK}/status", talking.status),
    ("POST", rf"{TALK}/title", talking.title),
    ("POST", rf"{TALK}/merge", talking.merge),
]


def answer(state: State, call: Call) -> Answer | Sending:
    method = "GET" if call.request.method == "HEAD" else call.request.method
    for known, pattern, route in ROUTES:
        found = re.fullmatch(pattern, call.raw_path)
        if found and known == method:
            given = {name: unquote(value) for name, value in found.groupdict().items() if value}
            with state.lock:
                result: Answer | Sending = route(state, call, **given)
            return result
    raise errors.not_found()
