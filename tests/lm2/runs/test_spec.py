"""Laws of lm2.runs.spec: a run's specification is a value."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from lm2.model.sites import Site
from lm2.runs.capture import Capture, HeadMean, PooledMax, PooledMean, TopSlots
from lm2.runs.interventions import Edit, Freeze, Reset
from lm2.runs.operations import Set
from lm2.runs.spec import RunSpec

FULL = RunSpec(
    checkpoint="toy",
    text="Zoë 🙂\fWhere is Mary?",
    segment_length=9,
    captures=(
        Capture(Site.GATE_IN, layers=(0, 2), segments=(1,)),
        Capture(Site.READ_PATTERN, TopSlots(3)),
        Capture(Site.READ_PATTERN, HeadMean()),
        Capture(Site.EMBED, PooledMax(4)),
    ),
    interventions=(
        Edit(site=Site.GATE_IN, operation=Set(value=0.5), slots=(1, 2)),
        Freeze(segment=1),
        Reset(segment=2),
    ),
    seed=3,
)


@pytest.mark.parametrize("spec", [FULL, RunSpec(checkpoint="a", text="b")])
def test_json_gives_the_spec_and_its_digest_back(spec: RunSpec) -> None:
    back = RunSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert back == spec
    assert (back.digest, hash(back)) == (spec.digest, hash(spec))


def test_specs_share_a_digest_only_if_they_are_equal() -> None:
    others = [
        replace(FULL, text="Zoë"),
        replace(FULL, checkpoint="other"),
        replace(FULL, segment_length=None),
        replace(FULL, seed=4),
        replace(FULL, interventions=FULL.interventions[::-1]),
        replace(FULL, captures=FULL.captures[:1]),
        replace(FULL, captures=(replace(FULL.captures[0], layers=(0,)),)),
    ]
    digests = [spec.digest for spec in (FULL, *others)]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 64 for digest in digests)


def test_two_interventions_of_different_classes_with_equal_fields_have_different_digests() -> None:
    freeze, reset = (RunSpec(checkpoint="a", text="b", interventions=(kind(segment=1),)) for kind in (Freeze, Reset))
    assert freeze != reset
    assert freeze.digest != reset.digest


def test_two_reductions_of_different_classes_with_equal_fields_have_different_digests() -> None:
    one, other = (
        RunSpec(checkpoint="a", text="b", captures=(Capture(Site.READ, kind(2)),)) for kind in (PooledMax, PooledMean)
    )
    assert one != other
    assert one.digest != other.digest


def test_a_spec_is_hashable_and_cannot_be_changed() -> None:
    assert {FULL: 1}[RunSpec.from_json(FULL.to_json())] == 1
    with pytest.raises(FrozenInstanceError):
        FULL.text = "other"  # type: ignore[misc]


@pytest.mark.parametrize("length", [0, -3])
def test_a_segment_length_below_one_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 token, not {length}"):
        RunSpec(checkpoint="a", text="b", segment_length=length)


def test_the_same_capture_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="2 were given, 1 differ"):
        RunSpec(checkpoint="a", text="b", captures=(Capture(Site.EMBED), Capture(Site.EMBED)))


@pytest.mark.parametrize("values", [{}, {"checkpoint": "a"}, {"checkpoint": "a", "text": "b", "colour": 1}])
def test_json_with_missing_or_unknown_fields_is_refused(values: dict) -> None:
    with pytest.raises(ValueError, match="needs checkpoint and text"):
        RunSpec.from_json(values)
