"""Laws of lm2.model.finite: no result is made of NaN or infinity, and whoever asked for it is told where they came
from."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lm2.evaluation.perplexity import compare
from lm2.evaluation.recall import recall
from lm2.model.config import LM2Config, MemoryKind
from lm2.model.finite import NotFiniteError, is_finite
from lm2.model.llama import RMSNorm
from lm2.model.sites import Site
from lm2.runs.generation import answers, generate
from lm2.runs.interventions import BankEdit, Edit
from lm2.runs.likelihood import log_likelihoods, perplexity
from lm2.runs.operations import Set
from lm2.runs.runner import prepare, run
from lm2.runs.spec import RunSpec
from lm2.tasks.babi import ask
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import Checkpoint


@pytest.mark.parametrize(
    ("weight", "place"),
    [("blocks.1.mlp.out.weight", r"MLP_OUT, block 1 \(blocks.1.hook_mlp_out\)"),
        ("blocks.0.attn.q.weight", "ATTN_Q, block 0 "),
     ("unembed.weight", "in the logits")],
)  # fmt: skip
def test_nothing_is_made_of_numbers_that_are_none_and_the_first_place_is_named(
    build: Callable[..., Checkpoint],
    gated_config: LM2Config,
    plain_config: LM2Config,
    text: str,
    weight: str,
    place: str,
) -> None:
    for config in (gated_config, plain_config):
        own = build(config, 31)
        with torch.no_grad():
            own.model.get_parameter(weight).view(-1)[3] = float("nan")
        for read in (
            lambda: run(own, RunSpec(checkpoint="toy", text=text)),
            lambda: generate(own, text, max_tokens=2),
            lambda: answers(own, [text, "Mary"], max_tokens=2, stop="."),
            lambda: log_likelihoods(own, [(text, " garden.")]),
        ):
            with pytest.raises(NotFiniteError, match=f"first (at )?{place}.*, in segment \\d"):
                read()


@pytest.mark.parametrize(
    ("site", "place"),
    [(Site.RESID_POST, "LN1_SCALE, block 2"), (Site.ATTN_OUT, "block 1"), (Site.EMBED, "LN1_SCALE, block 0")],
)
def test_an_intervention_that_overflows_is_told_with_site_block_and_segment(
    checkpoint: Checkpoint, text: str, site: Site, place: str
) -> None:
    layers = None if site is Site.EMBED else (1,)
    last = len(prepare(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text))[1]) - 1
    if checkpoint.config.memory is MemoryKind.ARMT and place.startswith("LN1_SCALE"):
        place = place.replace("LN1_SCALE", "READ_SCORES")  # it reads before the block's first norm
    if site is Site.RESID_POST and checkpoint.config.n_layers == 2:
        place = "LN_FINAL_SCALE"
    change = Edit(site=site, operation=Set(value=1e38), layers=layers, segments=(last,))
    with pytest.raises(NotFiniteError, match=f"first at .*{place}.*in segment {last}$"):
        run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text, interventions=(change,)))


def test_a_bank_that_overflows_is_told_where_it_is_read(gated: Checkpoint, text: str) -> None:
    spec = RunSpec(
        checkpoint=gated.name, text=text, interventions=(BankEdit(operation=Set(value=1e38), segments=(1,)),)
    )
    with pytest.raises(NotFiniteError, match="first at READ_K, block 0.*in segment 1"):
        run(gated, spec)


def test_a_norm_that_overflows_is_no_number_and_any_other_is_what_it_was() -> None:
    norm, values = RMSNorm(4, 1e-5), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    plain = values / (values.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    assert torch.equal(norm(values), plain)
    assert norm(torch.cat([values, torch.full((1, 4), 1e38)]))[3].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_is_what_has_no_entry_that_is_none_even_where_the_sum_overflows(dtype: torch.dtype) -> None:
    assert is_finite(torch.full((9,), 3e38, dtype=dtype)) and is_finite(torch.empty(0, dtype=dtype))
    for bad in (np.nan, np.inf, -np.inf):
        assert not is_finite(torch.tensor([1.0, bad, 2.0], dtype=dtype))
    assert not is_finite(torch.tensor([np.inf, -np.inf], dtype=dtype))


def test_recall_and_perplexity_stop_instead_of_scoring_numbers_that_are_none(
    build: Callable[..., Checkpoint], gated_config: LM2Config
) -> None:
    own, story = build(gated_config, 34), simulate(1, seed=1, statements=3, questions=1).story
    with torch.no_grad():
        own.model.blocks[1].ln1.w[0] = float("nan")
    with pytest.raises(NotFiniteError, match="block 1"):
        recall(own, [ask(story, story.questions[-1])])
    with pytest.raises(NotFiniteError, match="block 1"):
        perplexity(own, "Mary moved to the garden.")


def test_of_several_models_the_one_that_computes_none_is_named(
    build: Callable[..., Checkpoint], gated: Checkpoint, gated_config: LM2Config
) -> None:
    own = build(gated_config, 35, "mine")
    with torch.no_grad():
        own.model.blocks[1].mlp.out.weight.mul_(1e36)
    with pytest.raises(NotFiniteError, match="^mine: the model computes NaN or infinity: first at .*block"):
        compare([gated, own], ["Mary moved to the garden.", "John went to the office."])
