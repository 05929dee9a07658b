"""/v1/hooks: what a hub tells. It needs no API key: the webhook's secret says who asks."""

import hmac
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.routing import APIRoute

from app.api.hook_schemas import HookIn, HookOut, IgnoredOut, TakenOut, UpdatedRefIn
from app.api.services import Hook, Services, ServicesDep
from app.api.verdict_schemas import verdict_path
from app.domain.errors import Unavailable
from app.domain.policy import Policy
from app.domain.verdict_errors import HookNotConfigured, HookSecretMissing, HookSecretWrong

PATH = "/v1/hooks/huggingface"
SECRET = "X-Webhook-Secret"  # noqa: S105 - a header's name
MAX_BYTES = 256 << 10  # of a payload, which has about 2 KiB


def check_secret(hook: Hook | None, given: str | None) -> None:
    """Raises HookNotConfigured, HookSecretMissing, HookSecretWrong. Every secret is compared in
    full, so that the time it takes says nothing of them."""
    if hook is None:
        raise HookNotConfigured
    if given is None:
        raise HookSecretMissing
    sent = given.encode("latin-1")  # a header's bytes, as they came
    same = [hmac.compare_digest(sent, secret.encode()) for secret in hook.secrets]
    if not any(same):
        raise HookSecretWrong


class SecretFirst(APIRoute):
    """Looks at the secret before the body, of which a stranger is told nothing."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            services: Services = request.app.state.services
            check_secret(services.hook, request.headers.get(SECRET))
            return await handle(request)

        return guarded


router = APIRouter(tags=["moderation"], route_class=SecretFirst)


def _policy(services: ServicesDep) -> Policy:
    """Raises HookNotConfigured, and Unavailable where no version of the file could be read yet."""
    if services.policy is None:
        raise HookNotConfigured
    policy = services.policy.policy()
    if policy is None:
        raise Unavailable(part="the policy")
    return policy


@router.post(PATH, status_code=202)
async def take_push(
    body: HookIn,
    services: ServicesDep,
    policy: Annotated[Policy, Depends(_policy)],
    secret: Annotated[str | None, Header(alias=SECRET)] = None,
) -> HookOut:
    """A webhook of the Hugging Face Hub, version 3. It is written down and answered; the work comes
    after. The same push again is the same verdict."""
    if reason := body.refusal:
        return HookOut(taken=[], ignored=[IgnoredOut(ref=None, reason=reason)])
    return await to_thread.run_sync(_receive, body, policy, services)


def _receive(body: HookIn, policy: Policy, services: Services) -> HookOut:
    out = HookOut(taken=[], ignored=[])
    for updated in body.updated_refs:
        found = _receive_ref(body, updated, policy, services)
        if isinstance(found, TakenOut):
            out.taken.append(found)
        else:
            out.ignored.append(found)
    return out


def _receive_ref(
    body: HookIn, updated: UpdatedRefIn, policy: Policy, services: Services
) -> TakenOut | IgnoredOut:
    push = body.push(updated)
    if push is None:
        return IgnoredOut(ref=updated.ref, reason="the ref was deleted")
    if reason := policy.refusal(push.repo, push.ref):
        return IgnoredOut(ref=updated.ref, reason=reason)
    verdict, created = services.verdicts.of(policy.tenant).receive(push)
    links = {"verdict": verdict_path(verdict.id)}
    return TakenOut(verdict=verdict.id, ref=push.ref, sha=push.sha, new=created, links=links)
