"""Laws of the planner: it answers as a run does, and computes less."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import EVERY, REMEMBERING

from lm2.model.config import LM2Config, MemoryKind
from lm2.model.finite import NotFiniteError
from lm2.model.sites import Site, sites_of
from lm2.runs.donors import Initial, Mean, Patch
from lm2.runs.interventions import (  # fmt: skip
    BEFORE,
    BankEdit,
    Carry,
    Edit,
    Freeze,
    MemoryOff,
    Persistence,
    Reset,
    WriteBlock,
)
from lm2.runs.operations import Add, Permute, ProjectOut, Scale, Set
from lm2.runs.runner import run
from lm2.tasks.babi import ask
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import Checkpoint
from probes.causal.batch import Unit, joint_unit
from probes.causal.plan import Route, cost, plan
from probes.causal.planner import Planner, answers_alone_under, answers_under

DONOR = (
    "Sandra journeyed to the office. Mary travelled to the kitchen. Daniel went back to the garden. John went to the"
    " hallway. Where is Sandra? office"
)


@pytest.fixture(scope="module")
def question() -> Callable[[Checkpoint], EncodedPrompt]:
    story = simulate(1, seed=1, statements=3, questions=1).story
    return lambda checkpoint: encode_prompt(checkpoint, ask(story, story.questions[-1]))


def plainly(checkpoint: Checkpoint, asked: EncodedPrompt, units: Sequence[Unit]) -> np.ndarray:
    """One whole document for each unit."""
    return np.stack(
        [run(checkpoint, replace(asked.spec, interventions=unit)).logits[list(asked.rows)] for unit in units]
    )


def assert_same(checkpoint: Checkpoint, found: np.ndarray, expected: np.ndarray) -> None:
    """To 1e-5 of each unit's largest logit; edits can make logits large."""
    # An untrained RMT passes its bank on through random blocks, which makes rounding a hundred times larger in a few
    # segments.
    near = 2e-4 if checkpoint.config.memory is MemoryKind.TOKENS else 1e-5
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=near * max(1.0, np.abs(other).max()))


def assert_as_run(checkpoint: Checkpoint, asked: EncodedPrompt, units: Sequence[Unit], pack: int = 3) -> None:
    assert_same(checkpoint, answers_under(checkpoint, asked, units, pack=pack), plainly(checkpoint, asked, units))


def everywhere(checkpoint: Checkpoint, asked: EncodedPrompt) -> list[Unit]:
    """An edit of each site of the model, one after the other at another block, segment, slot, head and token."""
    units = []
    for at, site in enumerate(sites_of(checkpoint.config.memory)):
        names, layers = [axis.value for axis in site.axes], site.layers(checkpoint.config)
        heads = 1 if ".mem." in site.template and checkpoint.config.memory_heads == 1 else 2
        units.append((
            Edit(
                site=site, operation=Scale(by=1.5), layers=None if layers == (None,) else (layers[at % len(layers)],),
                segments=(max(0, asked.segment - at % 3),), slots=(at % 4, 4) if "slot" in names else None,
                heads=(at % heads,) if {"head", "kv_head"} & set(names) else None,
            ),
        ))  # fmt: skip
    return units


def of_the_bank(checkpoint: Checkpoint, asked: EncodedPrompt) -> list[Unit]:
    config, at = checkpoint.config, asked.segment
    order = tuple(reversed(range(config.slots)))
    direction = tuple(float(entry % 3) for entry in range(config.slot_dim))
    given = (Patch(text=DONOR, segment=1), Mean(texts=(DONOR, asked.spec.text), segment=1))
    operations = (Initial(), Set(value=0.0), *given, Add(direction=direction), ProjectOut(direction=direction))
    units: list[Unit] = [(BankEdit(operation=operation, segments=(at,), slots=(0, 2)),) for operation in operations]
    units += [
        (
            BankEdit(operation=Permute(order=order), segments=(at - 1,)),
            BankEdit(operation=Initial(), segments=(at,), slots=(1,)),
        )
    ]
    units += [(Freeze(),), (Freeze(segment=at - 1),), (Freeze(segment=at),), (Reset(segment=0),), (Reset(segment=at),)]
    units += [(Freeze(segment=0), Reset(segment=at - 1)), (Carry(texts=(DONOR, "John went to the hallway.")),)]
    units += [
        (MemoryOff(),),
        (
            MemoryOff(layers=(config.memory_layers[-1],), segments=(at - 1,)),
            Edit(site=Site.MLP_OUT, operation=Scale(by=0.5)),
        ),
    ]
    if config.memory is not MemoryKind.RELEASE:
        whole = tuple(range(asked.segments[0].start, asked.segments[0].end))
        units += [(WriteBlock(tokens=(1, 2, 9)),), (WriteBlock(tokens=whole), WriteBlock(tokens=(8, 9)))]
        units += [(WriteBlock(tokens=tuple(range(len(asked.tokens)))),)]
    return units


