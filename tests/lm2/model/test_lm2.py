"""Laws of lm2.model.lm2: a pure function of ids and bank."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from lm2.model.config import BankStart, LM2Config, MemoryKind
from lm2.model.lm2 import LM2
from lm2.model.sites import sites_of
from lm2.model.stream import Cache
from lm2.text.segments import pad
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.released import RELEASED_SIZE

NEAR = {"rtol": 1e-4, "atol": 1e-5}


def feed(model: LM2, rows: list[list[list[int]]]) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """A batch of documents of equally many, unevenly long segments; each row's real logits, and the last bank."""
    config, bank, cache = model.config, model.fresh_bank(len(rows)), None
    full = config.slots if config.memory is MemoryKind.RELEASE else None
    logits: list[list[torch.Tensor]] = [[] for _ in rows]
    for at in range(len(rows[0])):
        ids, non_padding = pad([row[at] for row in rows], full)
        out = model.segment(ids, bank, cache=cache, non_padding=non_padding)
        for number, row in enumerate(rows):
            logits[number].append(out.logits[number, : len(row[at])])
        bank = out.bank
        cache = out.cache if config.lookback is None else out.cache.last(config.lookback) if config.lookback else None
    return [torch.cat(row) for row in logits], bank


def uneven(config: LM2Config) -> list[list[list[int]]]:
    """Three documents of four segments, each of another length."""
    generator = torch.Generator().manual_seed(8)
    full = config.segment_length
    lengths = [[full, 3, 5, 1], [2, full, 1, full], [full, full, full, 4]]
    return [[torch.randint(config.d_vocab, (n,), generator=generator).tolist() for n in row] for row in lengths]


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["plain", "gated", "release"])
@pytest.mark.parametrize("segments_seen", [1, 2, None])
def test_padding_changes_nothing(
    build: Callable[..., Checkpoint], request: pytest.FixtureRequest, kind: str, segments_seen: int | None
) -> None:
    config: LM2Config = request.getfixturevalue(f"{kind}_config")
    window = None if segments_seen is None else segments_seen * config.segment_length
    model = build(replace(config, attention_window=window), 1).model
    rows = uneven(config)
    together, banks = feed(model, rows)
    for number, row in enumerate(rows):
        (alone,), bank = feed(model, [row])
        torch.testing.assert_close(together[number], alone, **NEAR)
        if bank is not None:
            torch.testing.assert_close(banks[number], bank[0], **NEAR)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["plain", "gated"])
def test_what_fills_the_padding_means_nothing(request: pytest.FixtureRequest, kind: str, ids) -> None:
    model = request.getfixturevalue(kind).model
    tokens, non_padding = ids(2, 7), torch.tensor([[True] * 4 + [False] * 3, [True] * 7])
    one, other = (
        model.segment(tokens, non_padding=non_padding),
        model.segment(tokens.where(non_padding, 9), non_padding=non_padding),
    )
    for out in ("logits", "bank"):
        a, b = getattr(one, out), getattr(other, out)
        if a is not None:
            a, b = (x[non_padding] if out == "logits" else x for x in (a, b))
            assert torch.equal(a, b)


@torch.inference_mode()
def test_padding_in_front_of_tokens_or_between_them_is_refused_with_its_row(checkpoint: Checkpoint, ids) -> None:
    model, tokens = checkpoint.model, ids(2, checkpoint.config.segment_length)
    left, between, none = (torch.ones_like(tokens, dtype=torch.bool) for _ in range(3))
    left[1, :2], between[1, 3], none[1] = False, False, False
    for non_padding, said in (
        (left, "its first token is padding"),
        (between, "token 4 is real after padding"),
        (none, "its first token is padding"),
    ):
        for feed_in in (model.segment, model.begin):
            with pytest.raises(ValueError, match=f"row 1 must be real tokens.*{said}"):
                feed_in(tokens, non_padding=non_padding)
    for non_padding in (torch.ones_like(tokens), left[:1], left[:, 1:]):
        with pytest.raises(ValueError, match="non_padding must be true or false for each of"):
            model.segment(tokens, non_padding=non_padding)


@torch.inference_mode()
@pytest.mark.parametrize("window", [7, 14, None])
def test_a_then_b_equals_a_and_b(build: Callable[..., Checkpoint], gated_config: LM2Config, window: int | None) -> None:
    model = build(replace(gated_config, attention_window=window), 2).model
    document = uneven(gated_config)[2]
    (whole,), bank = feed(model, [document])
    state, cache, parts = None, None, []
    for half in (document[:2], document[2:]):  # each half in its own loop, the bank and the cache handed over as values
        for segment in half:
            out = model.segment(torch.tensor([segment]), state, cache=cache)
            state, parts = out.bank, [*parts, out.logits[0]]
            lookback = model.config.lookback
            cache = out.cache if lookback is None else out.cache.last(lookback) if lookback else None
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(state, bank)


