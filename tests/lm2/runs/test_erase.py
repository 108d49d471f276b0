"""Laws of Erase and Transport: affine maps along features, declared as plain values."""

import json

import numpy as np
import pytest

from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.interventions import BankEdit, Edit, Intervention
from lm2.runs.operations import Erase, Operation, Transport
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.weights.checkpoint import Checkpoint


def rows(seed: int, rank: int, d: int) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, np.random.default_rng(seed).standard_normal((rank, d)).tolist()))


def erase(rank: int, d: int) -> Erase:
    return Erase(left=rows(1, rank, d), right=rows(2, rank, d), mean=rows(3, 1, d)[0])


def transport(d: int) -> Transport:
    return Transport(matrix=rows(1, d, d), mean=rows(2, 1, d)[0], to=rows(3, 1, d)[0])


def trace_of(checkpoint: Checkpoint, text: str, *changes: Intervention, captures: tuple[Capture, ...] = ()) -> Trace:
    return run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text, interventions=changes, captures=captures))


def test_erasing_no_dimension_is_the_identity(gated: Checkpoint, text: str) -> None:
    clean, erased = (
        trace_of(gated, text),
        trace_of(gated, text, BankEdit(operation=erase(0, 12)), Edit(site=Site.RESID_MID, operation=erase(0, 16))),
    )
    assert np.array_equal(clean.logits, erased.logits) and np.array_equal(clean.bank, erased.bank)


def test_it_computes_what_it_says(gated: Checkpoint, text: str) -> None:
    captures, operation = (Capture(Site.RESID_MID, layers=(1,), segments=(1,)),), erase(3, 16)
    value = trace_of(gated, text, captures=captures).at(Site.RESID_MID, segment=1, layer=1)
    change = Edit(site=Site.RESID_MID, operation=operation, layers=(1,), segments=(1,))
    left, right, mean = (one.array for one in (operation.left, operation.right, operation.mean))
    shown = trace_of(gated, text, change, captures=captures).at(Site.RESID_MID, segment=1, layer=1)
    np.testing.assert_allclose(shown, value - (value - mean) @ right.T @ left, rtol=1e-4, atol=1e-4)


def test_transport_computes_what_it_says(gated: Checkpoint, text: str) -> None:
    captures, operation = (Capture(Site.RESID_MID, layers=(1,), segments=(1,)),), transport(16)
    value = trace_of(gated, text, captures=captures).at(Site.RESID_MID, segment=1, layer=1)
    change = Edit(site=Site.RESID_MID, operation=operation, layers=(1,), segments=(1,))
    shown = trace_of(gated, text, change, captures=captures).at(Site.RESID_MID, segment=1, layer=1)
    matrix, mean, to = (one.array for one in (operation.matrix, operation.mean, operation.to))
    np.testing.assert_allclose(shown, to + (value - mean) @ matrix.T, rtol=1e-4, atol=1e-4)


def test_with_left_and_right_of_the_same_orthonormal_rows_twice_is_once(gated: Checkpoint, text: str) -> None:
    basis = np.linalg.qr(np.array(rows(4, 12, 5)))[0].T
    operation = Erase(left=basis.tolist(), right=basis.tolist(), mean=rows(5, 1, 12)[0])
    change = BankEdit(operation=operation, segments=(1,), slots=(0, 3))
    once, twice = trace_of(gated, text, change), trace_of(gated, text, change, change)
    assert not np.allclose(once.logits, trace_of(gated, text).logits)
    np.testing.assert_allclose(once.logits, twice.logits, atol=1e-4)


@pytest.mark.parametrize("operation", [erase(0, 3), erase(2, 3), transport(3)])
def test_json_gives_it_back(operation: Operation) -> None:
    change = BankEdit(operation=operation, slots=(1,))
    back = Intervention.from_json(json.loads(json.dumps(change.to_json())))
    assert back == change and hash(back) == hash(change)
    assert Operation.from_json(json.loads(json.dumps(change.operation.to_json()))) == change.operation


def test_sizes_that_do_not_fit_are_refused(gated: Checkpoint, text: str) -> None:
    for left, right, mean in (
        ((), rows(1, 1, 3), (0.0,) * 3),
        (rows(1, 1, 3), rows(1, 1, 2), (0.0,) * 3),
        (rows(1, 1, 3), rows(1, 1, 3), (0.0,)),
        ((), (), ()),
    ):
        with pytest.raises(ValueError, match="left and right must be as many rows of"):
            Erase(left=left, right=right, mean=mean)
    with pytest.raises(ValueError, match="mean must be finite numbers"):
        Erase(left=(), right=(), mean=(float("nan"),))
    for values, said in (
        ("ab", "finite numbers"),
        (((1.0,), (1.0, 2.0)), "rows of one length"),
        ((1.0,), "2 axes, not 1"),
        (((True,),), "finite numbers"),
    ):
        with pytest.raises(ValueError, match=f"left must (be|have) {said}"):
            Erase(left=values, right=(), mean=(0.0,))
    with pytest.raises(
        ValueError, match=r"matrix and to must be of 3 entries a side, as mean has, not of shapes \(3, 3\) and \(2,\)"
    ):
        Transport(matrix=rows(1, 3, 3), mean=(0.0,) * 3, to=(0.0,) * 2)
    with pytest.raises(ValueError, match="mean must have 12 entries, as the bank has features, not 3"):
        trace_of(gated, text, BankEdit(operation=transport(3)))
    with pytest.raises(ValueError, match="mean must have 12 entries, as the bank has features, not 16"):
        trace_of(gated, text, BankEdit(operation=erase(1, 16)))
    with pytest.raises(ValueError, match="last axis of READ_PATTERN is slot"):
        Edit(site=Site.READ_PATTERN, operation=erase(1, 5))
