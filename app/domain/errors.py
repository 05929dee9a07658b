"""Everything that can go wrong, as facts. No HTTP here: `app.api.errors` alone knows status codes.

AdapterSafetyError
|-- Refused                 what was sent cannot be used; correct it and send it again
|   |-- MalformedRequest    MalformedMultipart
|   |-- TooLarge
|   |-- MissingFile, UnexpectedFile, PickleRefused, UnsafeArchive
|   |-- MalformedSafetensors, TensorRefused, EmptyAdapter
|   |-- ConfigRefused, RankMismatch, UnsupportedAdapter
|   |-- InvalidField, CallbackRefused (`webhook_errors`)
|   |-- UnknownModel, ModelNotAllowed, CheckpointRefused
|   |-- RepositoryNotFound, RepositoryGated, RevisionNotFound, NotInCache, HubNotWanted
|   |   (`hub_errors`)
|   |-- ModulesNotInModel, ModelShapesDiffer, AdapterShapesDiffer
|   |-- DatasetRefused (ResponsesMissing), EmptyDataset, TokenizerRefused, TargetsRefused,
|   |   KitOfAnotherModel, AdapterDoesNotFitKit, AdapterOutsideSafetyModule (`salora_errors`)
|   |-- PolicyRefused, HubWriteRefused (`verdict_errors`)
|   `-- IdempotencyKeyReused
|-- Denied                  Unauthenticated, Forbidden, CrossSite; with the next in `access_errors`
|                           HookSecretMissing, HookSecretWrong (`verdict_errors`)
|-- TooMany                 RateLimited, QuotaExceeded, ImportsBusy (`hub_errors`)
|-- NotFound                AdapterNotFound, JobNotFound, ResultNotFound, KeyNotFound (there),
|                           DatasetNotFound, PartNotFound, WebhookNotFound, DeliveryNotFound,
|                           VerdictNotFound, HookNotConfigured
|-- Conflict                JobNotFinished, JobAlreadyFinished, WebhookDisabled, TooManyWebhooks,
|                           VerdictNotRetryable, PushedMeanwhile
|-- JobFault                found while a job ran; the job fails with it
|   |-- NonFiniteTensor, ArtifactCorrupt, TooManyAttempts, TimeLimitReached, WorkerFault
|   |-- ResponsesCutOff, NonFiniteLoss, OutOfMemory
|   `-- HubFileCorrupt, HubRefused, HubCacheFull (`hub_errors`)
|-- Stopped                 JobCancelled, LeaseLost, WorkerStopping; VerdictTaken
`-- Unavailable             a part we depend on (broker, database, storage) does not answer
"""

from typing import ClassVar

MAX_LISTED = 20  # because a hostile adapter may have 50,000 wrong modules
MAX_SHOWN_CHARS = 300  # because names come from strangers and may be as long as the upload


class AdapterSafetyError(Exception):
    """A fact that went wrong: a stable `code`, a sentence, and the facts the sentence is made of.

    `message` is a format string over the facts; every fact travels to the client beside it.
    """

    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Something went wrong"
    message: ClassVar[str] = "something went wrong"

    def __init__(self, **facts: object) -> None:
        self.facts = {name: _bounded(value) for name, value in facts.items()}
        super().__init__(self.message.format(**{k: _said(v) for k, v in self.facts.items()}))


def _bounded(value: object) -> object:
    """Cut strings and lists to what fits an answer; a cut list ends with how many are left."""
    if isinstance(value, str):
        return value if len(value) <= MAX_SHOWN_CHARS else value[: MAX_SHOWN_CHARS - 3] + "..."
    if isinstance(value, list | tuple):
        shown = [_bounded(item) for item in value[:MAX_LISTED]]
        left = len(value) - len(shown)
        return [*shown, f"... and {left} more"] if left else shown
    return value


def _said(value: object) -> object:
    """A fact as it reads inside a sentence."""
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return value


# ------------------------------------------------------------------------------------------ refused
class Refused(AdapterSafetyError):
    """What was sent cannot be used. Nothing was stored."""


class MalformedRequest(Refused):
    code = "malformed-request"
    title = "The request cannot be read"
    message = "{reason}"


class MalformedMultipart(MalformedRequest):
    code = "malformed-multipart"
    title, message = "The multipart body cannot be read", "the multipart body is broken: {reason}"


class TooLarge(Refused):
    code = "too-large"
    title = "Over a size limit"
    message = "{what} is over the limit of {limit_bytes} bytes"


class MissingFile(Refused):
    code = "missing-file"
    title = "A file is missing"
    message = "the upload lacks {file}"


class UnexpectedFile(Refused):
    code = "unexpected-file"
    title = "A file that does not belong"
    message = "{file} does not belong in an adapter: {reason}"


class PickleRefused(Refused):
    code = "pickle-refused"
    title = "Pickle formats run code when read, so they are refused"
    message = (
        "{file} is a pickle file; if it holds the adapter, convert it: load the adapter with PEFT "
        "on a machine you trust and call model.save_pretrained(folder, safe_serialization=True). "
        "If it is something else (an optimizer, training arguments), leave it out: send only "
        "adapter_config.json and adapter_model.safetensors"
    )


class UnsafeArchive(Refused):
    code = "unsafe-archive"
    title = "The archive is refused"
    message = "the archive is refused at {entry}: {reason}"


