"""Laws of lm2.model.kinds.rmt: memory tokens are tokens, and the only road between segments."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lm2.model.config import LM2Config, MemoryKind
from lm2.model.lm2 import LM2
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.interventions import Edit, Freeze, Reset
from lm2.runs.operations import Set
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import Checkpoint

NEAR = {"rtol": 1e-4, "atol": 1e-5}


def as_transformers(model: LM2) -> LlamaForCausalLM:
    """The same weights in transformers' plain Llama."""
    config = model.config
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.d_vocab, hidden_size=config.d_model, intermediate_size=config.d_mlp,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads, num_key_value_heads=config.n_key_value_heads,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta}, tie_word_embeddings=False,
            attn_implementation="eager",
        )
    ).eval()  # fmt: skip
    names = {"model.embed_tokens": "embed", "model.norm": "ln_final", "lm_head": "unembed"}
    inner = {
        "self_attn.q_proj": "attn.q", "self_attn.k_proj": "attn.k", "self_attn.v_proj": "attn.v",
        "self_attn.o_proj": "attn.o",
        "mlp.gate_proj": "mlp.gate", "mlp.up_proj": "mlp.up", "mlp.down_proj": "mlp.out", "input_layernorm": "ln1",
        "post_attention_layernorm": "ln2",
    }  # fmt: skip
    names |= {f"model.layers.{at}.{a}": f"blocks.{at}.{b}" for at in range(config.n_layers) for a, b in inner.items()}
    own = model.weights()
    state = {}
    for name in theirs.state_dict():
        stem = names[name.removesuffix(".weight")]
        state[name] = own[f"{stem}.w" if f"{stem}.w" in own else f"{stem}.weight"]
    theirs.load_state_dict(state)
    return theirs


@torch.inference_mode()
def test_it_is_a_plain_llama_fed_memory_segment_memory(rmt: Checkpoint, ids) -> None:
    model, slots = rmt.model, rmt.config.slots
    plain, bank = as_transformers(model), model.fresh_bank(2)
    for seed in range(3):
        tokens = ids(2, 7, seed)
        out = model.segment(tokens, bank)
        fed = torch.cat([bank, model.embed(tokens), bank], dim=1)
        theirs = plain(inputs_embeds=fed, output_hidden_states=True)
        torch.testing.assert_close(out.logits, theirs.logits[:, slots:-slots], **NEAR)
        torch.testing.assert_close(out.bank, theirs.hidden_states[-1][:, -slots:], **NEAR)
        bank = out.bank


def test_only_the_first_bank_is_learned(rmt: Checkpoint) -> None:
    config = rmt.config
    plain = replace(config, memory=MemoryKind.NONE, slots=0, slot_dim=0, memory_heads=0, memory_layers=())
    added = {name: weight for name, weight in rmt.model.weights().items() if name not in LM2(plain).weights()}
    assert {name: tuple(weight.shape) for name, weight in added.items()} == {
        "bank_start": (config.slots, config.d_model)
    }


@torch.inference_mode()
def test_no_logit_depends_on_a_later_token(rmt: Checkpoint, ids) -> None:
    tokens = ids(1, 7)
    changed = tokens.clone()
    changed[0, 4] = (changed[0, 4] + 1) % rmt.config.d_vocab
    one, other = rmt.model.segment(tokens), rmt.model.segment(changed)
    assert torch.equal(one.logits[:, :4], other.logits[:, :4])
    assert not torch.equal(one.logits[:, 4:], other.logits[:, 4:])
    assert not torch.equal(one.bank, other.bank)


@torch.inference_mode()
def test_the_bank_written_with_a_cache_is_the_bank_of_the_whole_segment(rmt: Checkpoint, ids) -> None:
    tokens = ids(1, 7)
    whole = rmt.model.segment(tokens)
    first = rmt.model.segment(tokens[:, :4])
    rest = rmt.model.segment(tokens[:, 4:], cache=first.cache)
    torch.testing.assert_close(rest.bank, whole.bank, **NEAR)
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), whole.logits, **NEAR)


