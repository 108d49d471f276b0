"""Bank patching: slots of another text's bank put into a text's own before its question, all together or one by one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lm2.runs.donors import Patch
from lm2.runs.interventions import BankEdit
from lm2.runs.runner import prepare, run
from lm2.runs.spec import RunSpec
from lm2.runs.trace import read_only
from lm2.serialize import Spec, not_empty
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.tasks.prompt import Prompt
from lm2.text.segments import Segment
from lm2.text.tokens import BREAK
from lm2.weights.checkpoint import Checkpoint
from probes.causal.planner import answers_under


@dataclass(frozen=True, kw_only=True)
class PatchSpec(Spec):
    """Two texts, the token at which each asks its question, and the two answers. Plain JSON both ways."""

    checkpoint: str
    text: str
    row: int
    """The token after which the text's answer is expected."""
    donor: str
    donor_row: int
    own: int
    """The first token of the text's own answer."""
    other: int
    """The first token of the answer that the donor's bank should give."""
    segment_length: int | None = None
    """Tokens; None takes the checkpoint's own."""
    seed: int = 0
    """Without effect: nothing is random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("checkpoint", "text", "donor"):
            not_empty(name, getattr(self, name))
        for name in ("row", "donor_row", "own", "other", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")

    def run(self, text: str) -> RunSpec:
        """The plain run of one of the texts."""
        return RunSpec(checkpoint=self.checkpoint, text=text, segment_length=self.segment_length)


@dataclass(frozen=True, kw_only=True)
class SlotsAlone:
    """The effect of each slot of a donor's bank alone."""

    changes: Float[np.ndarray, "slot"]
    """Of the logit difference, donor's answer minus own."""

    @property
    def bytes(self) -> int:
        return self.changes.nbytes


def bank_edit(donor: str, donor_segment: int, segment: int, slots: tuple[int, ...] | None = None) -> BankEdit:
    """A segment begins with the bank, or some slots of it, with which the donor's segment begins."""
    return BankEdit(operation=Patch(text=donor, segment=donor_segment), segments=(segment,), slots=slots)


def slots_alone(checkpoint: Checkpoint, spec: PatchSpec) -> SlotsAlone:
    """Patch each slot alone. Raises ValueError as `prepare` does, and for a row beyond the text."""
    encoded = _encoded(checkpoint, spec)
    segment = _segment(encoded.segments, spec.row)
    donor_segment = _segment(prepare(checkpoint, spec.run(spec.donor))[1], spec.donor_row)
    edits = [(bank_edit(spec.donor, donor_segment, segment, (slot,)),) for slot in range(checkpoint.config.slots)]
    clean = run(checkpoint, spec.run(spec.text)).logits[spec.row]
    logits = np.stack([clean, *answers_under(checkpoint, encoded, edits)[:, 0]]).astype(np.float64)
    differences = logits[:, spec.other] - logits[:, spec.own]
    return SlotsAlone(changes=read_only(differences[1:] - differences[0]))


def _segment(segments: tuple[Segment, ...], row: int) -> int:
    if row >= segments[-1].end:
        raise ValueError(f"there is no token {row}; there are {segments[-1].end}")
    return next(segment.index for segment in segments if row < segment.end)


def _encoded(checkpoint: Checkpoint, spec: PatchSpec) -> EncodedPrompt:
    """The text as a question. The planner needs an answer after it: a full stop in a segment of its own, which changes
    nothing else."""
    prompt = Prompt(text=spec.text, question_span=(0, len(spec.text)), answers=(".",), group="")
    longer = spec.run(f"{spec.text}{BREAK}{prompt.answer}")
    tokens, segments = prepare(checkpoint, longer)
    return EncodedPrompt(
        prompt=prompt,
        spec=longer,
        tokens=tokens,
        segments=segments,
        statements=(),
        question=range(spec.row, spec.row + 1),
        answer=range(spec.row + 1, len(tokens)),
    )