@pytest.mark.parametrize("kind", EVERY)
def test_every_site_answers_as_in_a_run(request: pytest.FixtureRequest, question, kind: str) -> None:
    checkpoint = request.getfixturevalue(kind)
    asked = question(checkpoint)
    assert_as_run(checkpoint, asked, everywhere(checkpoint, asked))


@pytest.mark.parametrize("kind", REMEMBERING)
def test_every_change_of_the_bank_answers_as_in_a_run(request: pytest.FixtureRequest, question, kind: str) -> None:
    checkpoint = request.getfixturevalue(kind)
    asked = question(checkpoint)
    assert_as_run(checkpoint, asked, of_the_bank(checkpoint, asked))


@pytest.mark.parametrize("window", [7, 14, None])
def test_what_is_read_only_and_what_is_looked_back_on_answer_as_in_a_run(
    build: Callable[..., Checkpoint], gated_config: LM2Config, question, window: int | None
) -> None:
    checkpoint = build(replace(gated_config, attention_window=window), 7)
    asked = question(checkpoint)
    at = asked.segment
    lasting = Edit(site=Site.GATE_IN, operation=Set(value=0.2), segments=(0, 1), slots=(1,))
    units: list[Unit] = []
    for segments in ((at,), (at - 1,), (0, at), None):
        units.append((BankEdit(operation=Set(value=0.1), segments=segments, persistence=Persistence.READ_ONLY),))
        read = Edit(
            site=Site.READ_V, operation=Scale(by=2.0), segments=segments, layers=(2,), persistence=Persistence.READ_ONLY
        )
        units += [(read, lasting), (replace(read, site=Site.EMBED, layers=None), WriteBlock(tokens=(0, 8)))]
    assert_as_run(checkpoint, asked, [*units, *everywhere(checkpoint, asked)[::3]])


def test_edits_at_one_place_apply_in_their_order(gated: Checkpoint, question) -> None:
    asked = question(gated)
    one, two = (
        Edit(site=Site.RESID_MID, operation=operation, layers=(1,)) for operation in (Scale(by=2.0), Set(value=0.5))
    )
    halved = replace(one, tokens=(asked.rows[0],), operation=Scale(by=0.5))
    units = [(one, two), (two, one), (two, halved), (halved,), (one, one)]
    assert_as_run(gated, asked, units, pack=8)


def test_an_answer_of_several_tokens_that_a_segment_cuts_is_read_in_both(gated: Checkpoint, tokenizer) -> None:
    story = simulate(1, seed=1, statements=2, questions=1).story
    prompt = ask(story, story.questions[0])
    prompt = replace(prompt, answers=(f"{prompt.answer} in the house",))
    asked = encode_prompt(gated, prompt)
    assert len({asked.segment_of(row) for row in asked.rows}) > 1
    assert_as_run(gated, asked, [(), *everywhere(gated, asked)[::4], (Freeze(segment=asked.segment),)])
    with pytest.raises(ValueError, match="segments 2 to 3"):
        answers_alone_under(gated, asked, [()])


def test_the_size_of_packs_changes_nothing(gated: Checkpoint, question) -> None:
    asked = question(gated)
    units = everywhere(gated, asked)[::4]
    found = [answers_under(gated, asked, units, pack=size) for size in (1, 4, 100)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    np.testing.assert_allclose(found[0], found[2], atol=1e-5)
    with pytest.raises(ValueError, match="at least 1 unit, not 0"):
        answers_under(gated, asked, units, pack=0)


def test_units_that_change_nothing_answer_as_the_clean_run(gated: Checkpoint, question) -> None:
    asked = question(gated)
    planner = Planner(gated, asked, [(), (Edit(site=Site.READ, operation=Set(value=0.0), layers=()),)])
    ((units, logits),) = planner.answers()
    assert units == (0, 1) and np.array_equal(logits, [planner.clean] * 2)
    np.testing.assert_allclose(planner.clean, run(gated, asked.spec).logits[list(asked.rows)], atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "gated", "rmt"])
