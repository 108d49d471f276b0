"""What is switched off or changed in a model's memory: plain values, said in words, and turned into one run's
interventions."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from app.choices.fields import TextForm, choice
from lm2.model.config import LM2Config
from lm2.model.gates import GATES, Gate
from lm2.model.sites import Site
from lm2.runs.capture import check_there
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
from lm2.runs.operations import Initial, Mean, Operation, Patch, Permute, Set
from lm2.shown import ranges
from lm2.text.sequence import TokenSequence


class Policy(Enum):
    """What the memory may do at all."""

    ON = "on"
    OFF = "off"
    FREEZE = "freeze"
    RESET = "reset"
    CARRY = "carry"


class ManualChange(Enum):
    """What takes the place of slots, or of what a head reads."""

    RESAMPLE = "resample"
    MEAN = "mean"
    INITIAL = "initial"
    ZERO = "zero"
    PERMUTE = "permute"


_SEGMENTS = range(2**31)
_SHARE = TextForm(r"|0|1|0?\.[0-9]{1,6}|[0-9.]{1,7}e-[0-9]{1,2}", "numbers from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Toggles:
    """All that can be toggled on one text. Numbers of places; an empty tuple names none, but for `blocks`."""

    policy: Policy = Policy.ON
    freeze_at: int = choice(0, _SEGMENTS)
    """Segment from which on nothing is written."""
    reset_at: int = -1
    """Segment that begins with a fresh bank; -1, the last."""
    silent: tuple[int, ...] = ()
    """Blocks whose reading adds nothing to the stream."""
    slots: tuple[int, ...] = ()
    slot_change: ManualChange = ManualChange.RESAMPLE
    persistence: Persistence = Persistence.PERSIST
    heads: tuple[int, ...] = ()
    """Memory heads whose read is replaced."""
    head_change: ManualChange = ManualChange.RESAMPLE
    input_gate: str = choice("", _SHARE)
    """A value from 0 to 1; empty, the gate stays as it is."""
    forget_gate: str = choice("", _SHARE)
    output_gate: str = choice("", _SHARE)
    blocks: tuple[int, ...] = ()
    """Blocks in which heads and gates are changed; none named, all."""
    muted: tuple[int, ...] = ()
    """Statements that cannot write."""
    since: int = choice(0, _SEGMENTS)
    """First segment in which blocks, slots, heads and gates are changed."""
    other: int = choice(1, range(1, 10_000))
    """The story to take something from, counted from the text's own."""
    others: int = choice(3, range(1, 17))
    """Stories that a mean is over, and that are read before this one, from `other` on."""

    @property
    def borrowed(self) -> int:
        """How many other stories are needed."""
        changes = {self.slot_change if self.slots else None, self.head_change if self.heads else None}
        if ManualChange.MEAN in changes or self.policy is Policy.CARRY:
            return self.others
        return 1 if ManualChange.RESAMPLE in changes else 0

    def clamp(self, gate: Gate) -> str:
        """The value that a gate is clamped to, as `input_gate`."""
        return getattr(self, clamp_field(gate))

    def interventions(
        self,
        config: LM2Config,
        tokens: TokenSequence,
        segments: int,
        statements: Sequence[tuple[int, int]],
        texts: tuple[str, ...],
    ) -> tuple[Intervention, ...]:
        """These toggles for one run.

        Args:
            segments: how many the text has.
            statements: character ranges of the statements.
            texts: of `borrowed` other stories.

        Raises ValueError where they name what is not there, as far as the run itself would not say so.
        """
        check_there("segment", (self.since,), range(segments))
        held = tuple(range(self.since, segments)) if self.since else None
        blocks = self.blocks or None
        found = list(self._policy(segments, texts))
        if self.silent:
            found.append(MemoryOff(layers=self.silent, segments=held))
        if self.slots:
            if self.slot_change is ManualChange.PERMUTE:
                slots, operation = None, Permute(order=_circle(self.slots, config.slots))
            else:
                slots, operation = self.slots, _operation(self.slot_change, texts)
            found.append(BankEdit(operation=operation, segments=held, slots=slots, persistence=self.persistence))
        if self.heads:
            site, operation = head_site(config), _operation(self.head_change, texts)
            found.append(Edit(site=site, operation=operation, layers=blocks, segments=held, heads=self.heads))
        for key, gate in GATES.items():
            if self.clamp(gate):
                site = config.memory.design.gates.get(key, gate).site
                clamped = Set(value=_share(gate, self.clamp(gate)))
                found.append(Edit(site=site, operation=clamped, layers=blocks, segments=held))
        if self.muted:
            check_there("statement", self.muted, range(len(statements)))
            muted = {token for number in self.muted for token in tokens.within(*statements[number])}
            found.append(WriteBlock(tokens=tuple(sorted(muted))))
        return tuple(found)

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
        """Everything toggled, in a few words each."""
        since = f" from segment {self.since} on" if self.since else ""
        where = f" in {_many('block', self.blocks)}" if self.blocks else ""
        found = []
        if self.policy is not Policy.ON:
            found.append(self._policy_words)
        if self.silent:
            found.append(f"{_many('block', self.silent)} silent{since}")
        if self.slots:
            only = ", read only" if self.persistence is Persistence.READ_ONLY else ""
            found.append(f"{_many('slot', self.slots)} {self._change_words(self.slot_change)}{since}{only}")
        if self.heads:
            found.append(
                f"read of {_many('memory head', self.heads)}{where} {self._change_words(self.head_change)}{since}"
            )
        found += [f"{gate.words} at {self.clamp(gate)}{where}{since}" for gate in GATES.values() if self.clamp(gate)]
        if self.muted:
            found.append(f"{_many('statement', self.muted)} cannot write")
        return tuple(found)

    @property
    def _policy_words(self) -> str:
        return {
            Policy.OFF: "memory off",
            Policy.FREEZE: f"writes frozen from segment {self.freeze_at} on",
            Policy.RESET: (
                f"bank reset before {'the last segment' if self.reset_at == -1 else f'segment {self.reset_at}'}"
            ),
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
    """Where what one memory head reads can be replaced.

    READ_V: what the slots offer that head. Memory tokens have no values of their own; there it is READ_PATTERN, how
    much of the head's attention goes to them.
    """
    return Site.READ_V if Site.READ_V.layers(config) else Site.READ_PATTERN


def head_changes(config: LM2Config) -> tuple[ManualChange, ...]:
    """What can take the place of a head's read. A pattern of one story's tokens means nothing for another's."""
    whole = (ManualChange.RESAMPLE, ManualChange.MEAN, ManualChange.ZERO)
    return whole if head_site(config) is Site.READ_V else whole[1:]


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


def _circle(slots: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The order in which `slots` move on by one among themselves, the last to the first, and all others stay."""
    check_there("slot", slots, range(count))
    if len(slots) < 2:
        raise ValueError(f"slot {slots[0]} alone cannot change places: choose two slots or more")
    order = list(range(count))
    for slot, source in zip(slots, (slots[-1], *slots[:-1])):
        order[slot] = source
    return tuple(order)


def clamp_field(gate: Gate) -> str:
    """The field of Toggles that clamps a gate."""
    return f"{gate.name}_gate"


def _share(gate: Gate, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"the {gate.words} can be clamped to a number from 0 to 1, not {text!r}")
    return value


def _many(what: str, numbers: tuple[int, ...]) -> str:
    return f"{what}{'s' if len(numbers) > 1 else ''} {ranges(numbers)}"
