"""Screening: what every unit of a grid is worth, estimated from a few gradients, to choose the units that are then
measured.

Joint integrated gradients: all units move together from their own values to those that replace them, in a few steps
with one backward pass each, and a unit's score is its difference times its mean gradient on the way (Sundararajan et
al. 2017, arXiv 1703.01365; on activations, Hanna et al. 2024, arXiv 2403.17806). A gradient at the clean values alone
misses what a saturated read hides.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lm2.model.hooks import HookPoint
from lm2.model.memory import of_memory
from lm2.runs.hooks import SourceActivations, bank_in, hooks
from lm2.runs.interventions import BankEdit
from lm2.runs.loop import carried, run_segments, run_up_to
from lm2.runs.operations import Set
from lm2.runs.runner import source_activations
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.batch import Unit, together
from probes.causal.plan import Route, plan
from probes.stats.metrics import Answer, Metric

STEPS = 5
RANDOM = 32
"""Units measured beside those that the screen puts first: whether it can be trusted."""
TRUSTED = 0.8
"""The least correlation of scores with measured effects at which there is a ranking."""

_BANK = "bank"
"""In the place of a hook point's name: the bank that a segment begins with."""

_Point = tuple[int, str]
"""A segment, and the name of a hook point or `_BANK`."""

_Mover = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Screening:
    """A screen beside the units that were measured because of it."""

    scores: Float[np.ndarray, "unit"]
    """Means over documents, in the metric's unit."""
    top: tuple[int, ...]
    """Units with the largest scores, whatever their sign, largest first."""
    random: tuple[int, ...]
    """Units drawn from the others."""
    r: float
    """Pearson correlation of score and measured mean effect over these units; nan before they were measured, and where
    either does not vary."""
    slope: float
    """Of the measured effect on the score: 1 where the screen is right in size too."""

    @classmethod
    def of(cls, scores: Float[np.ndarray, "unit"], k: int, seed: int) -> "Screening":
        """What to measure for the sake of the best k: the top 2k, and up to `RANDOM` of the others, drawn with
        `seed`."""
        order = np.argsort(-np.abs(scores), kind="stable")
        others = np.random.default_rng(seed).permutation(order[2 * k :])
        return cls(
            scores=scores,
            top=tuple(map(int, order[: 2 * k])),
            random=tuple(map(int, others[:RANDOM])),
            r=np.nan,
            slope=np.nan,
        )

    def beside(self, units: Sequence[int], measured: Float[np.ndarray, "unit"]) -> "Screening":
        """The screen compared with the measured mean effects of some units."""
        scores = self.scores[list(units)]
        if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(measured) == 0:
            return self
        r = float(np.corrcoef(scores, measured)[0, 1])
        return replace(self, r=r, slope=float(r * measured.std() / scores.std()))

    @property
    def trusted(self) -> bool:
        return self.r >= TRUSTED


def scores(
    checkpoint: Checkpoint,
    asked: EncodedPrompt,
    units: Sequence[Unit],
    metric: Metric,
    answer: Answer,
    *,
    steps: int = STEPS,
) -> Float[np.ndarray, "unit"]:
    """The change of `metric` that each unit's replacement is estimated to make to one question's answer.

    Over all units they sum up to what all do together, as nearly as `steps` can tell. Units must be edits that put in
    values which do not depend on the run, as Patch, Mean, Set and Initial do.

    Raises ValueError as `run` does, and for a metric without a gradient.
    """
    config, joint = checkpoint.config, together(units)
    activations = source_activations(checkpoint, replace(asked.spec, interventions=joint))
    first = min((pack.segment for pack in plan(config, asked, [joint], Route.EXACT, 1)), default=None)
    if first is None:
        return np.zeros(len(units))
    with checkpoint.lock, torch.no_grad():
        way = _Way(checkpoint, asked, joint, first, activations)
        with torch.enable_grad():
            moved = way.integrated(lambda logits, clean: _value(metric, answer, logits, clean), steps)
        return np.array([way.share(unit, moved) for unit in units])