def test_the_answers_tokens_alone_answer_as_a_run_that_is_changed_there_alone(
    request: pytest.FixtureRequest, question, kind: str
) -> None:
    checkpoint = request.getfixturevalue(kind)
    asked = question(checkpoint)
    names = {site: {axis.value for axis in site.axes} for site in sites_of(checkpoint.config.memory)}
    operations = (Set(value=0.3), Patch(text=DONOR, segment=0))
    sites = [
        site
        for site in names
        if "token" in names[site] and "key" not in names[site] and not site.name.startswith("WRITE")
    ]
    edits = [
        Edit(
            site=site, operation=operations[at % 2], segments=(asked.segment,),
            layers=site.layers(checkpoint.config)[-1:] if site.per_layer else None,
        )
        for at, site in enumerate(sites)
    ]  # fmt: skip
    alone = answers_alone_under(checkpoint, asked, [(edit,) for edit in edits], pack=5)
    assert_same(checkpoint, alone, plainly(checkpoint, asked, [(replace(edit, tokens=asked.rows),) for edit in edits]))


def test_slots_knocked_out_for_the_answers_tokens_alone_are_those_that_these_tokens_read(
    gated: Checkpoint, question
) -> None:
    asked = question(gated)
    at, rows = (asked.segment,), asked.rows
    units, same = [], []
    for layer in gated.config.memory_layers:
        for slot in range(gated.config.slots):
            units.append(
                (Edit(site=Site.READ_V, operation=Set(value=0.0), segments=at, layers=(layer,), slots=(slot,)),)
            )
            same.append(
                (
                    Edit(
                        site=Site.READ_PATTERN,
                        operation=Set(value=0.0),
                        segments=at,
                        layers=(layer,),
                        slots=(slot,),
                        tokens=rows,
                    ),
                )
            )
    alone = answers_alone_under(gated, asked, units)
    np.testing.assert_allclose(alone, plainly(gated, asked, same), atol=1e-5)
    assert not np.allclose(alone, answers_under(gated, asked, units), atol=1e-3), (
        "the question's other tokens read them too"
    )


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["gated", "rmt"])
def test_a_bank_edited_for_the_answers_tokens_alone_is_what_these_tokens_read(
    request: pytest.FixtureRequest, question, kind: str
) -> None:
    checkpoint = request.getfixturevalue(kind)
    asked = question(checkpoint)
    model, segment, row = (
        checkpoint.model,
        asked.segments[asked.segment],
        asked.rows[0] - asked.segments[asked.segment].start,
    )
    handed = model.fresh_bank(1)
    for before in asked.segments[: segment.index]:
        handed = model.segment(torch.tensor([before.ids]), handed).bank
    ids = torch.tensor([segment.ids])
    earlier = model.segment(ids[:, :row], handed, write=False).cache
    expected = [
        model.segment(ids[:, row : row + 1], bank, cache=earlier, write=False).logits[0]
        for bank in (0 * handed, model.fresh_bank(1))
    ]
    units = [(BankEdit(operation=Set(value=0.0), segments=(segment.index,)),), (Reset(segment=segment.index),)]
    np.testing.assert_allclose(answers_alone_under(checkpoint, asked, units), torch.stack(expected).numpy(), atol=1e-5)


def test_what_the_answers_tokens_alone_cannot_follow_is_refused(
    gated: Checkpoint, release: Checkpoint, question
) -> None:
    asked = question(gated)
    early = Edit(site=Site.READ_V, operation=Set(value=0.0), segments=(asked.segment - 1, asked.segment))
    for change in (early, replace(early, segments=None), Freeze(), Reset(segment=0)):
        with pytest.raises(ValueError, match=f"is not of segment {asked.segment} alone"):
            answers_alone_under(gated, asked, [(change,)])
    with pytest.raises(ValueError, match="ATTN_PATTERN has the keys of earlier tokens"):
        answers_alone_under(gated, asked, [(replace(early, site=Site.ATTN_PATTERN, segments=(asked.segment,)),)])
    with pytest.raises(ValueError, match="released arithmetic"):
        answers_alone_under(release, question(release), [()])


