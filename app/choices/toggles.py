"""What is switched off or changed in a model's memory, in words and as a run's interventions."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from app.choices.fields import TextForm, choice
from lm2.model.config import LM2Config
from lm2.model.gates import GATES, Gate
from lm2.model.sites import Site
from lm2.runs.capture import check_numbers
from lm2.runs.donors import Initial, Mean, Patch
from lm2.runs.interventions import (
    BankEdit,
    Carry,
    Edit,
    Freeze,
    Intervention,
    MemoryOff,
    Persistence,
    Reset,
    WriteBlock,
)
from lm2.runs.operations import Operation, Permute, Set
from lm2.shown import numbered
from lm2.text.sequence import TokenSequence


class Policy(Enum):
    """What happens to the whole memory."""

    ON = "on"
    OFF = "off"
    FREEZE = "freeze"
    RESET = "reset"
    CARRY = "carry"


class ManualChange(Enum):
    """What replaces slots, or what a head reads."""

    RESAMPLE = "resample"
    MEAN = "mean"
    INITIAL = "initial"
    ZERO = "zero"
    PERMUTE = "permute"


_SEGMENTS = range(2**31)
_SHARE = TextForm(r"|0|1|0?\.[0-9]{1,6}|[0-9.]{1,7}e-[0-9]{1,2}", "numbers from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Toggles:
    """Everything that can be toggled on one text. Tuples are indices; an empty one names none, except for `blocks`."""

    policy: Policy = Policy.ON
    freeze_at: int = choice(0, _SEGMENTS)
    """First segment that writes nothing."""
    reset_at: int = -1
    """Segment that starts from a fresh bank; -1, the last."""
    silent: tuple[int, ...] = ()
    """Blocks whose read adds nothing to the stream."""
    slots: tuple[int, ...] = ()
    slot_change: ManualChange = ManualChange.RESAMPLE
    persistence: Persistence = Persistence.PERSIST
    heads: tuple[int, ...] = ()
    """Memory heads whose read is replaced."""
    head_change: ManualChange = ManualChange.RESAMPLE
    input_gate: str = choice("", _SHARE)
    """A value from 0 to 1; empty, the gate is not clamped."""
    forget_gate: str = choice("", _SHARE)
    output_gate: str = choice("", _SHARE)
    blocks: tuple[int, ...] = ()
    """Blocks in which heads and gates are changed; empty, all."""
    muted: tuple[int, ...] = ()
    """Statements that cannot write."""
    since: int = choice(0, _SEGMENTS)
    """First segment in which blocks, slots, heads and gates are changed."""
    other: int = choice(1, range(1, 10_000))
    """Which story a change takes values from, counted from the text's own."""
    others: int = choice(3, range(1, 17))
    """How many stories, from `other` on, are averaged or read before this text."""

    @property
    def borrowed(self) -> int:
        """How many other stories are needed."""
        changes = {self.slot_change if self.slots else None, self.head_change if self.heads else None}
        if ManualChange.MEAN in changes or self.policy is Policy.CARRY:
            return self.others
        return int(ManualChange.RESAMPLE in changes)

    def clamp(self, gate: Gate) -> str:
        """The value that a gate is clamped to, as in `input_gate`."""
        return getattr(self, clamp_field(gate))

    def interventions(
        self,
        config: LM2Config,
        tokens: TokenSequence,
        segments: int,
        statements: Sequence[tuple[int, int]],
        texts: tuple[str, ...],
        later: int = 0,
    ) -> tuple[Intervention, ...]:
        """The interventions of one run.

        Args:
            segments: how many the text has.
            statements: their character ranges.
            texts: `borrowed` other stories.
            later: how many more segments it may get while the model continues it.

        Raises ValueError for segments, slots and statements that do not exist; the run itself checks the others.
        """
        check_numbers("segment", (self.since,), range(segments))
        since = tuple(range(self.since, segments + later)) if self.since else None
        blocks = self.blocks or None
        result = list(self._policy(segments, texts))
        if self.silent:
            result.append(MemoryOff(layers=self.silent, segments=since))
        if self.slots:
            if self.slot_change is ManualChange.PERMUTE:
                slots, operation = None, Permute(order=_rotation(self.slots, config.slots))
            else:
                slots, operation = self.slots, _operation(self.slot_change, texts)
            result.append(BankEdit(operation=operation, segments=since, slots=slots, persistence=self.persistence))
        if self.heads:
            site, operation = head_site(config), _operation(self.head_change, texts)
            result.append(Edit(site=site, operation=operation, layers=blocks, segments=since, heads=self.heads))
        for key, gate in GATES.items():
            if self.clamp(gate):
                site = config.memory.design.gates.get(key, gate).site
                operation = Set(value=_gate_value(gate, self.clamp(gate)))
                result.append(Edit(site=site, operation=operation, layers=blocks, segments=since))
        if self.muted:
            check_numbers("statement", self.muted, range(len(statements)))
            muted = {token for number in self.muted for token in tokens.within(*statements[number])}
            result.append(WriteBlock(tokens=tuple(sorted(muted))))
        return tuple(result)

    def _policy(self, segments: int, texts: tuple[str, ...]) -> tuple[Intervention, ...]:
        match self.policy:
            case Policy.ON:
                return ()
            case Policy.OFF:
                return (MemoryOff(),)
            case Policy.FREEZE:
                return (Freeze(segment=self.freeze_at),)
            case Policy.RESET:
                return (Reset(segment=segments - 1 if self.reset_at == -1 else self.reset_at),)
            case Policy.CARRY:
                return (Carry(texts=texts),)

    @property
    def words(self) -> tuple[str, ...]:
        """A few words for each toggle that is set."""
        since = f" from segment {self.since} on" if self.since else ""
        where = f" in {numbered('block', self.blocks)}" if self.blocks else ""
        words = []
        if self.policy is not Policy.ON:
            words.append(self._policy_words)
        if self.silent:
            words.append(f"{numbered('block', self.silent)} silent{since}")
        if self.slots:
            only = ", read only" if self.persistence is Persistence.READ_ONLY else ""
            words.append(f"{numbered('slot', self.slots)} {self._change_words(self.slot_change)}{since}{only}")
        if self.heads:
            heads = numbered("memory head", self.heads)
            words.append(f"read of {heads}{where} {self._change_words(self.head_change)}{since}")
        words += [f"{gate.words} at {self.clamp(gate)}{where}{since}" for gate in GATES.values() if self.clamp(gate)]
        if self.muted:
            words.append(f"{numbered('statement', self.muted)} cannot write")
        return tuple(words)

    @property
    def _policy_words(self) -> str:
        last = "the last segment" if self.reset_at == -1 else f"segment {self.reset_at}"
        return {
            Policy.OFF: "memory off",
            Policy.FREEZE: f"writes frozen from segment {self.freeze_at} on",
            Policy.RESET: f"bank reset before {last}",
            Policy.CARRY: f"bank carried over from {self.others} other stories",
        }[self.policy]

    def _change_words(self, change: ManualChange) -> str:
        other = "the next story" if self.other == 1 else f"the story {self.other} further on"
        return {
            ManualChange.RESAMPLE: f"from {other}",
            ManualChange.MEAN: f"at the mean of {self.others} other stories",
            ManualChange.INITIAL: "as at the start",
            ManualChange.ZERO: "zeroed",
            ManualChange.PERMUTE: "permuted",
        }[change]


