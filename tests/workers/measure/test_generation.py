"""Greedy answers of real tiny models: the same in any batch, and ended where they end."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app.domain.salora_errors import OutOfMemory
from tests.workers.measure.made import LETTERS, loaded, made, prompts, short_of_memory
from workers.measure.generation import Answer, Generator, end_tokens
from workers.measure.prompts import Prompt

ARCHITECTURES = ["llama", "qwen2", "gpt2", "opt", "gemma2", "gemma3_text"]
LENGTHS = (3, 17, 5, 5, 11, 1, 8)
CONTEXT = 32  # of the factory's GPT-2 and OPT, whose positions are learnt
NEW = 6

Both = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def each(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return made(tmp_path_factory.mktemp("each"), request.param)


@pytest.fixture
def llama(tmp_path: Path) -> Both:
    return made(tmp_path / "llama")


def by_line(generator: Generator, given: Sequence[Prompt]) -> dict[int, Answer]:
    return {one.line: one for batch in generator.answers(given) for one in batch}


def greedy(model: PreTrainedModel, prompt: Prompt, count: int, ends: frozenset[int]) -> list[int]:
    """By hand: one prompt, one token at a time, nothing cached."""
    ids = list(prompt.ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in ends:
                break
    return ids[len(prompt) :]


@pytest.mark.parametrize("batch_tokens", [1, 40, 8192], ids=lambda n: f"{n} tokens a batch")
def test_answers_in_batches_are_those_of_one_prompt_at_a_time(
    each: Both, batch_tokens: int
) -> None:
    model, tokenizer = each
    given = prompts(*LENGTHS)
    found = by_line(Generator(model, tokenizer, NEW, CONTEXT, batch_tokens), given)
    ends = end_tokens(model, tokenizer)
    for prompt in given:
        wanted = greedy(model, prompt, NEW, ends)
        assert found[prompt.line].ids == wanted
        assert found[prompt.line].text == tokenizer.decode(wanted, skip_special_tokens=True)


def test_near_the_end_of_the_context_each_answer_has_the_room_of_its_own_prompt(
    each: Both,
) -> None:
    """A long prompt in the same batch takes nothing from a short one's answer."""
    model, tokenizer = each
    given = prompts(30, 28, 28, 9, 31)
    found = by_line(Generator(model, tokenizer, 8, CONTEXT), given)
    ends = end_tokens(model, tokenizer)
    for prompt in given:
        room = min(8, CONTEXT - len(prompt))
        assert found[prompt.line].ids == greedy(model, prompt, room, ends)


def test_batches_are_of_like_prompts_the_longest_first_and_within_their_budget(
    llama: Both,
) -> None:
    batches = list(Generator(*llama, NEW, CONTEXT, batch_tokens=50).answers(prompts(*LENGTHS)))
    assert [[LENGTHS[one.line - 1] for one in batch] for batch in batches] == [
        [17, 11],
        [8, 5, 5],
        [3, 1],
    ]


def test_no_prompt_gives_no_batch(llama: Both) -> None:
    assert list(Generator(*llama, NEW, CONTEXT).answers([])) == []


# -------------------------------------------------------------------------------- where answers end
def told_to_end(llama: Both, prompt: Prompt, where: str) -> tuple[Generator, list[int]]:
    """By a token that the model comes to; tokenizer, or generation_config or config of the model
    say so. And the answer that is then due."""
    model, tokenizer = llama
    free = greedy(model, prompt, 12, frozenset())
    end = next(token for i, token in enumerate(free) if i and token in LETTERS)
    if where == "tokenizer":
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    else:
        getattr(model, where).eos_token_id = [end, 57]
    return Generator(model, tokenizer, 12, 64), free[: free.index(end) + 1]


@pytest.mark.parametrize("where", ["tokenizer", "generation_config", "config"])
def test_an_answer_ends_with_the_end_token_that_tokenizer_or_checkpoint_names(
    llama: Both, where: str
) -> None:
    given = prompts(*LENGTHS)
    generator, wanted = told_to_end(llama, given[0], where)
    found = by_line(generator, given)
    assert found[1].ids == wanted
    assert len(wanted) < 12
    ends = end_tokens(*llama)
    assert ends >= {wanted[-1]}
    for one in found.values():
        assert not ends & set(one.ids[:-1])


def test_an_answer_has_at_most_so_many_new_tokens(llama: Both) -> None:
    model, tokenizer = llama
    for count in (1, 7):
        found = by_line(Generator(model, tokenizer, count, 64), prompts(*LENGTHS))
        assert max(len(one.ids) for one in found.values()) == count


def test_a_tokenizer_without_a_padding_token_changes_nothing(llama: Both) -> None:
    model, tokenizer = llama
    with_pad = by_line(Generator(model, tokenizer, NEW, CONTEXT), prompts(*LENGTHS))
    tokenizer.pad_token = None
    assert by_line(Generator(model, tokenizer, NEW, CONTEXT), prompts(*LENGTHS)) == with_pad


def test_without_any_end_token_answers_are_as_long_as_they_may(llama: Both) -> None:
    model, tokenizer = llama
    tokenizer.pad_token = tokenizer.eos_token = None
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    found = by_line(Generator(model, tokenizer, NEW, CONTEXT), prompts(*LENGTHS))
    assert {len(one.ids) for one in found.values()} == {NEW}


def test_the_checkpoints_own_sampling_settings_play_no_part(tmp_path: Path) -> None:
    model, tokenizer = made(tmp_path / "chat")
    plain = by_line(Generator(model, tokenizer, 12, 64), prompts(*LENGTHS))
    own = {
        "do_sample": True,
        "temperature": 2.0,
        "top_k": 3,
        "repetition_penalty": 5.0,
        "no_repeat_ngram_size": 1,
        "min_new_tokens": 3,
        "num_beams": 2,
        "num_return_sequences": 2,
        "suppress_tokens": list(range(8, 30)),
        "use_cache": False,
        "max_length": 8,
        "eos_token_id": [2, 7],
    }
    (tmp_path / "chat" / "generation_config.json").write_text(json.dumps(own))
    again = loaded(tmp_path / "chat")
    assert again[0].generation_config.repetition_penalty == 5.0
    generator = Generator(*again, 12, 64)
    assert by_line(generator, prompts(*LENGTHS)) == plain
    assert generator.model.generation_config.repetition_penalty == 5.0  # left as it was


# ----------------------------------------------------------------------------------- out of memory
def test_where_memory_is_too_small_batches_are_halved_for_good(llama: Both) -> None:
    model, tokenizer = llama
    given = prompts(*[9] * 16)
    wanted = by_line(Generator(model, tokenizer, 1, CONTEXT), given)
    calls = short_of_memory(model, 4)
    generator = Generator(model, tokenizer, 1, CONTEXT)
    assert by_line(generator, given) == wanted
    assert calls == [16, 8, 4, 4, 4, 4]
    assert by_line(generator, given[:8]) == {line: wanted[line] for line in range(1, 9)}
    assert calls[6:] == [4, 4]


def test_one_prompt_that_does_not_fit_fails_and_says_how_large_it_is(llama: Both) -> None:
    short_of_memory(llama[0], 0)
    with pytest.raises(OutOfMemory, match=r"one prompt .*21 tokens and up to 6 of an answer") as e:
        by_line(Generator(*llama, NEW, CONTEXT), prompts(4, 21))
    assert "cpu" in str(e.value)


def test_another_error_of_the_model_is_not_taken_for_a_lack_of_memory(llama: Both) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    llama[0].register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="shapes"):
        by_line(Generator(*llama, NEW, CONTEXT), prompts(4, 21))
