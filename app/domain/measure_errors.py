"""What can go wrong while measuring; a part of the tree in `errors`."""

from app.domain.errors import JobFault


class PromptsTooLong(JobFault):
    code = "prompts-too-long"
    title = "A prompt leaves no room for an answer"
    message = (
        "{role} set, line {line}: the prompt has {tokens} tokens, and less than {limit} can be "
        "taken (max_length, or the model's context); {rows} rows are like this"
    )


class SetsOverlap(JobFault):
    code = "sets-overlap"
    title = "Tuning and held-out rows overlap"
    message = (
        "{role}: {rows} held-out prompts are in the tuning set as well (line {line} of the "
        "held-out set is one): a setting would be judged on what it was chosen by"
    )


class SetTooSmall(JobFault):
    code = "set-too-small"
    title = "A data set is too small to be split"
    message = "{role}: {rows} rows cannot be split into a tuning and a held-out part"


class NoRefusalToRestore(JobFault):
    code = "no-refusal-to-restore"
    title = "The chat model refuses none of the harmful prompts"
    message = "the chat model refuses none of the {rows} harmful prompts: {reason}"
