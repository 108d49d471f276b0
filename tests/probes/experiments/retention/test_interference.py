"""Laws of interference between facts."""

from dataclasses import replace

import numpy as np
import pytest
from toys import REMEMBERING

from lm2.weights.checkpoint import Checkpoint
from probes.experiments.retention.controlled_documents import rivals
from probes.experiments.retention.interference import correlation, interference
from probes.stats.metrics import Metric

DOCUMENTS = rivals(6, each=3)


@pytest.mark.parametrize("kind", REMEMBERING)
def test_every_rival_is_compared_with_a_repetition_in_its_own_place(kind: str, request: pytest.FixtureRequest) -> None:
    heard = []
    checkpoint = request.getfixturevalue(kind)
    found = interference(checkpoint, DOCUMENTS, on_document=lambda: heard.append(None))
    assert found.right.n == 18 and found.alone.n == 6
    assert len(found.pairs) == 18 and len(heard) == 6 * (2 + 3)
    assert {pair.group for pair in found.pairs} == {document.group for document in DOCUMENTS}
    assert all(-1e-6 <= pair.overlap <= 1 + 1e-6 for pair in found.pairs)
    assert (found.written.n, found.written.groups, found.control.n) == (18, 6, 6)
    np.testing.assert_array_equal(found.written.values, [pair.effect for pair in found.pairs])


@pytest.mark.parametrize("metric", list(Metric))
def test_a_rival_that_repeats_the_first_statement_has_no_effect(gated: Checkpoint, metric: Metric) -> None:
    found = interference(
        gated, [replace(document, rivals=(document.repeated,)) for document in DOCUMENTS], metric=metric
    )
    np.testing.assert_allclose(found.written.values, 0, atol=1e-5)
    assert found.control.values.any() or metric is Metric.EXACT


def test_a_rival_that_repeats_the_fact_leaves_a_footprint_like_the_facts_own(rmt: Checkpoint) -> None:
    spans = [document.alone.statement_spans for document in DOCUMENTS]
    same = [
        replace(document, rivals=(replace(document.repeated, statement_spans=(first, fact, fact)),))
        for document, (first, fact) in zip(DOCUMENTS, spans)
    ]
    assert all(document.rivals[0].statements[2] == document.alone.statements[1] for document in same)
    near, far = interference(rmt, same), interference(rmt, DOCUMENTS)
    assert np.mean([pair.overlap for pair in near.pairs]) > np.mean([pair.elsewhere for pair in far.pairs])


def test_a_perfect_ranking_has_correlation_one_with_no_width_and_one_group_has_no_interval() -> None:
    values, groups = list(range(12)), [str(at // 3) for at in range(12)]
    found = correlation(values, [value**3 for value in values], groups)
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))
    assert correlation(values, values[::-1], groups).value == pytest.approx(-1)
    alone = correlation(values, values, ["one"] * 12)
    assert alone.value == pytest.approx(1) and np.isnan(alone.low)


def test_one_document_is_not_enough(gated: Checkpoint) -> None:
    with pytest.raises(ValueError, match="at least 2 documents, not 1"):
        interference(gated, DOCUMENTS[:1])
