"""What follows from a verdict. Every write to the hub is noted before and after; one that was begun
is looked for on the hub first, so that a crash between the two makes nothing twice."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from app.domain.adapter import README_FILE
from app.domain.errors import Conflict, JobFault, NotFound, Refused
from app.domain.policy import ActionKind
from app.domain.verdict import Action, Verdict
from app.domain.verdict_errors import PushedMeanwhile
from app.jobs.moderate_text import MAX_CARD_CHARS, card_with, marker_of, post_of, title_of
from app.jobs.moderator import Moderator
from app.jobs.patched_files import PatchedFiles, patched_files
from app.jobs.retrieve import patched_archive, read_report
from app.jobs.verdict_ports import Posted

MAIN = "main"  # the only branch that the hub opens pull requests to
FIELD = "repo"
DRY_BY_NOW = "the policy is a dry run by now"
TOLD = Action("webhook", "done")
FINAL_FAULTS = (Refused, NotFound, JobFault, Conflict)
"""Of an action: to do it again would end as it did."""
SAID: Mapping[ActionKind, str] = {
    "discussion": "would open a discussion",
    "comment": "would comment, or open a discussion where there is none",
    "pull_request": "would open a pull request",
    "webhook": "would send verdict.issued",
}


def begin_acting(verdict: Verdict, desk: Moderator) -> Verdict:
    """A dry run ends here, and says what it would have done."""
    if not verdict.is_dry_run:
        return replace(verdict, state="acting")
    would = (replace(each, state="would", note=_said(verdict, each)) for each in verdict.actions)
    return replace(verdict, state="done", actions=tuple(would))


def _said(verdict: Verdict, action: Action) -> str:
    if not action.writes_to_hub:
        return SAID[action.kind]
    return f"{SAID[action.kind]}: {title_of(verdict)}"


def act(verdict: Verdict, desk: Moderator) -> Verdict:
    """Write to the hub, one after the other; what others are told comes with the last step."""
    for index, action in enumerate(verdict.actions):
        if action.is_open and action.writes_to_hub:
            verdict = _write(verdict, index, desk)
    return _told(verdict, desk)


def give_up_acting(verdict: Verdict, why: str, desk: Moderator) -> Verdict:
    """What is open has failed; others are told of it all the same."""
    ended = (
        replace(each, state="failed", note=why) if each.is_open and each.writes_to_hub else each
        for each in verdict.actions
    )
    return _told(replace(verdict, actions=tuple(ended)), desk)


def _told(verdict: Verdict, desk: Moderator) -> Verdict:
    """Done, with its event to be issued, unless the policy is a dry run by now."""
    policy = desk.policy()
    is_silent = policy is not None and policy.dry_run
    event = Action("webhook", "skipped", note=DRY_BY_NOW) if is_silent else TOLD
    ended = (event if each.kind == "webhook" and each.is_open else each for each in verdict.actions)
    return replace(verdict, state="done", actions=tuple(ended))


def _write(verdict: Verdict, index: int, desk: Moderator) -> Verdict:
    """Raises Unavailable; the action stays begun then."""
    action = verdict.actions[index]
    try:
        posted = _earlier(verdict, action, desk)
        reason = None if posted else _moot(verdict, action, desk)
        if posted is None and reason is None:
            verdict, posted = WRITES[action.kind](verdict, index, desk)
            reason = "the repository has these files already"
    except PushedMeanwhile as error:
        return _ended(verdict, index, Action(action.kind, "skipped", note=str(error)), desk)
    except FINAL_FAULTS as error:
        return _ended(verdict, index, Action(action.kind, "failed", note=str(error)), desk)
    if posted is None:
        return _ended(verdict, index, Action(action.kind, "skipped", note=reason or ""), desk)
    done = Action(action.kind, "done", posted.number, posted.url)
    return _ended(replace(verdict, thread=posted.number), index, done, desk)


def _ended(verdict: Verdict, index: int, action: Action, desk: Moderator) -> Verdict:
    return desk.verdicts.keep(verdict.acted(index, action))


def _earlier(verdict: Verdict, action: Action, desk: Moderator) -> Posted | None:
    """What an attempt that was cut off has written."""
    if action.state != "begun":
        return None
    marker, repo = marker_of(verdict, action.kind), verdict.push.repo
    if found := desk.writer.find(repo, title_of(verdict), marker):
        return found
    thread = _thread(verdict, action, desk)
    if thread is not None and desk.writer.has_comment(repo, thread, marker):
        return Posted(thread, "")
    return None


def _moot(verdict: Verdict, action: Action, desk: Moderator) -> str | None:
    """Why there is no more reason to write; None where there is. Which commit is the newest, only
    the hub knows: webhooks come late, twice, or in another order. Raises what `HubReader.commit`
    raises."""
    if reason := _stopped(verdict, desk):
        return reason
    push = verdict.push
    if action.kind == "pull_request" and push.branch != MAIN:
        return f"the hub opens pull requests to {MAIN} only, not to {push.branch}"
    head = desk.reader.commit(push.repo, push.branch, field=FIELD).sha
    return None if head == push.sha else f"the branch has moved on to {head}"


def _stopped(verdict: Verdict, desk: Moderator) -> str | None:
    """The plan is kept, but a policy that takes less by now holds at once: so a bot is stopped."""
    policy, push = desk.policy(), verdict.push
    if policy is None:
        return None
    if policy.dry_run:
        return DRY_BY_NOW
    reason = policy.refusal(push.repo, push.ref)
    return reason and f"by now {reason}"


def _thread(verdict: Verdict, action: Action, desk: Moderator) -> int | None:
    """Where this is said: a verdict opens one discussion, however often it is tried."""
    if verdict.thread is not None or action.kind == "discussion":
        return verdict.thread
    return desk.verdicts.thread_before(verdict)


def _begun(verdict: Verdict, index: int, desk: Moderator) -> Verdict:
    """Noted before the hub hears of it."""
    action = replace(verdict.actions[index], state="begun")
    return desk.verdicts.keep(verdict.acted(index, action))


def _post(verdict: Verdict, index: int, desk: Moderator) -> tuple[Verdict, Posted]:
    """A comment where there is a thread for it, else a discussion."""
    action, repo = verdict.actions[index], verdict.push.repo
    thread, text = _thread(verdict, action, desk), post_of(verdict, action.kind)
    verdict = _begun(verdict, index, desk)
    if thread is not None:
        return verdict, desk.writer.comment(repo, thread, text)
    return verdict, desk.writer.discussion(repo, title_of(verdict), text)


def _propose(verdict: Verdict, index: int, desk: Moderator) -> tuple[Verdict, Posted | None]:
    """Raises PushedMeanwhile, HubWriteRefused, ArtifactCorrupt, and NotFound where the job's time
    ran out."""
    records = desk.records_of(verdict)
    job = records.job(verdict.job or "")
    report = read_report(job, desk.artifacts)
    archive, original = patched_archive(job), records.adapter(job.only_adapter)
    with patched_files(
        archive, original, artifacts=desk.artifacts, staging_dir=desk.staging_dir
    ) as patched:
        files = {**patched.files, **_card(verdict, report, patched)}
        verdict = _begun(replace(verdict, patched=patched.content), index, desk)
        text = post_of(verdict, "pull_request")
        push = verdict.push
        posted = desk.writer.pull_request(push.repo, push.sha, files, title_of(verdict), text)
    return verdict, posted


def _card(
    verdict: Verdict, report: Mapping[str, object], patched: PatchedFiles
) -> Mapping[str, Path]:
    """The model card by its name; nothing where it is too long to be worked on."""
    if len(patched.card or "") > MAX_CARD_CHARS:
        return {}
    path = patched.folder / README_FILE
    path.write_bytes(card_with(verdict, report, patched.card).encode())
    return {README_FILE: path}


Write = Callable[[Verdict, int, Moderator], tuple[Verdict, Posted | None]]
WRITES: Mapping[ActionKind, Write] = {
    "discussion": _post,
    "comment": _post,
    "pull_request": _propose,
}
