"""Laws of lm2.tasks.babilong: mixtures have the length asked for and lose nothing; scores are the benchmark's own."""

import json
import lzma
from pathlib import Path

import pytest

import lm2
from lm2.tasks.babi import prompts
from lm2.tasks.babilong import exact_score, fits, length_tokens, mix, official_score
from lm2.tasks.books import Library
from lm2.tasks.instructions import instructed_prompt, plain_prompt
from lm2.tasks.prompt import Prompt
from lm2.tasks.simulator import simulate
from lm2.tasks.stories import data_folder
from lm2.text.tokens import Tokenizer

BOOK = " ".join(
    f"It was on the {day} day of that long and weary march, said Mr. Marlow to his niece, that we saw the river."
    for day in map(str, range(400))
)


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    texts = [line.text for seed in range(20) for line in simulate(1, seed=seed).story.lines]
    return Tokenizer.train([BOOK, *texts, *(f" {text}" for text in texts)], 600)


@pytest.fixture(scope="module")
def library(words: Tokenizer) -> Library:
    return Library({"march": BOOK}, words)


def items(task: int = 1, seeds: int = 3) -> list[Prompt]:
    return [prompt for seed in range(seeds) for prompt in prompts([simulate(task, seed=seed).story])]


@pytest.mark.parametrize("length", [700, 1_000, 4_000])
def test_a_mixture_has_as_many_tokens_as_its_length_leaves(words: Tokenizer, library: Library, length: int) -> None:
    for prompt in items():
        mixture = mix(prompt, length, library, words, seed=0)
        assert mixture.tokens == length - 300
        assert abs(len(words.encode(f" {mixture.text}")) - mixture.tokens) <= 2  # the cut sentence may join otherwise


def test_every_fact_stands_in_the_mixture_where_it_is_said_to_and_in_order(words: Tokenizer, library: Library) -> None:
    for prompt in items(2):
        mixture = mix(prompt, 2_000, library, words, seed=0)
        assert [mixture.text[left:right] for left, right in mixture.fact_spans] == [*prompt.statements]
        assert list(mixture.fact_spans) == sorted(mixture.fact_spans)
        assert mixture.support == prompt.support and mixture.question not in mixture.text


def test_at_length_zero_there_are_facts_alone(words: Tokenizer) -> None:
    for prompt in items():
        assert mix(prompt, 0, None, words, seed=0).text == " ".join(prompt.statements)


def test_an_item_depends_on_its_seed_and_not_on_what_was_drawn_before_it(words: Tokenizer, library: Library) -> None:
    first, second = items()[:2]
    alone = mix(second, 1_000, library, words, seed=0)
    mix(first, 1_000, library, words, seed=0)
    assert mix(second, 1_000, library, words, seed=0) == alone
    assert mix(second, 1_000, library, words, seed=1).text != alone.text


def test_positions_are_uniform_over_the_gaps(words: Tokenizer, library: Library) -> None:
    prompt = items()[0]
    starts = []
    for seed in range(300):
        mixture = mix(prompt, 1_000, library, words, seed=seed)
        starts += [left / len(mixture.text) for left, _ in mixture.fact_spans]
    assert sum(starts) / len(starts) == pytest.approx(0.48, abs=0.04)
    assert min(starts) == 0 and max(starts) > 0.9


def test_too_many_facts_for_a_length_are_refused_with_both_numbers(words: Tokenizer, library: Library) -> None:
    long = items(3, 1)[-1]
    assert not fits(long, 700) and fits(long, 0) and fits(long, 1_000)
    with pytest.raises(ValueError, match="more than 310 - 300"):
        mix(long, 310, library, words, seed=0)
    with pytest.raises(ValueError, match="needs books"):
        mix(items()[0], 1_000, None, words, seed=0)


def test_a_library_without_sentences_is_refused(words: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no books"):
        Library.read(tmp_path, words)
    (tmp_path / "empty.txt").write_text("So. It. Is.")
    with pytest.raises(ValueError, match="empty"):
        Library.read(tmp_path, words)
    (tmp_path / "empty.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match="not readable as text"):
        Library.read(tmp_path, words)


@pytest.mark.parametrize(("name", "tokens"), [("0k", 0), ("4k", 4_000), ("128k", 128_000), ("1M", 1_000_000)])
def test_lengths_are_decimal(name: str, tokens: int) -> None:
    assert length_tokens(name) == tokens


@pytest.mark.parametrize("name", ["4", "4K", "k", "-1k", "4 k", ""])
def test_other_spellings_of_a_length_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="like 4k or 1M"):
        length_tokens(name)


def test_the_official_rule_agrees_with_every_recorded_verdict() -> None:
    folder = data_folder()
    if folder is None:
        pytest.skip("no data folder: set LM2_DATA_DIR")
    with lzma.open(folder / "babilong" / "scorer_cases.jsonl.xz", "rt", encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    wrong = [
        case
        for case in cases
        if official_score(case["task"], case["question"], case["target"], case["output"]) != case["correct"]
    ]
    assert len(cases) > 700 and wrong == []


@pytest.mark.parametrize(
    ("task", "question", "target", "output", "official", "exact"),
    [
        ("qa1", "Where is Mary?", "kitchen", "Kitchen. Then the office", True, True),
        ("qa1", "Where is Mary?", "kitchen", "The kitchen", True, False),
        ("qa1", "Where is Mary?", "kitchen", "bathroom kitchen", False, False),
        ("qa1", "Where is Mary?", "kitchen", "Mary is not there. kitchen", False, False),
        ("qa3", "Where was the milk before the kitchen?", "kitchen", "kitchen", False, True),
        ("qa6", "Is Mary in the kitchen?", "no", "I do not know", True, False),
        ("qa7", "How many objects is Mary carrying?", "none", "none", False, True),
        ("qa7", "How many objects is Mary carrying?", "one", "one", True, True),
        ("qa8", "What is Mary carrying?", "apple,milk", "milk, apple", True, True),
        ("qa8", "What is Mary carrying?", "apple,milk", "milk", False, False),
        ("qa19", "How?", "n,e", "n, e", False, True),
    ],
)
def test_scores_of_single_answers(
    task: str, question: str, target: str, output: str, official: bool, exact: bool
) -> None:
    assert lm2.babilong.official_score(task, question, target, output) == official
    assert lm2.babilong.exact_score(task, question, target, output) == exact


def test_no_output_is_right_for_none_and_so_the_official_rule_has_a_ceiling_on_qa7() -> None:
    for output in ("none", "no", "zero", "none one", "Nothing."):
        assert not official_score(7, "How many objects is Mary carrying?", "none", output)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="qa1 to qa20"):
        official_score("qa21", "?", "a", "a")
    with pytest.raises(ValueError, match="qa1 to qa20"):
        exact_score("x", "?", "a", "a")


@pytest.mark.parametrize("task", range(1, 11))
def test_prompts_hold_the_mixture_and_end_with_the_question(words: Tokenizer, task: int) -> None:
    mixture = mix(items(task, 1)[0], 0, None, words, seed=0)
    assert plain_prompt(mixture) == f"{mixture.text}\f{mixture.question}"
    asked = instructed_prompt(mixture)
    assert f"<context>\n{mixture.text}\n</context>" in asked and asked.endswith(f"Question: {mixture.question}")
    assert asked.count("\n\n") >= 4
