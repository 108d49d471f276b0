"""The begin-of-text token: there as transformers has it, in front of a document alone, and never counted as text."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import processors
from tokenizers_of_others import merged
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lm2.model.config import LM2Config, SegmentEnd
from lm2.model.sites import Site
from lm2.runs.donors import Patch
from lm2.runs.generation import answers, generate
from lm2.runs.interventions import Carry, Edit
from lm2.runs.likelihood import log_likelihoods, perplexity
from lm2.runs.runner import prepare, run
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.tasks.babi import ask
from lm2.tasks.encoded_prompt import encode_prompt
from lm2.tasks.simulator import simulate
from lm2.text.tokens import BREAK, Tokenizer
from lm2.training.curriculum import Lessons
from lm2.weights.checkpoint import Checkpoint, CheckpointError, load, save
from lm2.weights.folder import setup_digest
from lm2.weights.graft import graft

BOS, TEXTS = "<|begin_of_text|>", ("Mary moved to the garden.", " Zoë 🙂", "<|begin_of_text|>Mary", "")


def backend(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """Llama 3's kind: a byte-level BPE, its begin-of-text token added after the vocabulary."""
    made = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    made.add_special_tokens([BOS])
    return made


def template(made: tokenizers.Tokenizer, single: str = f"{BOS} $A") -> processors.PostProcessor:
    marks = [(mark, made.token_to_id(mark)) for mark in (BOS, "<|end|>")]
    return processors.TemplateProcessing(single=single, special_tokens=marks)


def like_llama_3(made: tokenizers.Tokenizer) -> processors.PostProcessor:
    return processors.Sequence([processors.ByteLevel(trim_offsets=False), template(made)])


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., Path]:
    """A toy Llama's folder: folder(post_processor, **tokenizer_config)."""

    def make(post: Callable | None = like_llama_3, **said: object) -> Path:
        made = backend(tokenizer)
        if post is not None:
            made.post_processor = post(made)
        config = LlamaConfig(
            vocab_size=made.get_vocab_size(), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, attn_implementation="eager",
        )  # fmt: skip
        torch.manual_seed(3)
        LlamaForCausalLM(config).eval().save_pretrained(tmp_path / "theirs")
        made.save(str(tmp_path / "theirs" / "tokenizer.json"))
        said = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS} | said
        (tmp_path / "theirs" / "tokenizer_config.json").write_text(json.dumps(said))
        return tmp_path / "theirs"

    return make


@pytest.fixture
def marked(plain: Checkpoint, plain_config: LM2Config, build: Callable[..., Checkpoint]) -> Checkpoint:
    """A toy whose texts begin with a token."""
    return with_bos(build(replace(plain_config, d_vocab=plain_config.d_vocab + 1)))


def with_bos(checkpoint: Checkpoint, *, added: bool = True) -> Checkpoint:
    tokenizer = Tokenizer(backend(checkpoint.tokenizer)).with_bos(BOS, added=added)
    return replace(checkpoint, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("post", "said", "added"),
    [
        (like_llama_3, {}, True),
        (like_llama_3, {"add_bos_token": False}, True),
        (like_llama_3, {"add_bos_token": True, "bos_token": "<|end|>"}, True),
        (template, {"bos_token": {"__type": "AddedToken", "content": BOS}}, True),
        (None, {"add_bos_token": None}, False),
        (None, {"add_bos_token": True, "bos_token": None}, False),
        (None, {}, False),
        (lambda made: processors.ByteLevel(), {}, False),
    ],
)
def test_texts_begin_as_in_transformers(folder: Callable[..., Path], post, said: dict, added: bool) -> None:
    path = folder(post, **said)
    ours, words = load(path, "cpu"), AutoTokenizer.from_pretrained(path)
    theirs = LlamaForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    assert ours.tokenizer.adds_bos == added
    for text in TEXTS:
        ids = words(text)["input_ids"]
        assert list(ours.tokenizer.encode(text).ids) == ids
        if text:
            trace = run(ours, RunSpec(checkpoint=ours.name, text=text))
            with torch.inference_mode():
                np.testing.assert_allclose(trace.logits, theirs(torch.tensor([ids])).logits[0], rtol=0, atol=1e-5)
    greedy = generate(ours, TEXTS[0], max_tokens=5).ids
    ids = torch.tensor([words(TEXTS[0])["input_ids"]])
    made = theirs.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert greedy == tuple(made[0, ids.shape[1] :].tolist())