@torch.inference_mode()
def test_a_segment_in_two_pieces_through_the_cache_gives_the_same_logits(
    gated: Checkpoint, plain: Checkpoint, ids
) -> None:
    for model in (gated.model, plain.model):
        tokens, bank = ids(2, 7), model.fresh_bank(2)
        first = model.segment(tokens[:, :4], bank)
        second = model.segment(tokens[:, 4:], bank, cache=first.cache)
        torch.testing.assert_close(
            torch.cat([first.logits, second.logits], 1), model.segment(tokens, bank).logits, **NEAR
        )


@torch.inference_mode()
@pytest.mark.parametrize("window", [7, 14])
def test_attention_reaches_back_as_far_as_the_window_and_no_further(
    build: Callable[..., Checkpoint], plain_config: LM2Config, window: int
) -> None:
    model = build(replace(plain_config, n_layers=1, attention_window=window), 2).model
    document = [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14], [15, 16, 17, 18, 19, 20, 21]]
    changed = [[*document[0][:-1], 99], document[1], document[2]]
    (one,), _ = feed(model, [document])
    (other,), _ = feed(model, [changed])
    assert torch.equal(one[7:14], other[7:14]) is (window == 7)
    assert torch.equal(one[14:], other[14:])


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["plain", "gated"])
@pytest.mark.parametrize("place", [3, 6, 10])
def test_no_logit_depends_on_a_later_token(request: pytest.FixtureRequest, kind: str, place: int) -> None:
    checkpoint = request.getfixturevalue(kind)
    tokens = list(range(20, 41))
    changed = [*tokens[:place], 99, *tokens[place + 1 :]]
    (one,), _ = feed(checkpoint.model, [[tokens[:7], tokens[7:14], tokens[14:]]])
    (other,), _ = feed(checkpoint.model, [[changed[:7], changed[7:14], changed[14:]]])
    assert torch.equal(one[:place], other[:place])
    assert not torch.equal(one[place], other[place])
    assert not torch.allclose(one[14:], other[14:])  # later segments hear of it, through the bank or the cache


@torch.inference_mode()
def test_the_same_inputs_give_the_same_outputs_in_any_order_of_calls(checkpoint: Checkpoint, ids) -> None:
    length = checkpoint.config.segment_length
    first, second = ids(2, length, 1), ids(2, length, 2)
    a = checkpoint.model.segment(first)
    b = checkpoint.model.segment(second, a.bank)
    assert torch.equal(checkpoint.model.segment(second, a.bank).logits, b.logits)
    again = checkpoint.model.segment(first)
    assert torch.equal(again.logits, a.logits)
    assert again.bank is None or torch.equal(again.bank, a.bank)


@torch.inference_mode()
def test_feeding_a_segment_leaves_the_given_bank_and_the_weights_alone(checkpoint: Checkpoint, ids) -> None:
    model = checkpoint.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bank = model.fresh_bank(2)
    given = None if bank is None else bank.clone()
    model.segment(ids(2, model.config.segment_length), bank)
    assert bank is None or torch.equal(bank, given)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@torch.inference_mode()
def test_observing_every_site_changes_nothing(checkpoint: Checkpoint, ids) -> None:
    tokens = ids(2, checkpoint.config.segment_length)
    quiet = checkpoint.model(tokens)
    watched, cache = checkpoint.model.run_with_cache(tokens)
    assert torch.equal(quiet, watched)
    sites = sites_of(checkpoint.config.memory)
    assert len(cache) == sum(len(site.layers(checkpoint.config)) for site in sites)


def test_a_fresh_bank_is_the_first_rows_of_the_identity(gated: Checkpoint, plain: Checkpoint) -> None:
    assert torch.equal(gated.model.fresh_bank(3), torch.eye(12)[:5].expand(3, 5, 12))
    assert plain.model.fresh_bank(3) is None


def test_a_learned_fresh_bank_is_a_copy_of_its_parameter(
    build: Callable[..., Checkpoint], gated_config: LM2Config
) -> None:
    model = build(replace(gated_config, bank_start=BankStart.LEARNED)).model
    bank = model.fresh_bank(2)
    assert torch.equal(bank, model.bank_start.expand(2, -1, -1))
    with torch.no_grad():
        bank.zero_()
    assert model.bank_start.abs().sum() > 0


