"""The steps from a push to a verdict."""

from dataclasses import replace

from app.domain.adapter import CONFIG_FILE, StoredAdapter
from app.domain.errors import (
    AdapterSafetyError,
    InvalidField,
    JobFault,
    JobNotFound,
    MissingFile,
    NotFound,
    Refused,
    Unavailable,
)
from app.domain.hub_errors import (
    HubNotWanted,
    NotInCache,
    RepositoryGated,
    RepositoryNotFound,
    RevisionNotFound,
)
from app.domain.job import Fault, Job
from app.domain.policy import VerdictName
from app.domain.verdict import Verdict
from app.intake.names import shown
from app.jobs.moderate_judge import judge, judge_merged
from app.jobs.moderator import Moderator
from app.jobs.patched_files import content_id
from app.jobs.retrieve import read_report
from app.jobs.submit import OWN_KEYS, JobRequest, submit
from app.jobs.unread_files import UNREAD, Unread, unread_of

UNREADABLE = (
    RepositoryNotFound,
    RepositoryGated,
    RevisionNotFound,
    NotInCache,
    HubNotWanted,
    InvalidField,  # of a name that is no repository's
    JobFault,  # of a file that is not what the hub says, or a hub that refuses
)
"""Faults of the repository as a whole: nothing is known about the adapter."""


def conclude(
    verdict: Verdict,
    desk: Moderator,
    name: VerdictName,
    why: str,
    error: AdapterSafetyError | None = None,
) -> Verdict:
    """Judged before there was a report; by the policy in force, where none was looked up yet. One
    that the policy does not take has no plan, so nothing follows from it."""
    plan, policy, push = verdict.plan, desk.policy(), verdict.push
    if plan is None and policy is not None and policy.refusal(push.repo, push.ref) is None:
        plan = policy.plan(push.repo, verdict.base_name)
    fault = None if error is None else Fault.of(error)
    return replace(verdict, plan=plan).judged(name, why, fault)


def take_up(verdict: Verdict, desk: Moderator) -> Verdict:
    """Raises Unavailable where no policy is in force."""
    refusal = desk.policy_in_force().refusal(verdict.push.repo, verdict.push.ref)
    if refusal:
        return conclude(verdict, desk, "inconclusive", f"since the push: {refusal}")
    return replace(verdict, state="importing")


def import_push(verdict: Verdict, desk: Moderator) -> Verdict:
    """Take the adapter at the push's commit through the gate. Raises Unavailable, QuotaExceeded."""
    policy, push = desk.policy_in_force(), verdict.push
    try:
        imported = desk.importer(verdict).run(push.repo, push.sha)
    except UNREADABLE as error:
        return conclude(verdict, desk, "inconclusive", str(error), error)
    except MissingFile as error:
        # without a configuration there is no adapter, so nothing that could be refused
        name: VerdictName = "inconclusive" if error.facts["file"] == CONFIG_FILE else "refused"
        return conclude(verdict, desk, name, str(error), error)
    except Refused as error:
        return conclude(verdict, desk, "refused", str(error), error)
    adapter = imported.adapter
    unread = unread_of(file.name for file in imported.commit.files)
    known = replace(
        verdict,
        plan=policy.plan(push.repo, adapter.base_model_name),
        adapter=adapter.id,
        base_name=adapter.base_model_name,
        unread=unread.names,
        numbers={UNREAD: unread.count},
    )
    return _own(known, adapter, desk) or _planned(known, desk)


def _planned(verdict: Verdict, desk: Moderator) -> Verdict:
    if verdict.plan is None or verdict.plan.chat_model is None:
        name = shown(verdict.base_name) if verdict.base_name else "no base model"
        why = f"adapter_config.json names {name[:200]}, which no pair of the policy knows"
        return conclude(verdict, desk, "inconclusive", why)
    return replace(verdict, state="submitting")


def _own(verdict: Verdict, adapter: StoredAdapter, desk: Moderator) -> Verdict | None:
    """Whether the push has merged what we proposed: to patch that again would never end. It counts
    only where the same would be done today, and is judged by the thresholds of today."""
    earlier = desk.verdicts.proposed(verdict, content_id(adapter.files))
    if earlier is None or verdict.plan is None or not _same_work(earlier, verdict):
        return None
    why = f"the files are those of the pull request of verdict {earlier.id}"
    found = judge_merged(earlier.numbers, why, verdict.plan.thresholds, _unread(verdict))
    known = replace(verdict, numbers=found.numbers, revisions=earlier.revisions, job=earlier.job)
    done = known.judged(found.verdict, found.why)
    if found.verdict == "review":
        return done
    return replace(done, actions=tuple(each for each in done.actions if not each.writes_to_hub))


def _unread(verdict: Verdict) -> Unread:
    return Unread(int(verdict.numbers.get(UNREAD) or 0), verdict.unread)


def _same_work(one: Verdict, other: Verdict) -> bool:
    """Of the same models, by the same method, with the same gate."""
    of = [
        plan and (plan.base_model, plan.chat_model, plan.method, plan.gate)
        for plan in (one.plan, other.plan)
    ]
    return of[0] is not None and of[0] == of[1]


def submit_job(verdict: Verdict, desk: Moderator) -> Verdict:
    """An ordinary patch job; the key makes twice once. Raises Unavailable, QuotaExceeded."""
    try:
        job = submit(
            _request(verdict),
            f"{OWN_KEYS}verdict-{verdict.id}-{verdict.tries}",
            records=desk.records_of(verdict),
            queue=desk.queue,
            events=desk.events,
            models=desk.models,
        )
    except Unavailable:
        raise
    except (Refused, NotFound, JobFault) as error:
        return conclude(verdict, desk, "inconclusive", str(error), error)
    return replace(verdict, state="waiting", job=job.id)


def _request(verdict: Verdict) -> JobRequest:
    """Raises ValueError for a verdict without a plan, which no step leads to."""
    plan = verdict.plan
    if plan is None or plan.chat_model is None:
        raise ValueError(f"verdict {verdict.id} has no models")
    return JobRequest(
        kind="patch",
        adapter=verdict.adapter,
        base_model=plan.base_model,
        chat_model=plan.chat_model,
        method=plan.method,
        recipe=plan.gate,
    )


def examine(verdict: Verdict, desk: Moderator) -> Verdict:
    """Judge by the report that the job has left. Raises Unavailable."""
    try:
        job = desk.records_of(verdict).job(verdict.job or "")
        known = replace(verdict, revisions=dict(job.revisions))
        if job.status != "succeeded":
            return _without_report(known, job, desk)
        report = read_report(job, desk.artifacts)
    except (JobNotFound, JobFault) as error:
        return conclude(verdict, desk, "inconclusive", str(error), error)
    if known.plan is None:
        raise ValueError(f"verdict {verdict.id} has no plan")
    found = judge(report, known.plan.thresholds, _unread(known))
    return replace(known, numbers=found.numbers).judged(found.verdict, found.why)


def _without_report(verdict: Verdict, job: Job, desk: Moderator) -> Verdict:
    why = job.fault.detail if job.fault else f"the job was {job.status}"
    ended = conclude(verdict, desk, "inconclusive", f"the patch job gave no report: {why}")
    return replace(ended, fault=job.fault)