def test_a_configuration_that_asks_for_it_is_heard_where_the_post_processor_puts_nothing_in_front(
    folder: Callable[..., Path],
) -> None:
    path = folder(None, add_bos_token=True)
    asked = load(path, "cpu").tokenizer.encode(TEXTS[0])
    assert asked == load(folder(), "cpu").tokenizer.encode(TEXTS[0]) and asked.bos


def test_a_token_after_a_text_is_left_out(folder: Callable[..., Path]) -> None:
    ours = load(folder(lambda made: template(made, f"{BOS} $A <|end|>")), "cpu").tokenizer
    assert (
        ours.encode("Mary").pieces[0] == BOS and ours.encode("Mary").ids[-1] == ours.encode("Mary", bos=False).ids[-1]
    )


@pytest.mark.parametrize(
    ("post", "said", "message"),
    [
        (lambda made: template(made, f"{BOS} <|end|> $A"), {}, "puts 2 tokens in front of a text"),
        (None, {"add_bos_token": True, "bos_token": "<s>"}, "the begin-of-text token '<s>' is not in the vocabulary"),
        (None, {"add_bos_token": "yes"}, "add_bos_token must be true or false, not 'yes'"),
        (None, {"bos_token": 3}, "bos_token must be a text, not 3"),
    ],
)
def test_what_cannot_begin_a_text_is_refused(folder: Callable[..., Path], post, said: dict, message: str) -> None:
    path = folder(post, **said)
    with pytest.raises(CheckpointError) as caught:
        load(path, "cpu")
    assert message in str(caught.value) and str(path / "tokenizer_config.json") in str(caught.value)


def test_it_is_a_token_of_its_own_without_characters(marked: Checkpoint, text: str) -> None:
    there, without = marked.tokenizer.encode(text), marked.tokenizer.encode(text, bos=False)
    assert there.bos and not without.bos
    assert (there.ids[0], there.pieces[0], there.shown[0], there.spans[0]) == (marked.tokenizer.bos, BOS, BOS, (0, 0))
    assert (there.ids[1:], there.pieces[1:], there.spans[1:]) == (without.ids, without.pieces, without.spans)
    assert marked.tokenizer.encode_after(" Mary") == with_bos(marked, added=False).tokenizer.encode_after(" Mary")


def test_every_place_of_the_text_is_one_further_on(marked: Checkpoint, text: str) -> None:
    there, without = marked.tokenizer.encode(text), marked.tokenizer.encode(text, bos=False)
    for at in range(0, len(text), 7):
        assert there.first_after(at) == without.first_after(at) + 1
        assert there.within(at, at + 9) == tuple(place + 1 for place in without.within(at, at + 9))
    end = text.index("?") + 1
    row, token = marked.tokenizer.answer_at(without, end, "garden")
    assert marked.tokenizer.answer_at(there, end, "garden") == (row + 1, token)
    assert marked.tokenizer.extended(there, [5, 7]).ids == (*there.ids, 5, 7)
    assert marked.tokenizer.extended(there, [5, 7]).shown[0] == BOS


def test_a_blank_that_a_tokenizer_puts_in_front_of_a_text_comes_after_it() -> None:
    tokenizer = Tokenizer(merged()).with_bos("<s>", added=True)
    there = tokenizer.encode("Mary x")
    assert there.pieces[0] == "<s>" and there.first_after(0) == 1
    assert there.ids[1:] == tokenizer.encode("Mary x", bos=False).ids


def test_it_begins_the_document_and_no_other_segment(marked: Checkpoint, text: str) -> None:
    broken = f"{BREAK}Mary moved.{BREAK}John went.{BREAK}{BREAK}Where is Mary?"
    for each in (text, broken):
        tokens, segments = prepare(marked, RunSpec(checkpoint=marked.name, text=each))
        assert [place for place, token in enumerate(tokens.ids) if token == marked.tokenizer.bos] == [0]
        assert sum((segment.ids for segment in segments), ()) == tokens.ids
        assert len(segments[0].ids) > 1 and all(len(segment.ids) <= 7 for segment in segments)
        without = marked.tokenizer.encode(each, bos=False)
        assert tokens.breaks == tuple(place + 1 for place in without.breaks)