def test_a_tokens_attention_is_shared_between_tokens_and_slots(rmt: Checkpoint, text: str) -> None:
    captures = (Capture(Site.ATTN_PATTERN), Capture(Site.READ_PATTERN), Capture(Site.WRITE_PATTERN))
    trace = run(rmt, RunSpec(checkpoint=rmt.name, text=text, captures=captures))
    for segment in trace.segments:
        for layer in range(rmt.config.n_layers):
            own = trace.at(Site.ATTN_PATTERN, segment=segment.index, layer=layer)
            read = trace.at(Site.READ_PATTERN, segment=segment.index, layer=layer)
            np.testing.assert_allclose(own.sum(-1) + read.sum(-1), 1, atol=1e-5)
            assert read.shape[1:] == (len(segment.ids), rmt.config.slots)
            write = trace.at(Site.WRITE_PATTERN, segment=segment.index, layer=layer)
            assert write.shape[1:] == (rmt.config.slots, len(segment.ids))
            assert (write.sum(-1) < 1).all()  # slots also attend to slots


def test_the_last_blocks_bank_is_the_next_segments_bank(rmt: Checkpoint, text: str) -> None:
    trace = run(
        rmt, RunSpec(checkpoint=rmt.name, text=text, captures=(Capture(Site.BANK_PRE), Capture(Site.BANK_POST)))
    )
    last = rmt.config.n_layers - 1
    for at in range(len(trace.segments) - 1):
        np.testing.assert_array_equal(
            trace.at(Site.BANK_POST, segment=at, layer=last), trace.at(Site.BANK_PRE, segment=at + 1, layer=0)
        )
    np.testing.assert_array_equal(trace.at(Site.BANK_POST, segment=len(trace.segments) - 1, layer=last), trace.bank)


def test_edits_of_the_read_pattern_and_of_the_bank_reach_the_logits(rmt: Checkpoint, text: str) -> None:
    def logits(*changes) -> np.ndarray:
        return run(rmt, RunSpec(checkpoint=rmt.name, text=text, interventions=changes)).logits

    clean, first = logits(), 7
    unread = logits(Edit(site=Site.READ_PATTERN, operation=Set(value=0.0)))
    assert not np.allclose(unread[:first], clean[:first])
    emptied = logits(
        Edit(site=Site.BANK_POST, layers=(rmt.config.n_layers - 1,), segments=(0,), operation=Set(value=0.0))
    )
    np.testing.assert_array_equal(emptied[:first], clean[:first])
    assert not np.allclose(emptied[first:], clean[first:])


def test_segments_meet_only_in_the_bank(rmt: Checkpoint, text: str) -> None:
    other = "Sandra went back to the office. " + text[text.index(" ") :]
    texts = (f"{text}\fWhere is Mary?", f"{other}\fWhere is Mary?")
    ends = []
    for given in texts:
        spec = RunSpec(checkpoint=rmt.name, text=given)
        at = run(rmt, spec).segments[-1].index
        first = run(rmt, spec).segments[-1].start
        ends.append(
            (run(rmt, spec).logits[first:], run(rmt, replace(spec, interventions=(Reset(segment=at),))).logits[first:])
        )
    assert not np.allclose(ends[0][0], ends[1][0])
    np.testing.assert_array_equal(ends[0][1], ends[1][1])


def test_a_frozen_bank_is_the_first_bank(rmt: Checkpoint, text: str) -> None:
    trace = run(
        rmt, RunSpec(checkpoint=rmt.name, text=text, captures=(Capture(Site.BANK_PRE),), interventions=(Freeze(),))
    )
    for segment in trace.segments:
        np.testing.assert_array_equal(
            trace.at(Site.BANK_PRE, segment=segment.index, layer=0), rmt.model.bank_start.detach()
        )


def test_gradients_reach_the_first_bank_through_later_segments(build, tokens_config: LM2Config, ids) -> None:
    model, bank = build(tokens_config, 9).model, None
    for seed in range(3):
        out = model.segment(ids(2, 7, seed), bank)
        bank = out.bank
    out.logits.sum().backward()
    assert model.bank_start.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("field", "value"), [("slot_dim", 12), ("memory_heads", 2), ("memory_layers", (0, 2)), ("attention_window", None)]
)
def test_sizes_that_memory_tokens_cannot_have_are_refused(tokens_config: LM2Config, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"memory tokens need {field}"):
        replace(tokens_config, **{field: value})
