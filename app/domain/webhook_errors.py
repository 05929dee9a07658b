"""What can go wrong with webhooks; a part of the tree in `errors`."""

from app.domain.errors import Conflict, NotFound, Refused


class CallbackRefused(Refused):
    code = "callback-refused"
    title = "The callback may not be called"
    message = "the callback may not be called: {reason}"


class WebhookNotFound(NotFound):
    code = "webhook-not-found"
    title = "No such webhook"
    message = "no webhook has the id {webhook}"


class DeliveryNotFound(NotFound):
    code = "delivery-not-found"
    title = "No such delivery"
    message = "no delivery has the id {delivery}"


class WebhookDisabled(Conflict):
    code = "webhook-disabled"
    title = "The webhook is disabled"
    message = "webhook {webhook} is disabled; enable it first"


class TooManyWebhooks(Conflict):
    code = "too-many-webhooks"
    title = "No room for another webhook"
    message = "a tenant may have {limit} webhooks; delete one first"