def test_a_specification_says_whether_it_is_there_and_older_ones_stay_as_they_were(marked: Checkpoint) -> None:
    spec = RunSpec(checkpoint=marked.name, text="Mary moved to the garden.")
    assert "bos" not in spec.to_json()
    for bos in (True, False):
        named = replace(spec, bos=bos)
        assert named.to_json() == spec.to_json() | {"bos": bos} and RunSpec.from_json(named.to_json()) == named
        assert named.digest != spec.digest
    on, off = (run(marked, replace(spec, bos=bos)) for bos in (True, False))
    assert np.array_equal(run(marked, spec).logits, on.logits) and len(on.logits) == len(off.logits) + 1
    known = with_bos(marked, added=False)
    assert np.array_equal(run(known, spec).logits, off.logits)
    assert np.array_equal(run(known, replace(spec, bos=True)).logits, on.logits)


def test_a_tokenizer_without_one_is_not_asked_for_it(plain: Checkpoint) -> None:
    spec = RunSpec(checkpoint=plain.name, text="Mary moved.")
    assert np.array_equal(run(plain, spec).logits, run(plain, replace(spec, bos=False)).logits)
    with pytest.raises(ValueError, match="tokenizer has no begin-of-text token"):
        run(plain, replace(spec, bos=True))


def test_a_text_of_it_alone_is_empty(marked: Checkpoint) -> None:
    for text in ("", BREAK):
        with pytest.raises(ValueError, match="the text is empty"):
            prepare(marked, RunSpec(checkpoint=marked.name, text=text))
    edit = Edit(site=Site.RESID_PRE, operation=Patch(text=BREAK), layers=(0,))
    with pytest.raises(ValueError, match="is empty"):
        prepare(marked, RunSpec(checkpoint=marked.name, text="Mary", interventions=(edit,)))


def test_a_trace_keeps_it_and_predicts_the_texts_first_token(marked: Checkpoint, text: str, tmp_path: Path) -> None:
    trace = run(marked, RunSpec(checkpoint=marked.name, text=text))
    trace.save(tmp_path / "trace.npz")
    back = Trace.load(tmp_path / "trace.npz")
    assert back.tokens == trace.tokens and back.tokens.bos
    assert np.isnan(trace.surprisal[0]) and np.isfinite(trace.surprisal[1:]).all()


@pytest.mark.parametrize("bos", [True, False])
def test_a_donor_begins_as_the_text_does(marked: Checkpoint, text: str, bos: bool) -> None:
    """Patched from the same text, everything stays."""
    spec = RunSpec(checkpoint=marked.name, text=text, bos=bos)
    edit = Edit(site=Site.RESID_PRE, operation=Patch(text=text), layers=(1,))
    patched = run(marked, replace(spec, interventions=(edit,)))
    np.testing.assert_allclose(patched.logits, run(marked, spec).logits, rtol=0, atol=1e-6)


def test_a_bank_that_is_carried_over_is_that_after_texts_with_it(gated_config: LM2Config, build, text: str) -> None:
    marked = with_bos(build(replace(gated_config, d_vocab=gated_config.d_vocab + 1)))
    spec = RunSpec(checkpoint=marked.name, text=text)
    first = run(marked, spec)
    carried = run(marked, replace(spec, text="John went.", interventions=(Carry(texts=(text,)),)))
    with torch.inference_mode():
        ids = torch.tensor([marked.tokenizer.encode("John went.").ids[:7]])
        begun = marked.model.segment(ids, torch.tensor(first.bank)[None]).logits[0]
    np.testing.assert_allclose(carried.logits[: len(begun)], begun, rtol=0, atol=1e-6)


def test_generation_goes_on_from_a_text_that_begins_with_it(marked: Checkpoint, gated_config: LM2Config, build) -> None:
    gated = with_bos(build(replace(gated_config, d_vocab=gated_config.d_vocab + 1)))
    for one in (marked, gated):
        made = generate(one, "Mary moved to the garden.", max_tokens=9)
        whole = run(one, RunSpec(checkpoint=one.name, text="Mary moved to the garden."))
        np.testing.assert_allclose(made.logits[0], whole.logits[-1], rtol=0, atol=1e-5)
        assert made.prompt.bos and answers(one, ["Mary moved to the garden."], max_tokens=9, stop="\0") == [made.text]
        off = generate(one, "Mary moved to the garden.", max_tokens=1, bos=False)
        assert not off.prompt.bos and not np.allclose(off.logits[0], made.logits[0], atol=1e-3)


