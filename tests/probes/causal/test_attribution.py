"""Laws of probes.causal.attribution: the parts of a logit sum to it, and the parts of a part to the part."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lm2.model.config import LM2Config, MemoryKind
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.interventions import Edit, MemoryOff
from lm2.runs.operations import Add
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.graft import graft
from probes.causal.attribution import LogitPart, attribute, average

TOKEN, FOILS = 5, (7, 11, 300)


def value_of(attribution, part: LogitPart, layer: int | None) -> float:
    return next(
        value
        for component, value in zip(attribution.components, attribution.values)
        if (component.part, component.layer) == (part, layer)
    )


def spec_of(checkpoint: Checkpoint, text: str, *interventions) -> RunSpec:
    return RunSpec(checkpoint=checkpoint.name, text=text, interventions=interventions)


@pytest.mark.parametrize("foils", [(), FOILS])
def test_the_components_sum_to_the_logit_in_every_segment(
    checkpoint: Checkpoint, text: str, foils: tuple[int, ...]
) -> None:
    spec = spec_of(checkpoint, text)
    logits = run(checkpoint, spec).logits
    for row in (0, 9, 20, len(logits) - 1):
        found = attribute(checkpoint, spec, row, token=TOKEN, foils=foils)
        assert found.logit == pytest.approx(
            float(logits[row, TOKEN]) - (float(logits[row, list(foils)].mean()) if foils else 0), abs=1e-5
        )
        assert found.total == pytest.approx(found.logit, abs=1e-4)


def test_the_components_sum_to_the_logit_where_tokens_look_back(
    build: Callable[..., Checkpoint], plain_config: LM2Config, text: str
) -> None:
    wide = build(replace(plain_config, attention_window=14))
    found = attribute(wide, spec_of(wide, text), 30, token=TOKEN)
    assert found.total == pytest.approx(found.logit, abs=1e-4)


def test_the_heads_sum_to_their_blocks_attention(checkpoint: Checkpoint, text: str) -> None:
    found = attribute(checkpoint, spec_of(checkpoint, text), 20, token=TOKEN, foils=FOILS)
    assert found.heads.shape == (checkpoint.config.n_layers, checkpoint.config.n_heads)
    for layer, heads in enumerate(found.heads):
        assert heads.sum() == pytest.approx(value_of(found, LogitPart.ATTENTION, layer), abs=1e-5)


def test_the_heads_and_the_bias_of_the_output_sum_to_their_blocks_attention(
    build: Callable[..., Checkpoint], gated_config: LM2Config, text: str
) -> None:
    biased = build(replace(gated_config, qkv_bias=True, o_bias=True, mlp_bias=True, head_dim=6))
    found = attribute(biased, spec_of(biased, text), 20, token=TOKEN)
    spec = replace(spec_of(biased, text), captures=(Capture(Site.LN_FINAL_SCALE),))
    scale = run(biased, spec).across(Site.LN_FINAL_SCALE)[20]
    direction = biased.model.tokens_to_residual_directions(TOKEN).detach().numpy() / scale
    for layer, heads in enumerate(found.heads):
        bias = biased.model.blocks[layer].attn.b_O.detach().numpy() @ direction
        assert heads.sum() + bias == pytest.approx(value_of(found, LogitPart.ATTENTION, layer), abs=1e-5)
    assert found.total == pytest.approx(found.logit, abs=1e-4)


def test_the_slots_sum_to_their_blocks_memory_where_it_is_a_sum_over_slots(checkpoint: Checkpoint, text: str) -> None:
    config, found = checkpoint.config, attribute(checkpoint, spec_of(checkpoint, text), 20, token=TOKEN, foils=FOILS)
    if config.memory not in (MemoryKind.GATED, MemoryKind.ARMT):
        assert found.slots is None
        return
    assert found.slots.shape == (len(config.memory_layers), config.memory_heads, config.slots)
    for layer, slots in zip(config.memory_layers, found.slots):
        assert slots.sum() == pytest.approx(value_of(found, LogitPart.MEMORY, layer), abs=1e-5)


def test_attention_to_tokens_and_to_memory_tokens_is_all_of_attention(rmt: Checkpoint, text: str) -> None:
    spec, row = spec_of(rmt, text), 20
    trace = run(rmt, replace(spec, captures=(Capture(Site.ATTN_OUT), Capture(Site.LN_FINAL_SCALE))))
    found = attribute(rmt, spec, row, token=TOKEN)
    with torch.inference_mode():
        direction = rmt.model.tokens_to_residual_directions(TOKEN).numpy() / trace.across(Site.LN_FINAL_SCALE)[row]
    for layer in range(rmt.config.n_layers):
        attention = value_of(found, LogitPart.ATTENTION, layer) + value_of(found, LogitPart.MEMORY, layer)
        assert attention == pytest.approx(float(trace.across(Site.ATTN_OUT, layer=layer)[row] @ direction), abs=1e-5)


def test_every_memory_has_a_term_for_each_of_its_blocks_and_none_where_it_is_off(
    checkpoint: Checkpoint, text: str
) -> None:
    off = (MemoryOff(),) if checkpoint.config.memory in (MemoryKind.GATED, MemoryKind.TOKENS) else ()
    found = attribute(checkpoint, spec_of(checkpoint, text, *off), 20, token=TOKEN)
    terms = [value for component, value in zip(found.components, found.values) if component.part is LogitPart.MEMORY]
    assert len(terms) == len(checkpoint.config.memory_layers)
    assert not off or np.allclose(terms, 0, atol=1e-5)
    assert found.total == pytest.approx(found.logit, abs=1e-4)


def test_a_silent_memory_adds_nothing(plain: Checkpoint, text: str) -> None:
    sizes = {"slots": 5, "slot_dim": 12, "memory_heads": 2, "memory_layers": (0, 2)}
    silent = graft(plain, generator=torch.Generator().manual_seed(0), **sizes)
    before, after = (attribute(one, spec_of(one, text), 20, token=TOKEN) for one in (plain, silent))
    assert (after.slots == 0).all()
    assert after.values[[component.part is not LogitPart.MEMORY for component in after.components]] == pytest.approx(
        before.values, abs=1e-5
    )


def test_an_attribution_is_linear_in_the_direction(gated: Checkpoint, text: str) -> None:
    spec = spec_of(gated, text)
    token, *foils = (attribute(gated, spec, 20, token=one) for one in (TOKEN, *FOILS))
    both = attribute(gated, spec, 20, token=TOKEN, foils=FOILS)
    assert both.values == pytest.approx(token.values - np.mean([foil.values for foil in foils], axis=0), abs=1e-6)


def test_what_an_edit_adds_to_the_stream_itself_is_what_the_components_lack(gated: Checkpoint, text: str) -> None:
    direction = tuple(np.linspace(-1, 1, gated.config.d_model))
    edit = Edit(site=Site.RESID_POST, operation=Add(direction=direction), layers=(2,))
    spec, row = spec_of(gated, text, edit), 20
    found = attribute(gated, spec, row, token=TOKEN)
    scale = run(gated, replace(spec, captures=(Capture(Site.LN_FINAL_SCALE),))).across(Site.LN_FINAL_SCALE)[row, 0]
    with torch.inference_mode():
        added = float(gated.model.tokens_to_residual_directions(TOKEN).numpy() @ np.array(direction)) / scale
    assert found.logit - found.total == pytest.approx(added, abs=1e-4)


def test_what_is_not_there_is_refused_with_what_is(gated: Checkpoint, text: str) -> None:
    spec = spec_of(gated, text)
    with pytest.raises(ValueError, match=r"no row 1000; this run predicts from rows 0\.\."):
        attribute(gated, spec, 1000, token=TOKEN)
    for token, foils in ((gated.config.d_vocab, ()), (TOKEN, (-1,)), (TOKEN, (TOKEN,))):
        with pytest.raises(ValueError, match="must be different ids of 0.."):
            attribute(gated, spec, 0, token=token, foils=foils)


def test_means_of_components_sum_to_the_mean_logit(gated: Checkpoint, plain: Checkpoint, text: str) -> None:
    found = [attribute(gated, spec_of(gated, text), row, token=TOKEN) for row in range(8)]
    mean = average(found, list("aabbccdd"))
    assert mean.labels == found[0].labels and mean.effects[0].groups == 4
    assert sum(effect.mean for effect in mean.effects) == pytest.approx(mean.logit, abs=1e-4)
    assert all(effect.low <= effect.mean <= effect.high for effect in mean.effects)
    for different in ([], [found[0], attribute(plain, spec_of(plain, text), 0, token=TOKEN)]):
        with pytest.raises(ValueError, match="same components"):
            average(different, ["a"] * len(different))
