"""Laws of probes.features.collect: features are what runs capture, whoever is read beside them, and no row hears what
stands behind it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import REMEMBERING

from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.interventions import Reset
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.tasks.babi import ask
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import Checkpoint
from probes.features import source_names, target_names
from probes.features.collect import collect, labelled, untrained
from probes.features.documents import Document
from probes.features.examples import Examples, RowPosition
from probes.features.slot_views import Sketch, ViewRows
from probes.features.source_names import expand
from probes.features.sources import Condition, Source

ROUNDING = {"atol": 1e-3, "rtol": 1e-3}
"""Memory tokens with random weights carry the last bit on, tenfold a segment."""
AT_TOKENS = (
    "embed",
    "resid_mid.*",
    "resid_post.*",
    "attn_out.*",
    "mlp_out.*",
    "mem_out.*",
    "read.*",
    "read_pattern.*",
    "gate_out.*",
)
OF_SLOTS = ("bank:mean", "bank:slot*", "bank:read.*", "candidate.*:mean", "gate_in.*:slot*", "gate_forget.*:mean")


def documents(count: int) -> list[Document]:
    """Of 4 and of 5 statements in turn."""
    stories = [simulate(1, seed=seed, statements=4 + seed % 2, questions=1).story for seed in range(count)]
    return [Document(ask(story, story.questions[-1]), (story.id,)) for story in stories]


def available(checkpoint: Checkpoint, moment: RowPosition) -> tuple[Source, ...]:
    """Every source of a model that is not a sketch."""
    result: list[Source] = []
    for text in (*AT_TOKENS, *OF_SLOTS):
        try:
            result += expand([text], checkpoint.config, moment)
        except ValueError:
            continue
    return tuple(result)


def runs(checkpoint: Checkpoint, examples: Examples, reset: bool) -> list[Trace]:
    """Every document and its question, without the answer."""
    names = {text.partition(".")[0].partition(":")[0].upper() for text in (*AT_TOKENS, *OF_SLOTS)} - {"BANK"} | {
        "BANK_PRE",
        "BANK_POST",
    }
    sites = [Site[name] for name in sorted(names) if Site[name].layers(checkpoint.config)]
    result = []
    for encoded in examples.encoded_prompts:
        changes = tuple(Reset(segment=i) for i in range(encoded.segment + 1)) if reset else ()
        result.append(
            run(
                checkpoint,
                RunSpec(
                    checkpoint=checkpoint.name,
                    text=encoded.prompt.text,
                    captures=tuple(map(Capture, sites)),
                    interventions=changes,
                ),
            )
        )
    return result


def captured(
    source: Source, trace: Trace, moment: RowPosition, checkpoint: Checkpoint, segment: int, position: int
) -> np.ndarray:
    """The features of one row, from a run of its document."""
    name, _, view = source.name.partition(":")
    site, _, layer = name.partition(".")
    if site != "bank":
        value = trace.at(Site[site.upper()], segment=segment, layer=int(layer) if layer else None)
    elif moment is RowPosition.SEGMENT:
        value = trace.at(Site.BANK_POST, segment=segment, layer=max(checkpoint.config.memory_layers))
    else:
        value = trace.at(Site.BANK_PRE, segment=segment, layer=min(checkpoint.config.memory_layers))
    if not view:
        return value[:, position].ravel() if site == "read_pattern" else value[position]
    if view == "mean":
        return value.mean(0)
    if view.startswith("slot"):
        return value[int(view.removeprefix("slot"))]
    pattern = trace.at(Site.READ_PATTERN, segment=segment, layer=int(view.removeprefix("read.")))
    return pattern[:, : position + 1].mean((0, 1)) @ value


@pytest.mark.parametrize("moment", RowPosition)
def test_every_feature_is_what_a_run_of_its_document_captures(
    checkpoint: Checkpoint, moment: RowPosition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm2.runs.batched._ROWS", 2)  # a batch of two of different length, and one of one
    examples = Examples.among(checkpoint, documents(3), moment)
    sources = available(checkpoint, moment)
    result, traces = collect(checkpoint, examples, sources), runs(checkpoint, examples, reset=False)
    assert len(sources) >= 10 and set(result) == set(sources)
    for source, array in result.items():
        places = zip(examples.document, examples.segment, examples.position)
        expected = [
            captured(source, traces[i], moment, checkpoint, int(segment), int(position))
            for i, segment, position in places
        ]
        np.testing.assert_allclose(array, np.stack(expected), **ROUNDING, err_msg=source.label)
        assert array.dtype == np.float32 and not array.flags.writeable


@pytest.mark.parametrize("kind", REMEMBERING)
def test_reset_is_a_run_whose_every_segment_begins_with_a_fresh_bank(kind: str, request: pytest.FixtureRequest) -> None:
    checkpoint, moment = request.getfixturevalue(kind), RowPosition.SEGMENT
    examples = Examples.among(checkpoint, documents(2), moment)
    sources = [replace(source, condition=Condition.RESET) for source in available(checkpoint, moment)]
    traces = runs(checkpoint, examples, reset=True)
    for source, array in collect(checkpoint, examples, sources).items():
        places = zip(examples.document, examples.segment, examples.position)
        expected = [
            captured(source, traces[i], moment, checkpoint, int(segment), int(position))
            for i, segment, position in places
        ]
        np.testing.assert_allclose(array, np.stack(expected), **ROUNDING, err_msg=source.label)


def test_no_row_hears_the_answer(checkpoint: Checkpoint) -> None:
    original = documents(1)
    other = [document._replace(prompt=replace(document.prompt, answers=("attic and cellar",))) for document in original]
    sources = available(checkpoint, RowPosition.QUESTION)
    one, another = (
        collect(checkpoint, Examples.among(checkpoint, few, RowPosition.QUESTION), sources) for few in (original, other)
    )
    for source in sources:
        np.testing.assert_array_equal(one[source], another[source])


@pytest.mark.parametrize("kind", REMEMBERING)
def test_a_change_is_that_of_the_rows_own_segment(kind: str, request: pytest.FixtureRequest) -> None:
    checkpoint = request.getfixturevalue(kind)
    examples = Examples.among(checkpoint, documents(2), RowPosition.STATEMENT)
    first, last, target = (
        min(checkpoint.config.memory_layers),
        max(checkpoint.config.memory_layers),
        target_names.parse("slot 3 overwritten"),
    )
    labels = labelled(checkpoint, examples, [target]).labels[target]
    traces = runs(checkpoint, examples, reset=False)
    for value, i, segment in zip(labels.values, examples.document, examples.segment):
        before = traces[i].at(Site.BANK_PRE, segment=int(segment), layer=first)[3]
        after = traces[i].at(Site.BANK_POST, segment=int(segment), layer=last)[3]
        share = np.linalg.norm(after - before) / np.linalg.norm(before)
        assert abs(share - 0.5) < 0.01 or labels.names[value] == ("yes" if share > 0.5 else "no")


def test_untrained_weights_are_drawn_from_their_seed_and_nothing_else(gated: Checkpoint) -> None:
    before = torch.get_rng_state()
    examples = Examples.among(gated, documents(1), RowPosition.SEGMENT)
    trained, fresh = expand(["resid_post.1", "untrained resid_post.1"], gated.config, RowPosition.SEGMENT)
    result, again = collect(gated, examples, [trained, fresh], seed=4), collect(gated, examples, [fresh], seed=4)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(result[fresh], again[fresh])
    assert not np.allclose(result[fresh], collect(gated, examples, [fresh], seed=5)[fresh])
    assert not np.allclose(result[fresh], result[trained])
    drawn = untrained(gated, 4)
    np.testing.assert_array_equal(
        result[fresh], collect(drawn, Examples.among(drawn, documents(1), RowPosition.SEGMENT), [trained])[trained]
    )


def test_baselines_hear_the_segment_up_to_the_row_and_nothing_more(gated: Checkpoint) -> None:
    examples = Examples.among(gated, documents(2), RowPosition.TOKEN)
    tokens, embedding, position = expand(["tokens", "embedding", "position"], gated.config, examples.moment)
    result = collect(gated, examples, [tokens, embedding, position])
    weights = gated.model.embed.weight.detach().numpy()
    for row, (i, segment, place) in enumerate(zip(examples.document, examples.segment, examples.position)):
        heard = examples.encoded_prompts[i].segments[segment].ids[: place + 1]
        np.testing.assert_array_equal(result[tokens][row], [heard.count(token) for token in examples.vocabulary])
        np.testing.assert_allclose(result[embedding][row], weights[list(heard)].mean(0), atol=1e-5)
        assert np.flatnonzero(result[position][row]).tolist() == [segment, examples.segment.max() + 1 + place]


def test_a_sketch_is_linear_and_keeps_squared_distances() -> None:
    banks = torch.randn(30, 6, 6, generator=torch.Generator().manual_seed(0))
    i = ViewRows(torch.arange(30), torch.zeros(30, dtype=torch.long))
    sketch = Sketch(d=1000)
    small = sketch.features(banks, i)
    np.testing.assert_allclose(
        sketch.features(2 * banks + 1, i), 2 * small + sketch.features(torch.ones_like(banks), i), atol=1e-4
    )
    ratios = (small[1:] - small[:-1]).square().sum(1) / (banks[1:] - banks[:-1]).square().sum((1, 2))
    assert ratios.mean() == pytest.approx(1, abs=0.05) and ratios.std() < (8 / 1000) ** 0.5


def test_each_document_is_told_once_for_each_condition_and_features_are_read_only(gated: Checkpoint) -> None:
    examples = Examples.among(gated, documents(33), RowPosition.STATEMENT)
    sources = expand(
        ["resid_post.*", "untrained bank:sketch7", "reset bank:slot2", "tokens"], gated.config, examples.moment
    )
    heard: list[None] = []
    held = collect(gated, examples, sources)
    again = collect(gated, examples, sources, on_document=lambda: heard.append(None))
    assert len(heard) == 3 * len(examples.encoded_prompts)
    for source in sources:
        np.testing.assert_array_equal(held[source], again[source])
        assert not held[source].flags.writeable


@pytest.mark.parametrize(
    "text",
    ["embed", "resid_post.2", "untrained attn_out.0", "bank:mean", "reset bank:slot3", "bank:read.2",
        "untrained bank:sketch64", "gate_in.1:mean",
     "candidate.0:slot4", "gate_forget.2:sketch8", "tokens", "embedding", "position"],
)  # fmt: skip
def test_a_source_is_its_text(text: str) -> None:
    assert source_names.parse(text).label == text and source_names.parse(
        source_names.parse(text).label
    ) == source_names.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "bank",
        "bank.1:mean",
        "resid_post",
        "embed.0",
        "gate_in:mean",
        "bank:slot",
        "bank:mean3",
        "tokens.1",
        "warm embed",
        "resid_post.*",
    ],
)
def test_a_text_that_is_no_source_is_told_which_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="no source is called .* resid_post.N, .* bank:VIEW"):
        source_names.parse(text)


def test_what_a_model_or_a_moment_lacks_is_refused_with_what_there_is(gated: Checkpoint, plain: Checkpoint) -> None:
    for text in ("mem_out.1", "bank:slot5", "bank:read.1", "gate_in.1:mean", "resid_post.3", "gate_in.0:read.0"):
        with pytest.raises(
            ValueError,
            match=(
                "segment rows of a model of memory kind 'gated' have no source .* resid_post.0-2, .* bank:slot0-4, "
                "bank:sketchN, bank:read.0,2"
            ),
        ):
            expand([text], gated.config, RowPosition.SEGMENT)
    with pytest.raises(
        ValueError, match="token rows of a model of memory kind 'gated' have no source 'gate_in.0:mean'"
    ):
        expand(["gate_in.0:mean"], gated.config, RowPosition.TOKEN)
    with pytest.raises(ValueError, match="kind 'none' have no source"):
        expand(["bank:slot*"], plain.config, RowPosition.SEGMENT)
    with pytest.raises(ValueError, match="no bank to reset"):
        expand(["reset embed"], plain.config, RowPosition.SEGMENT)
    with pytest.raises(ValueError, match="cannot be untrained"):
        expand(["untrained tokens"], gated.config, RowPosition.SEGMENT)
    with pytest.raises(ValueError, match="laid out for weights toy-gated-2"):
        collect(plain, Examples.among(gated, documents(1), RowPosition.TOKEN), [source_names.parse("embed")])


def test_a_star_stands_for_every_block_and_slot_that_there_is(gated: Checkpoint) -> None:
    labels = [
        source.label
        for source in expand(
            ["mem_out.*", "reset gate_in.*:slot*", "bank:slot*", "bank:slot1"], gated.config, RowPosition.SEGMENT
        )
    ]
    slots = range(gated.config.slots)
    assert labels == [
        "mem_out.0",
        "mem_out.2",
        *(f"reset gate_in.{layer}:slot{slot}" for layer in (0, 2) for slot in slots),
        *(f"bank:slot{slot}" for slot in slots),
    ]