def test_likelihoods_count_every_token_of_the_text_and_not_the_one_in_front(marked: Checkpoint, text: str) -> None:
    spec = RunSpec(checkpoint=marked.name, text=text)
    trace = run(marked, spec)
    read = perplexity(marked, text)
    assert read.tokens == len(trace.tokens) - 1 == len(marked.tokenizer.encode(text, bos=False))
    assert read.nats_per_token * read.tokens == pytest.approx(np.nansum(trace.surprisal) * np.log(2), rel=1e-5)
    (alone,) = log_likelihoods(marked, [("", "Mary")])
    assert alone.tokens == len(marked.tokenizer.encode("Mary", bos=False))
    off = perplexity(marked, text, bos=False)
    assert off.tokens == read.tokens - 1
    with pytest.raises(ValueError, match="nothing in it can be predicted"):
        log_likelihoods(marked, [("", "y")], bos=False)


@pytest.mark.parametrize("own_segment", [True, False])
def test_statements_question_and_answer_of_a_prompt_are_where_they_were_one_further_on(
    marked: Checkpoint, own_segment: bool
) -> None:
    story = simulate(1, seed=4, statements=4, questions=1).story
    prompt = ask(story, story.questions[0], own_segment=own_segment)
    there, without = (encode_prompt(one, prompt) for one in (marked, with_bos(marked, added=False)))

    def moved(place: range) -> range:
        return range(place.start + 1, place.stop + 1)

    assert there.statements == tuple(map(moved, without.statements))
    assert (there.question, there.answer) == (moved(without.question), moved(without.answer))
    assert there.answer_ids == without.answer_ids


def test_a_copy_and_a_graft_keep_it_and_digests_tell_it(folder: Callable[..., Path], tmp_path: Path) -> None:
    ours = load(folder(), "cpu")
    sizes = {"slots": 4, "slot_dim": 32, "memory_heads": 4, "memory_layers": (1,)}
    grafted = graft(ours, **sizes, generator=torch.Generator().manual_seed(0))
    save(tmp_path / "copy", grafted.model, grafted.tokenizer, grafted.card)
    back = load(tmp_path / "copy", "cpu")
    assert (back.tokenizer.bos, back.tokenizer.adds_bos) == (ours.tokenizer.bos, True)
    spec = RunSpec(checkpoint="", text="Mary moved to the garden.")
    logits = [run(one, replace(spec, checkpoint=one.name)).logits for one in (ours, grafted, back)]
    assert np.array_equal(logits[0], logits[1]) and np.array_equal(logits[1], logits[2])
    off = ours.tokenizer.with_bos(BOS, added=False)
    assert setup_digest(ours.config, ours.tokenizer) != setup_digest(ours.config, off)
    assert setup_digest(ours.config, off) == setup_digest(ours.config, Tokenizer(backend_of(off)))
    config = tmp_path / "copy" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"bos": {"token": "<s>", "added": True}}))
    with pytest.raises(CheckpointError, match="config.json: the begin-of-text token '<s>' is not in the vocabulary"):
        load(tmp_path / "copy", "cpu")


def backend_of(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(tokenizer.to_json())


def test_documents_to_learn_from_begin_with_it_and_are_otherwise_the_same(marked: Checkpoint) -> None:
    stories = [simulate(1, seed=seed, statements=6, questions=2).story for seed in range(4)]
    plain = with_bos(marked, added=False)
    for draw in (
        lambda lessons: lessons.repeat(random.Random(5)),
        lambda lessons: lessons.open(random.Random(5), 1, 4),
        lambda lessons: lessons.memory(random.Random(5), 1, 4, 0, 1000, 1, 2),
        lambda lessons: lessons.exam(stories[0], stories[0].questions[-1], 1000),
    ):
        there, without = (draw(Lessons(stories, [], one.tokenizer, SegmentEnd.LENGTH)) for one in (marked, plain))
        first = (marked.tokenizer.bos,)
        if without.segments:
            assert there.segments[0] == first + without.segments[0] and there.segments[1:] == without.segments[1:]
            assert there.questions == without.questions or any(question.after == 0 for question in without.questions)
        else:
            assert [question.ids for question in there.questions] == [
                first + question.ids for question in without.questions
            ]