class MalformedSafetensors(Refused):
    code = "malformed-safetensors"
    title = "Not a well-formed safetensors file"
    message = "{file} is not a well-formed safetensors file: {reason}"


class TensorRefused(Refused):
    code = "tensor-refused"
    title = "A tensor that does not belong in a LoRA adapter"
    message = "tensor {tensor} is refused: {reason}"


class EmptyAdapter(Refused):
    code = "empty-adapter"
    title = "The adapter has no LoRA modules"
    message = "{file} holds no LoRA module"


class ConfigRefused(Refused):
    code = "config-refused"
    title = "The adapter's configuration is refused"
    message = "adapter_config.json, field {field}: {reason}"


class RankMismatch(Refused):
    code = "rank-mismatch"
    title = "The configuration's rank contradicts the tensors"
    message = "module {module}: adapter_config.json says rank {expected}, {tensor} has {found}"


class UnsupportedAdapter(Refused):
    code = "unsupported-adapter"
    title = "An adapter kind that is not supported"
    message = "{feature} is not supported ({where}): {hint}"


class InvalidField(Refused):
    code = "invalid-field"
    title = "A field has a value that cannot be used"
    message = "field {field}: {reason}"


class UnknownModel(Refused):
    code = "unknown-model"
    title = "No such model"
    message = (
        "{field}: no model {model} is known here; it would be a folder under "
        "ADAPTER_SAFETY_MODEL_ROOT"
    )


class ModelNotAllowed(Refused):
    code = "model-not-allowed"
    title = "This model may not be named here"
    message = "{field}: {model} is not among the models that this service's operator allows"


class CheckpointRefused(Refused):
    code = "checkpoint-refused"
    title = "A model's checkpoint cannot be used"
    message = "{field} {model}: {file}: {reason}"


class ModulesNotInModel(Refused):
    code = "modules-not-in-model"
    title = "The adapter has modules that the model does not have"
    message = "{field} {model} has no weight for: {modules}"


class ModelShapesDiffer(Refused):
    code = "model-shapes-differ"
    title = "The base and the chat model have different shapes"
    message = "base_model and chat_model differ in shape at: {modules}"


class AdapterShapesDiffer(Refused):
    code = "adapter-shapes-differ"
    title = "The adapter's shapes do not fit the model"
    message = "the adapter does not fit {field} {model} at: {modules}"


class IdempotencyKeyReused(Refused):
    code = "idempotency-key-reused"
    title = "This Idempotency-Key was used for another request"
    message = "Idempotency-Key {key} was used for a request with another content"


# ---------------------------------------------------------------------------------------- not found
class NotFound(AdapterSafetyError):
    """The id names nothing here."""


class AdapterNotFound(NotFound):
    code = "adapter-not-found"
    title = "No such adapter"
    message = "no adapter has the id {adapter}"


class JobNotFound(NotFound):
    code = "job-not-found"
    title = "No such job"
    message = "no job has the id {job}"


class ResultNotFound(NotFound):
    code = "result-not-found"
    title = "This job has no such result"
    message = "job {job} ended as {status}, which has no {what}"


# ----------------------------------------------------------------------------------------- conflict
class Conflict(AdapterSafetyError):
    """The request is fine, but not in the present state."""


class JobNotFinished(Conflict):
    code = "job-not-finished"
    title = "The job has not finished"
    message = "job {job} is {status}; its {what} is there when it has succeeded"


class JobAlreadyFinished(Conflict):
    code = "job-already-finished"
    title = "The job has already finished"
    message = "job {job} has already {status} and cannot be cancelled"


# ---------------------------------------------------------------------------------------- job fault
class JobFault(AdapterSafetyError):
    """Found while a job ran: the job fails and keeps these facts."""


class NonFiniteTensor(JobFault):
    code = "non-finite-tensor"
    title = "A tensor holds NaN or infinity"
    message = "tensor {tensor} of the {source} holds NaN or infinity"


class ArtifactCorrupt(JobFault):
    code = "artifact-corrupt"
    title = "A stored file does not match its digest"
    message = "the stored {what} does not match its digest"


class TooManyAttempts(JobFault):
    code = "too-many-attempts"
    title = "The job was given up"
    message = "the job was started {attempts} times and never finished"


class TimeLimitReached(JobFault):
    code = "time-limit-reached"
    title = "The job took too long"
    message = "the job was stopped at its time limit of {limit_s} seconds"


class WorkerFault(JobFault):
    code = "worker-fault"
    title = "The worker failed"
    message = "the worker failed with {kind}; the operator's log has the rest"


# ------------------------------------------------------------------------------------------ stopped
class Stopped(AdapterSafetyError):
    """Not a fault: the work was told to end."""


class JobCancelled(Stopped):
    code = "job-cancelled"
    title, message = "The job was cancelled", "the job was cancelled"


class LeaseLost(Stopped):
    code = "lease-lost"
    title = "Another worker has taken the job over"
    message = "another worker has taken job {job} over"


class WorkerStopping(Stopped):
    code = "worker-stopping"
    title = "The worker is told to stop"
    message = "the worker is told to stop; another takes the job"


class Unavailable(AdapterSafetyError):
    code = "unavailable"
    title = "A part of the service does not answer"
    message = "{part} does not answer; try again"
