"""Rows -> the ids that the tokenizer's own template gives, and the answer that follows them."""

from collections.abc import Sequence

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from app.domain.dataset import Row
from app.domain.measure_errors import PromptsTooLong
from app.domain.salora import Encoding
from app.domain.salora_errors import DatasetRefused, EmptyDataset
from tests.chat_models import MARKED_TEMPLATE, TEMPLATE, letters
from tests.workers.measure.made import asked
from workers.encoding import Encoder
from workers.measure.prompts import Prompt, PromptSet, encode_prompts

MOST = 64
REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
)
DATED = "{{ strftime_now('%d %b %Y') }}" + TEMPLATE


def encoder(template: str | None = TEMPLATE, *, chat_template: bool = True) -> Encoder:
    return Encoder(letters(template), Encoding(chat_template, max_length=MOST))


def encoded(row: Row, by: Encoder | None = None) -> Prompt:
    (prompt,) = encode_prompts("harmful", [row], by or encoder(), MOST).prompts
    return prompt


def by_template(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[dict[str, str]]
) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, return_dict=True
    )["input_ids"]
    return ids


@pytest.mark.parametrize("template", [TEMPLATE, MARKED_TEMPLATE], ids=["plain", "marked"])
def test_a_prompt_has_the_ids_that_the_tokenizers_template_gives(template: str) -> None:
    by = encoder(template)
    wanted = by_template(by.tokenizer, [{"role": "user", "content": "how do i?"}])
    for row in (asked("how do i?"), asked("how do i?", "so.")):
        assert encoded(row, by).ids == wanted
    assert by.tokenizer.convert_ids_to_tokens(wanted)[-1] == "<|assistant|>"


@pytest.mark.parametrize("template", [TEMPLATE, MARKED_TEMPLATE], ids=["plain", "marked"])
def test_prompt_and_answer_are_the_row_as_a_training_encodes_it(template: str) -> None:
    by = encoder(template)
    row = asked("how do i?", "so, then.", system="be good")
    prompt, whole = encoded(row, by), by.encode(row)
    assert prompt.expected == "so, then."
    assert prompt.expected_ids
    assert prompt.ids + prompt.expected_ids == whole.ids
    assert prompt.expected_ids == [
        i for i, r in zip(whole.ids, whole.is_response, strict=True) if r
    ]
    assert by.tokenizer.convert_ids_to_tokens(prompt.expected_ids)[-1] == "<|end|>"


def test_a_prompt_alone_expects_nothing() -> None:
    prompt = encoded(asked("how do i?", line=7))
    assert (prompt.expected, prompt.expected_ids, prompt.line) == (None, None, 7)
    assert prompt.text == "how do i?"


@pytest.mark.parametrize("template", [TEMPLATE, MARKED_TEMPLATE], ids=["plain", "marked"])
def test_a_conversation_is_asked_up_to_its_last_answer(template: str) -> None:
    by = encoder(template)
    row = asked("and b?", "b is.", system="s", user="a?", assistant="a is.")
    prompt = encoded(row, by)
    before = [{"role": m.role, "content": m.content} for m in row.messages[:-1]]
    assert prompt.ids == by_template(by.tokenizer, before)
    assert (prompt.text, prompt.expected) == ("and b?", "b is.")
    assert by.tokenizer.decode(prompt.expected_ids or []) == "b is.<|end|>"


@pytest.mark.parametrize(
    "by",
    [encoder(None), encoder(chat_template=False)],
    ids=["the tokenizer has none", "not wanted"],
)
def test_without_a_template_the_prompt_is_plain_text(by: Encoder) -> None:
    prompt = encoded(asked("how? ", "so."), by)
    assert prompt.ids == by.tokenizer("how? ")["input_ids"]
    assert by.tokenizer.decode(prompt.expected_ids or []) == "so.</s>"
    assert encoded(asked("how? "), by).ids == prompt.ids


@pytest.mark.parametrize("response", [None, "so."], ids=["a prompt alone", "with a response"])
def test_without_a_template_a_conversation_is_refused_and_no_part_of_it_dropped(
    response: str | None,
) -> None:
    with pytest.raises(DatasetRefused, match=r"line 3.*without a chat template"):
        encoded(asked("how?", response, line=3, system="be good"), encoder(None))


def test_an_end_token_that_the_tokenizer_puts_after_every_text_is_no_part_of_a_prompt() -> None:
    """Nothing would follow it."""
    by = encoder(None)
    by.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    prompt = encoded(asked("how?", "so."), by)
    assert by.tokenizer.decode(prompt.ids) == "<s>how?"
    assert by.tokenizer.decode(prompt.expected_ids or []) == "so.</s>"


def test_a_template_is_told_the_same_day_on_every_day() -> None:
    prompt = encoded(asked("how?"), encoder(DATED))
    assert letters().decode(prompt.ids).startswith("26 <unk>ul 2024")
    with_answer = encoded(asked("how?", "so."), encoder(DATED))
    assert with_answer.ids == prompt.ids


def test_what_the_template_refuses_is_refused_by_its_line() -> None:
    with pytest.raises(DatasetRefused, match=r"line 5.*no system"):
        encoded(asked("how?", line=5, system="be good"), encoder(REFUSES_SYSTEM + TEMPLATE))


def test_a_prompt_that_leaves_no_room_is_refused_with_its_line_and_how_many_there_are() -> None:
    rows = [asked("a" * n, line=line) for line, n in enumerate((5, 60, 61, 80), 1)]
    with pytest.raises(PromptsTooLong) as caught:
        encode_prompts("benign", rows, encoder(), MOST)
    assert caught.value.facts == {"role": "benign", "line": 2, "tokens": 64, "limit": 64, "rows": 3}
    assert len(encode_prompts("benign", [asked("a" * 59)], encoder(), MOST).prompts[0]) == 63


def test_a_set_without_rows_is_refused() -> None:
    with pytest.raises(EmptyDataset):
        encode_prompts("benign", [], encoder(), MOST)


def test_a_sets_digest_is_of_its_prompts_in_their_order() -> None:
    def digest(*texts: str) -> str:
        return encode_prompts("task", map(asked, texts), encoder(), MOST).sha256

    assert digest("a", "b") == digest("a", "b")
    assert len({digest("a", "b"), digest("b", "a"), digest("ab"), digest("a")}) == 4
    assert PromptSet("task", []).sha256 != digest("a")
