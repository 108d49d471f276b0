"""Laws of what a run costs: known before it runs, and refused with both numbers."""

from dataclasses import replace

import pytest
import torch

from lm2.runs.donors import Patch
from lm2.runs.generation import generate
from lm2.runs.interventions import BankEdit
from lm2.runs.runner import predicted_bytes, run
from lm2.runs.spec import RunSpec
from lm2.text.segments import Segment
from lm2.weights.cost import TooLargeError, check_repeated, check_working, side_by_side, working_bytes


def _segment(count: int, start: int = 0) -> Segment:
    return Segment(index=0, start=start, ids=(0,) * count)


def test_twice_as_many_tokens_take_four_times_as_much(checkpoint) -> None:
    config = checkpoint.config
    assert working_bytes(config, _segment(200_000)) == pytest.approx(
        4 * working_bytes(config, _segment(100_000)), rel=0.01
    )


def test_what_a_token_looks_back_on_is_counted(plain, gated) -> None:
    assert working_bytes(plain.config, _segment(100, 9_900)) > 20 * working_bytes(plain.config, _segment(100))
    assert working_bytes(gated.config, _segment(100, 9_900)) == working_bytes(gated.config, _segment(100))


def test_the_attention_patterns_of_a_segment_are_within_what_is_predicted(checkpoint, ids) -> None:
    """What PyTorch allocates at once in the largest operations is at least the pattern, and the prediction has it
    several times."""
    config, held = checkpoint.config, []
    count = config.segment_length
    with (
        checkpoint.model.hooks(
            fwd_hooks=[("blocks.0.attn.hook_pattern", lambda value, hook: held.append(value.numel()))]
        ),
        torch.inference_mode(),
    ):
        checkpoint.model.segment(ids(1, count))
    assert 3 * 4 * held[0] <= working_bytes(config, _segment(count))


def test_a_segment_that_would_take_too_much_is_refused_with_both_numbers(gated) -> None:
    needed = working_bytes(gated.config, _segment(7))
    check_working(gated.config, [_segment(7)], needed)
    with pytest.raises(
        TooLargeError, match=rf"7 tokens .* {needed:,} bytes .* {needed - 1:,} allowed: choose shorter segments"
    ):
        check_working(gated.config, [_segment(3), _segment(7)], needed - 1)


def test_every_way_to_run_a_text_is_refused_before_anything_runs(gated, text, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(gated.model), "segment", lambda *given, **named: pytest.fail("it ran"))
    little = replace(gated, working_bytes=10_000)
    long = RunSpec(checkpoint=gated.name, text=text, segment_length=1_000_000_000)
    lent = RunSpec(
        checkpoint=gated.name,
        text="Mary.",
        segment_length=1_000_000,
        interventions=(BankEdit(operation=Patch(text=text), segments=(0,)),),
    )
    for call in (
        lambda: run(little, long), lambda: predicted_bytes(little, long), lambda: run(little, lent),
        lambda: generate(little, text, max_tokens=1, segment_length=1_000_000_000),
    ):  # fmt: skip
        with pytest.raises(TooLargeError, match="working memory"):
            call()


def test_a_batch_has_as_many_rows_as_the_limit_holds_and_one_at_least(gated) -> None:
    one = working_bytes(gated.config, _segment(7))
    rows = [
        side_by_side(gated.config, [_segment(3), _segment(7)], limit, 32) for limit in (0, one, 5 * one, 1_000 * one)
    ]
    assert rows == [1, 1, 5, 32]


def test_a_segment_that_would_be_read_too_often_is_refused(gated) -> None:
    one = working_bytes(gated.config, _segment(7))
    check_repeated(gated.config, _segment(7), 8, 2 * one)
    with pytest.raises(TooLargeError, match=r"7 tokens would be read 9 times, .*: choose shorter segments"):
        check_repeated(gated.config, _segment(7), 9, 2 * one)
