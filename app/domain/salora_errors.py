"""What can go wrong with data sets, safety modules, kits and trainings; a part of the tree in
`errors`."""

from app.domain.errors import JobFault, NotFound, Refused


class DatasetRefused(Refused):
    code = "dataset-refused"
    title = "The data set cannot be used"
    message = "line {line}: {reason}"


class ResponsesMissing(DatasetRefused):
    code = "responses-missing"
    title = "Rows without a response"
    message = "{field}: {rows} of the {of} rows of data set {dataset} have no response"


class EmptyDataset(Refused):
    code = "empty-dataset"
    title = "The data set has no rows"
    message = "the data set has no rows"


class TokenizerRefused(Refused):
    code = "tokenizer-refused"
    title = "A model's tokenizer cannot be used"
    message = "{field} {model}: {reason}"


class TargetsRefused(Refused):
    code = "targets-refused"
    title = "Target modules that cannot be used"
    message = "target_modules: {modules}: {reason}"


class KitOfAnotherModel(Refused):
    code = "kit-of-another-model"
    title = "Made for another model"
    message = (
        "the {what} was made for {made_for} with the digest {expected}, but chat_model {model} has "
        "the digest {found}"
    )


class AdapterDoesNotFitKit(Refused):
    code = "adapter-does-not-fit-kit"
    title = "The adapter was not trained with this kit"
    message = "the adapter does not fit the kit at {modules}: {reason}"


class AdapterOutsideSafetyModule(Refused):
    code = "adapter-outside-safety-module"
    title = "The safety module has none of the adapter's modules"
    message = "safety module {safety_module} has none of the adapter's modules: {modules}"


class DatasetNotFound(NotFound):
    code = "dataset-not-found"
    title = "No such data set"
    message = "no data set has the id {dataset}"


class PartNotFound(NotFound):
    code = "part-not-found"
    title = "No such safety module or kit"
    message = "no {what} has the id {id}"


class ResponsesCutOff(JobFault):
    code = "responses-cut-off"
    title = "A response lies beyond the maximum length"
    message = (
        "line {line} has its response beyond max_length {max_length} (the prompt alone has "
        "{prompt_tokens} tokens); {rows} rows are like this: raise max_length or shorten them"
    )


class NonFiniteLoss(JobFault):
    code = "non-finite-loss"
    title = "The loss became NaN or infinite"
    message = "the loss of step {step} is {loss}; the last good checkpoint is that of {checkpoint}"


class OutOfMemory(JobFault):
    code = "out-of-memory"
    title = "The device's memory is too small"
    message = "{what} does not fit into the memory of {device}: {sizes}"