def test_no_bank_means_a_fresh_one(gated: Checkpoint, ids) -> None:
    assert torch.equal(gated.model(ids(2, 7)), gated.model(ids(2, 7), gated.model.fresh_bank(2)))


def test_banks_and_ids_of_another_shape_are_refused_with_both_shapes(gated: Checkpoint, ids) -> None:
    with pytest.raises(ValueError, match=r"\(2, 5, 12\), not \(1, 5, 12\)"):
        gated.model.segment(ids(2, 7), gated.model.fresh_bank(1))
    with pytest.raises(ValueError, match=r"not of shape \(7,\)"):
        gated.model.segment(ids(1, 7)[0])


def test_a_bank_for_a_model_without_memory_is_refused(plain: Checkpoint, ids) -> None:
    with pytest.raises(ValueError, match="bank"):
        plain.model.segment(ids(1, 7), torch.zeros(1, 5, 12))


def test_forward_gives_logits_loss_or_both(gated: Checkpoint, ids) -> None:
    tokens = ids(2, 7)
    logits, loss = gated.model(tokens, return_type="both")
    assert torch.equal(gated.model(tokens), logits)
    assert torch.equal(gated.model(tokens, return_type="loss"), loss)
    picked = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])
    torch.testing.assert_close(loss, -picked.mean())
    with pytest.raises(ValueError, match="lots"):
        gated.model(tokens, return_type="lots")


def test_fresh_weights_come_from_the_generator_alone(gated_config: LM2Config) -> None:
    def fresh(seed: int) -> LM2:
        model = LM2(gated_config)
        model.initialise(torch.Generator().manual_seed(seed))
        return model

    one, same, other = fresh(1).weights(), fresh(1).weights(), fresh(2).weights()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["embed.weight"], other["embed.weight"])
    assert (one["blocks.0.mem.forget_gate.bias"] == gated_config.forget_bias).all()


@pytest.mark.parametrize("tied", [False, True])
def test_weights_name_each_tensor_once_and_load_back(
    build: Callable[..., Checkpoint], gated_config: LM2Config, tied: bool, ids
) -> None:
    config = replace(gated_config, tied_embeddings=tied)
    model = build(config, 9).model
    weights = model.weights()
    assert ("unembed.weight" in weights) is not tied
    other = LM2.empty(config, torch.device("cpu"), torch.float32)
    other.load_weights(weights)
    assert torch.equal(other(ids(1, 7)), model(ids(1, 7)))
    assert (other.unembed.weight is other.embed.weight) is tied


def test_weights_that_do_not_fit_are_refused_and_nothing_is_copied(
    build: Callable[..., Checkpoint], gated_config: LM2Config
) -> None:
    model = build(gated_config, 1).model
    before = {name: value.clone() for name, value in model.weights().items()}
    good = {name: torch.zeros_like(value) for name, value in before.items()}
    for bad, said in (
        ({k: v for k, v in good.items() if k != "ln_final.w"}, "lack 1 names .*ln_final.w"),
        (good | {"extra": torch.zeros(1)}, "1 unknown ones .*extra"),
        (good | {"ln_final.w": torch.zeros(3)}, r"ln_final.w must be of shape \(16,\), not \(3,\)"),
    ):
        with pytest.raises(ValueError, match=said):
            model.load_weights(bad)
    assert all(torch.equal(value, before[name]) for name, value in model.weights().items())


def test_the_released_size_has_the_released_number_of_parameters() -> None:
    with torch.device("meta"):
        model = LM2(RELEASED_SIZE)
    sizes = {name: value.numel() for name, value in model.weights().items()}
    assert sum(size for name, size in sizes.items() if ".mem." in name) == 537_296_928
    assert sum(sizes.values()) == 1_773_111_328


def test_a_cache_keeps_each_rows_last_real_tokens(gated: Checkpoint, ids) -> None:
    non_padding = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])
    cache: Cache = gated.model.segment(ids(2, 7), non_padding=non_padding).cache
    assert cache.next_position.tolist() == [7, 3]
    kept = cache.last(3)
    assert kept.positions.tolist() == [[4, 5, 6], [0, 1, 2]]
    assert torch.equal(kept.layers[1].k[1], cache.layers[1].k[1, :3])
    assert torch.equal(kept.layers[1].k[0], cache.layers[1].k[0, 4:])
    assert cache.last(99).positions.shape == (2, 7)


