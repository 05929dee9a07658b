"""Tiny chat models with a tokenizer, a chat template and a head for letters."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.factory import MAKERS, perturb

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
LETTERS = "abcdefghijklmnopqrstuvwxyz .,?!'\n:-0123456789"
TEMPLATE = (
    "<s>{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKED_TEMPLATE = (
    "<s>{% for message in messages %}<|{{ message['role'] }}|>{% if message['role'] == "
    "'assistant' %}{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def letters(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """One token a letter; fits a vocabulary of 64."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *LETTERS])}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=SPECIAL[4:],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


def save_chat_model(
    folder: Path,
    architecture: str = "llama",
    *,
    template: str | None = TEMPLATE,
    dtype: torch.dtype = torch.float32,
    seed: int = 7,
) -> PreTrainedModel:
    """Random weights, moved by a tenth so that biases and norms are no identity either."""
    torch.manual_seed(seed)
    model = MAKERS[architecture]()
    perturb(model, 0.1)
    model.to(dtype).save_pretrained(folder)
    letters(template).save_pretrained(folder)
    return model.eval()


def save_with_a_letter_that_breaks(model: PreTrainedModel, folder: Path) -> None:
    """The same model, whose letter z is NaN: a loss becomes NaN where a row has one."""
    tokenizer = letters()
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("z")] = torch.nan
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
