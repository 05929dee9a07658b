"""Chat models and their tokenizers as transformers loads them: from a folder, weights in
safetensors, no code of the checkpoint's own."""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging as logs

from app.alignment.activations import weight_of
from app.domain.errors import CheckpointRefused
from app.domain.salora import Dtype
from app.domain.salora_errors import TargetsRefused, TokenizerRefused
from workers.run import NamedCheckpoint

logger = logging.getLogger(__name__)
# because a worker has no terminal, and the commands have bars of their own
logs.disable_progress_bar()  # type: ignore[no-untyped-call] # transformers' own

FIELD = "chat_model"
DTYPES: Mapping[Dtype, torch.dtype | str] = {
    "auto": "auto",
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
}
LOCAL = {"local_files_only": True, "trust_remote_code": False}
# how the names begin of the files that say how text becomes tokens: they are no part of a
# checkpoint's own digest
TOKENIZER_FILES = ("added_tokens", "chat_template", "merges", "sentencepiece", "special_tokens",
                   "spiece", "tekken", "token", "vocab")  # fmt: skip
MORE_TEMPLATES = "additional_chat_templates"


def load_model(named: NamedCheckpoint, dtype: Dtype, device: torch.device) -> PreTrainedModel:
    """In evaluation mode, every parameter frozen. Raises CheckpointRefused."""
    checkpoint = named.checkpoint
    if checkpoint.quantised:
        reason = f"its weights are quantised ({checkpoint.quantised}); use the unquantised model"
        raise CheckpointRefused(field=FIELD, model=named.id, file="config.json", reason=reason)
    checkpoint.have_all()
    with _explained(named, "the model"):
        config = AutoConfig.from_pretrained(checkpoint.folder, **LOCAL)
        text = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
        kind = AutoModelForCausalLM if text else AutoModelForImageTextToText
        model: PreTrainedModel = kind.from_pretrained(
            checkpoint.folder, dtype=DTYPES[dtype], use_safetensors=True, **LOCAL
        )
    model.requires_grad_(False)
    model.config.use_cache = False
    nn.Module.eval(model)
    nn.Module.to(model, device)
    return model


@contextmanager
def _explained(named: NamedCheckpoint, what: str) -> Iterator[None]:
    """What transformers says may hold paths of this machine: the operator's log has it."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        logger.warning("%s of %s: %s", what, named.id, error)
        reason = f"transformers cannot load {what} ({type(error).__name__})"
        raise CheckpointRefused(
            field=FIELD, model=named.id, file="config.json", reason=reason
        ) from error


def load_tokenizer(named: NamedCheckpoint) -> PreTrainedTokenizerBase:
    """One that knows which characters each token came from. Raises TokenizerRefused."""
    named.checkpoint.have_tokenizer()
    try:
        tokenizer = AutoTokenizer.from_pretrained(named.checkpoint.folder, **LOCAL)
    except Exception as error:  # tokenizers raises bare Exceptions for a broken file
        logger.warning("the tokenizer of %s: %s", named.id, error)
        reason = "its checkpoint has no tokenizer that transformers can load"
        raise TokenizerRefused(field=FIELD, model=named.id, reason=reason) from error
    if not tokenizer.is_fast:
        reason = (
            "its tokenizer does not say which characters a token came from (it is not a fast one)"
        )
        raise TokenizerRefused(field=FIELD, model=named.id, reason=reason)
    found: PreTrainedTokenizerBase = tokenizer
    return found


def tokenizer_digest(named: NamedCheckpoint) -> str:
    """SHA-256 (hex) over the tokenizer's and the chat template's files."""
    named.checkpoint.have_tokenizer()
    digest, folder = hashlib.sha256(), named.checkpoint.folder
    found = [path for path in folder.glob("*") if path.name.startswith(TOKENIZER_FILES)]
    for path in sorted([*found, *folder.glob(f"{MORE_TEMPLATES}/*")]):
        if path.is_file():
            raw = path.read_bytes()
            digest.update(f"\0{path.relative_to(folder)}\0{len(raw)}\0".encode() + raw)
    return digest.hexdigest()


def find_targets(model: PreTrainedModel, targets: Sequence[str]) -> dict[str, nn.Module]:
    """The linear modules that the names mean, as PEFT's `target_modules` does: a full name, or the
    end of one after a dot. In module order. Raises TargetsRefused."""
    modules = dict(model.named_modules())
    found = {name: modules[name] for name in modules if _is_meant(name, targets)}
    unused = [target for target in targets if not any(_is_meant(name, [target]) for name in found)]
    if unused:
        raise TargetsRefused(modules=unused, reason="no module of the chat model has such a name")
    for name, module in found.items():
        try:
            weight_of(module)
        except TypeError as error:
            raise TargetsRefused(modules=[name], reason=str(error)) from None
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call] # transformers' own
    if any(module is head for module in found.values()):
        reason = "the output head has no fixed safety module: its outputs are the tokens themselves"
        raise TargetsRefused(modules=[n for n, m in found.items() if m is head], reason=reason)
    return found


def _is_meant(name: str, targets: Sequence[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the machine, had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    refused = r"can't allocate memory|not enough memory|CUDA out of memory"
    return isinstance(error, RuntimeError) and bool(re.search(refused, str(error)))