@torch.inference_mode()
def test_bfloat16_is_close_to_float32(build: Callable[..., Checkpoint], request: pytest.FixtureRequest, ids) -> None:
    for kind in ("plain", "gated", "release"):
        config = request.getfixturevalue(f"{kind}_config")
        exact = build(config, 4).model
        rough = LM2.empty(config, torch.device("cpu"), torch.bfloat16)
        rough.load_weights(exact.weights())
        tokens = ids(2, config.segment_length)
        one, other = exact.segment(tokens), rough.segment(tokens)
        assert other.logits.dtype is torch.bfloat16 and (other.bank is None or other.bank.dtype is torch.bfloat16)
        for a, b in ((one.logits, other.logits), (one.bank, other.bank)):
            if a is not None:
                assert (a - b.float()).abs().mean() < 0.05 * a.abs().mean() + 0.02


def test_a_segment_that_writes_nothing_has_the_same_logits_and_no_bank(precise: Checkpoint, ids) -> None:
    model, segment = precise.model, ids(2, precise.config.segment_length)
    before = model.segment(ids(2, precise.config.segment_length, 3)).bank
    written, unwritten = model.segment(segment, before), model.segment(segment, before, write=False)
    torch.testing.assert_close(unwritten.logits, written.logits, rtol=1e-5, atol=1e-5)
    assert unwritten.bank is None


def two_segments(
    checkpoint: Checkpoint, ids: Callable[..., torch.Tensor], batch: int = 2
) -> tuple[torch.Tensor, torch.Tensor | None, Cache]:
    """A segment, with the bank and the cache that another one has left."""
    length = checkpoint.config.segment_length
    before = checkpoint.model.segment(ids(batch, length, 3))
    return ids(batch, length, 4), before.bank, before.cache if checkpoint.config.lookback != 0 else None


@torch.inference_mode()
@pytest.mark.parametrize("write", [True, False])
def test_a_segment_is_its_beginning_its_blocks_and_its_end(checkpoint: Checkpoint, ids, write: bool) -> None:
    model, (tokens, bank, cache) = checkpoint.model, two_segments(checkpoint, ids)
    whole = model.segment(tokens, bank, cache=cache, write=write)
    stream = model.begin(tokens, bank, cache=cache, write=write)
    for layer in range(model.config.n_layers + 1):  # kept at each block, and gone on from there twice
        stream = model.through(stream, layer)
        for _ in range(2):
            parts = model.finish(model.through(stream))
            assert torch.equal(parts.logits, whole.logits)
            assert whole.bank is parts.bank is None or torch.equal(parts.bank, whole.bank)
            for one, other in zip((*parts.cache.layers, parts.cache), (*whole.cache.layers, whole.cache), strict=True):
                assert all(
                    torch.equal(a, b)
                    for a, b in zip(vars(one).values(), vars(other).values())
                    if isinstance(a, torch.Tensor)
                )


@torch.inference_mode()
def test_a_repeated_stream_is_as_many_equal_documents(checkpoint: Checkpoint, ids) -> None:
    model, (tokens, bank, cache) = checkpoint.model, two_segments(checkpoint, ids, 1)
    whole = model.segment(tokens, bank, cache=cache)
    for layer in range(model.config.n_layers + 1):
        many = model.finish(model.through(model.through(model.begin(tokens, bank, cache=cache), layer).repeated(3)))
        torch.testing.assert_close(many.logits, whole.logits.expand(3, -1, -1), **NEAR)
        assert whole.bank is many.bank is None or torch.allclose(many.bank, whole.bank.expand(3, -1, -1), atol=1e-5)
        assert (
            {len(layer.k) for layer in many.cache.layers}
            == {len(many.cache.positions)}
            == {len(many.cache.next_position)}
            == {3}
        )
    with pytest.raises(ValueError, match="not that of 2"):
        model.begin(ids(2, model.config.segment_length)).repeated(3)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["plain", "gated"])
def test_folded_documents_do_not_see_each_other(request: pytest.FixtureRequest, kind: str, ids) -> None:
    model = request.getfixturevalue(kind).model
    earlier = model.segment(ids(1, 5, 1))
    stream = model.through(model.begin(ids(1, 2, 2), earlier.bank, cache=earlier.cache, write=False), 1).repeated(3)
    stream = replace(
        stream, resid=stream.resid + torch.randn(3, 2, model.config.d_model, generator=torch.Generator().manual_seed(0))
    )
    apart, folded = model.finish(model.through(stream)), model.finish(model.through(stream.folded()))
    torch.testing.assert_close(folded.final.view(3, 2, -1), apart.final, **NEAR)