def test_places_that_are_not_there_are_refused_before_anything_runs(gated: Checkpoint, question) -> None:
    asked = question(gated)
    units = [(Edit(site=Site.READ_K, operation=Set(value=0.0), slots=(slot,)),) for slot in range(6)]
    with pytest.raises(ValueError, match=r"there is no slot 5; this run has slots 0\.\.4"):
        answers_under(gated, asked, units)


def test_units_begin_where_they_first_change_something(gated: Checkpoint, rmt: Checkpoint, question) -> None:
    asked = question(gated)
    at = asked.segment
    read = Edit(site=Site.READ_K, operation=Set(value=0.0), layers=(2,), segments=(at,))
    units = [
        (read,), (replace(read, slots=(1,)),), (read, replace(read, layers=(0,))),
        (BankEdit(operation=Initial(), segments=(at - 1,)),),
        (Edit(site=Site.EMBED, operation=Set(value=0.0), segments=(at,)),), (),
        (replace(read, segments=(0,), persistence=Persistence.READ_ONLY),),
    ]  # fmt: skip
    packs = plan(gated.config, asked, units, Route.EXACT, 8)
    assert [(pack.segment, pack.layer, pack.units) for pack in packs] == [
        (at - 1, 0, (3,)),
        (at, BEFORE, (4,)),
        (at, 0, (2,)),
        (at, 2, (0, 1)),
    ]
    (pack,) = plan(rmt.config, question(rmt), [(BankEdit(operation=Initial(), segments=(at,)),)], Route.EXACT, 8)
    assert pack.layer == BEFORE, "memory tokens are rows of the stream"


def test_cost_counts_what_is_computed_anew(gated: Checkpoint, question) -> None:
    asked = question(gated)
    at, segments = asked.segment, len(asked.segments)
    last = Edit(site=Site.READ_K, operation=Set(value=0.0), layers=(2,), segments=(at,))
    found = cost(gated.config, asked, [(last,)] * 3)
    assert (found.units, found.naive, found.planned) == (3, 3 * segments, pytest.approx(segments + 3 / 3))
    assert cost(gated.config, asked, [(replace(last, segments=(at - 1,)),)]).planned == pytest.approx(
        segments + 1 / 3 + 1
    )
    alone = cost(gated.config, asked, [(last,)] * 3, Route.ANSWER)
    assert alone.planned == pytest.approx(segments + 3 / 3 / len(asked.segments[at].ids))


def test_together_says_the_same_in_fewer_words(gated: Checkpoint, question) -> None:
    asked = question(gated)
    singles = [
        (Edit(site=site, operation=Set(value=0.0), layers=(layer,), segments=(asked.segment,), slots=(slot,)),)
        for site in (Site.READ_K, Site.READ_V) for layer in (0, 2) for slot in (1, 3)
    ]  # fmt: skip
    joint = joint_unit(singles)
    assert {(edit.site, edit.layers, edit.slots) for edit in joint} == {
        (site, (0, 2), (1, 3)) for site in (Site.READ_K, Site.READ_V)
    }
    np.testing.assert_allclose(*answers_under(gated, asked, [joint, tuple(edit for (edit,) in singles)]), atol=1e-6)
    assert joint_unit([(Freeze(),), (Freeze(),), (Reset(segment=1),)]) == (Freeze(), Reset(segment=1))


def test_numbers_that_are_none_stop_the_planner_with_site_block_and_segment(
    build: Callable[..., Checkpoint], gated_config: LM2Config, question: Callable[[Checkpoint], EncodedPrompt]
) -> None:
    own = build(gated_config, 33)
    asked = question(own)
    units = [
        (Edit(site=Site.RESID_POST, operation=Set(value=value), layers=(1,), segments=(0,)),) for value in (0.5, 1e38)
    ]
    with pytest.raises(NotFiniteError, match="first at LN1_SCALE, block 2.*in segment 0"):
        answers_under(own, asked, units)
    with torch.no_grad():
        own.model.blocks[2].mlp.out.weight[0, 0] = float("nan")
    with pytest.raises(NotFiniteError, match="first at MLP_OUT, block 2.*in segment 0"):
        answers_under(own, asked, units[:1])
