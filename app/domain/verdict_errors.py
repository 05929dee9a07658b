"""What can go wrong between a hub's push and our answer to it; the tree is drawn in `errors`."""

from app.domain.access_errors import Denied
from app.domain.errors import Conflict, NotFound, Refused, Stopped


class HookNotConfigured(NotFound):
    code = "hook-not-configured"
    title = "This service takes no webhooks"
    message = (
        "no webhook is configured here; its operator sets ADAPTER_SAFETY_HOOK_SECRET and "
        "ADAPTER_SAFETY_POLICY"
    )


class HookSecretMissing(Denied):
    code = "hook-secret-missing"
    title = "The webhook's secret is missing"
    message = "send the secret of the hub's webhook as X-Webhook-Secret"


class HookSecretWrong(Denied):
    code = "hook-secret-wrong"
    title = "The webhook's secret is wrong"
    message = "X-Webhook-Secret is not the secret that this service was given"


class PolicyRefused(Refused):
    code = "policy-refused"
    title = "The policy file cannot be used"
    message = "{field}: {reason}"


class VerdictNotFound(NotFound):
    code = "verdict-not-found"
    title = "No such verdict"
    message = "no verdict has the id {verdict}"


class VerdictNotRetryable(Conflict):
    code = "verdict-not-retryable"
    title = "This verdict is not to be tried again"
    message = "verdict {verdict} is {state}, not done and inconclusive"


class VerdictTaken(Stopped):
    code = "verdict-taken"
    title = "Another process has taken the verdict over"
    message = "another process has taken verdict {verdict} over"


class PushedMeanwhile(Conflict):
    code = "pushed-meanwhile"
    title = "The branch has moved"
    message = "{repository} has moved away from {revision}"


class HubWriteRefused(Refused):
    code = "hub-write-refused"
    title = "The hub does not take this"
    message = "{what} in {repository}: {reason}"