def head_site(config: LM2Config) -> Site:
    """The site at which one memory head's read can be replaced: READ_V, the slots' values for that head, or for memory
    tokens, which have no values of their own, READ_PATTERN, the head's attention to them."""
    return Site.READ_V if Site.READ_V.layers(config) else Site.READ_PATTERN


def head_changes(config: LM2Config) -> tuple[ManualChange, ...]:
    """What can replace a head's read. An attention pattern over one story's tokens means nothing in another story."""
    changes = (ManualChange.RESAMPLE, ManualChange.MEAN, ManualChange.ZERO)
    return changes if head_site(config) is Site.READ_V else changes[1:]


def _operation(change: ManualChange, texts: tuple[str, ...]) -> Operation:
    match change:
        case ManualChange.RESAMPLE:
            return Patch(text=texts[0], segment=-1)
        case ManualChange.MEAN:
            return Mean(texts=texts, segment=-1)
        case ManualChange.INITIAL:
            return Initial()
        case ManualChange.ZERO:
            return Set(value=0.0)
        case ManualChange.PERMUTE:
            raise ValueError("a head's read has no order that could be permuted: choose another change for it")


def _rotation(slots: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The order in which each of `slots` moves on to the place of the next, and all others stay."""
    check_numbers("slot", slots, range(count))
    if len(slots) < 2:
        raise ValueError(f"slot {slots[0]} alone cannot change places: choose two slots or more")
    source = dict(zip(slots, (slots[-1], *slots[:-1])))
    return tuple(source.get(slot, slot) for slot in range(count))


def clamp_field(gate: Gate) -> str:
    """The field of Toggles that clamps a gate."""
    return f"{gate.name}_gate"


def _gate_value(gate: Gate, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"the {gate.words} can be clamped to a number from 0 to 1, not {text!r}")
    return value