class _Way:
    """From a document's own values to those that replace them, at every point that the units change."""

    def __init__(
        self, checkpoint: Checkpoint, asked: EncodedPrompt, joint: Unit, first: int, activations: SourceActivations
    ) -> None:
        self._model, self._asked, self._activations = checkpoint.model, asked, activations
        self._fresh = self._model.fresh_bank(1)
        segments = asked.segments[: asked.segment_of(asked.rows[-1]) + 1]
        self._before, self._segments = run_up_to(self._model, segments[:first], asked.spec), segments[first:]
        self._own: dict[_Point, Tensor] = {}
        functions = self._functions(joint)
        self._clean = self._logits({point: partial(self._keep, point) for point in functions})
        self._to = {point: _through(functions[point], value) for point, value in self._own.items()}
        self._there = self._places(joint)

    def integrated(self, value: Callable[[Tensor, Tensor], Tensor], steps: int) -> dict[_Point, Tensor]:
        """Difference times mean gradient of `value(logits, clean logits)`, at each point."""
        points = list(self._own)
        total = {point: torch.zeros_like(self._own[point]) for point in points}
        for at in range(steps):
            share = (at + 0.5) / steps
            leaves = {
                point: torch.lerp(self._own[point], self._to[point], share).detach().requires_grad_()
                for point in points
            }
            logits = self._logits({point: partial(_put, leaves[point], self._there[point]) for point in points})
            gradients = torch.autograd.grad(value(logits, self._clean), list(leaves.values()), allow_unused=True)
            for point, gradient in zip(points, gradients):
                total[point] += 0 if gradient is None else gradient / steps
        return {point: (self._to[point] - self._own[point]) * total[point] for point in points}

    def share(self, unit: Unit, moved: Mapping[_Point, Tensor]) -> float:
        """What one unit's places sum up to."""
        return sum(float((moved[point] * there).sum()) for point, there in self._places(unit).items() if point in moved)

    def _places(self, unit: Unit) -> dict[_Point, Bool[Tensor, "..."]]:
        """Where a unit changes something."""
        marked = tuple(replace(change, operation=Set(value=1.0)) for change in unit)
        return {
            point: _through(functions, torch.zeros_like(self._own[point])) > 0
            for point, functions in self._functions(marked).items()
            if point in self._own
        }

    def _functions(self, unit: Unit) -> dict[_Point, list[_Mover]]:
        """What a unit does at each point, in its order."""
        found: dict[_Point, list[_Mover]] = defaultdict(list)
        config = self._model.config
        for segment in self._segments:
            if any(isinstance(change, BankEdit) and change.reaches(segment) for change in unit):
                found[segment.index, _BANK].append(
                    lambda bank, segment=segment: of_memory(
                        bank_in(unit, config, segment, bank, self._fresh, self._activations)
                    )
                )
            for name, function in hooks(
                unit, config, segment, self._activations, write=segment is not self._segments[-1]
            ):
                found[segment.index, name].append(lambda value, function=function: function(value, HookPoint()))
        return found

    def _logits(self, movers: Mapping[_Point, _Mover]) -> Float[Tensor, "row d_vocab"]:
        """Those that predict the answer, when the value at each point is what its mover makes of it."""
        before, rows = self._before, []
        for segment in self._segments:
            here = {name: mover for (index, name), mover in movers.items() if index == segment.index}
            bank = here.pop(_BANK)(of_memory(before.bank)) if _BANK in here else before.bank
            write = segment is not self._segments[-1]
            with self._model.hooks(fwd_hooks=[(name, partial(_at_hook, mover)) for name, mover in here.items()]):
                begun = before._replace(bank=bank)
                _, output = next(run_segments(self._model, [segment], self._asked.spec, {}, begun, write=write))
            before = carried(self._model.config, output, segment.end)
            rows.append(
                output.unembed(
                    output.final[
                        0, [row - segment.start for row in self._asked.rows if segment.start <= row < segment.end]
                    ]
                )
            )
        return torch.cat(rows).float()

    def _keep(self, point: _Point, value: Tensor) -> Tensor:
        self._own[point] = value
        return value


def _at_hook(mover: _Mover, value: Tensor, hook: HookPoint) -> Tensor:
    return mover(value)


def _through(functions: Sequence[_Mover], value: Tensor) -> Tensor:
    for function in functions:
        value = function(value)
    return value


def _put(leaf: Tensor, there: Bool[Tensor, "..."], value: Tensor) -> Tensor:
    return leaf.where(there, value)


def _value(
    metric: Metric, answer: Answer, logits: Float[Tensor, "row d_vocab"], clean: Float[Tensor, "row d_vocab"]
) -> Float[Tensor, ""]:
    """`probes.stats.metrics.measure` with a gradient."""
    targets = torch.tensor(answer.before + answer.ids, device=logits.device)
    own = slice(-len(answer.ids), None)
    expected = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    match metric:
        case Metric.LOGIT_DIFFERENCE:
            return logits[own][0, answer.ids[0]] - logits[own][0, list(answer.foils)].mean()
        case Metric.LOG_PROBABILITY:
            return expected[own].sum()
        case Metric.KL:
            before, after = clean[own].log_softmax(-1), logits[own].log_softmax(-1)
            return (before.exp() * (before - after)).sum(-1).mean()
        case Metric.CROSS_ENTROPY:
            return -expected.mean()
        case Metric.EXACT:
            raise ValueError("an exact match has no gradient to screen by: let another metric come first")
