"""Screening: the effect of every unit of a grid estimated from a few gradients, to choose the units to measure.

Joint integrated gradients: all units move together from their own values to those that replace them, in a few steps
with one backward pass each. A unit's score is its difference times its mean gradient on the way (Sundararajan et al.
2017, arXiv 1703.01365; on activations, Hanna et al. 2024, arXiv 2403.17806). A gradient at the clean values alone
misses effects that a saturated read hides.
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
from lm2.runs.loop import run_segments, run_up_to
from lm2.runs.operations import Set
from lm2.runs.runner import source_activations
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.batch import Unit, joint_unit
from probes.causal.plan import Route, plan
from probes.stats.metrics import Answer, Metric

STEPS = 5
RANDOM = 32
"""Units drawn from the others and measured, to test the screen."""
TRUSTED = 0.8
"""The least correlation of scores with measured effects for a ranking."""

_BANK = "bank"
"""The bank that a segment begins with, in place of a hook point's name."""

_Point = tuple[int, str]
"""A segment, and the name of a hook point or `_BANK`."""

_Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Screening:
    """Scores of all units, and the units to measure."""

    scores: Float[np.ndarray, "unit"]
    """Means over documents, in the metric's unit."""
    top: tuple[int, ...]
    """Units with the largest absolute scores, largest first."""
    random: tuple[int, ...]
    """Units drawn from the others."""
    r: float
    """Pearson correlation of score and measured mean effect over these units; nan until they are measured, or if either
    is constant."""
    slope: float
    """Of the measured effect on the score: 1 if the scores also have the right size."""

    @classmethod
    def of(cls, scores: Float[np.ndarray, "unit"], k: int, seed: int) -> "Screening":
        """Measure the top 2k for the best k, and up to `RANDOM` of the others, drawn with `seed`."""
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
        """This screening, with its correlation to the measured mean effects of some units."""
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
    encoded: EncodedPrompt,
    units: Sequence[Unit],
    metric: Metric,
    answer: Answer,
    *,
    steps: int = STEPS,
) -> Float[np.ndarray, "unit"]:
    """The estimated change of `metric` in one question's answer when each unit is replaced.

    The scores of all units sum to their joint effect, up to the error of integrating in `steps`. Units must be edits
    whose values do not depend on the run: Patch, Mean, Set or Initial.

    Raises ValueError as `run` does, and for a metric without a gradient.
    """
    config, joint = checkpoint.config, joint_unit(units)
    activations = source_activations(checkpoint, replace(encoded.spec, interventions=joint))
    first = min((pack.segment for pack in plan(config, encoded, [joint], Route.EXACT, 1)), default=None)
    if first is None:
        return np.zeros(len(units))
    with checkpoint.lock, torch.no_grad():
        path = _Path(checkpoint, encoded, joint, first, activations)
        with torch.enable_grad():
            parts = path.integrated(metric, answer, steps)
        return np.array([path.score(unit, parts) for unit in units])


class _Path:
    """From a document's own values to those that replace them, at every point that the units change."""

    def __init__(
        self, checkpoint: Checkpoint, encoded: EncodedPrompt, joint: Unit, first: int, activations: SourceActivations
    ) -> None:
        self._model, self._encoded, self._activations = checkpoint.model, encoded, activations
        self._fresh = self._model.fresh_bank(1)
        segments = encoded.segments[: encoded.segment_of(encoded.rows[-1]) + 1]
        self._before, self._segments = run_up_to(self._model, segments[:first], encoded.spec), segments[first:]
        self._own: dict[_Point, Tensor] = {}
        changes = self._changes(joint)
        self._clean = self._logits({point: partial(self._keep, point) for point in changes})
        self._replaced = {point: changes[point](value) for point, value in self._own.items()}
        self._masks = self._places(joint)

    def integrated(self, metric: Metric, answer: Answer, steps: int) -> dict[_Point, Tensor]:
        """Difference times mean gradient of the metric, at each point."""
        total = {point: torch.zeros_like(value) for point, value in self._own.items()}
        for step in range(steps):
            leaves = {
                point: torch.lerp(value, self._replaced[point], (step + 0.5) / steps).detach().requires_grad_()
                for point, value in self._own.items()
            }
            logits = self._logits(
                {point: partial(torch.where, self._masks[point], leaf) for point, leaf in leaves.items()}
            )
            value = _value(metric, answer, logits, self._clean)
            gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            for point, gradient in zip(leaves, gradients):
                total[point] += 0 if gradient is None else gradient / steps
        return {point: (self._replaced[point] - value) * total[point] for point, value in self._own.items()}

    def score(self, unit: Unit, parts: Mapping[_Point, Tensor]) -> float:
        """The sum of `parts` over the places that one unit changes."""
        return sum(float((parts[point] * mask).sum()) for point, mask in self._places(unit).items())

    def _places(self, unit: Unit) -> dict[_Point, Bool[Tensor, "..."]]:
        """Where a unit changes something."""
        ones = tuple(replace(change, operation=Set(value=1.0)) for change in unit)
        return {
            point: change(torch.zeros_like(self._own[point])) > 0
            for point, change in self._changes(ones).items()
            if point in self._own
        }

    def _changes(self, unit: Unit) -> dict[_Point, _Change]:
        """What a unit does at each point."""
        functions: dict[_Point, list[_Change]] = defaultdict(list)
        config, activations = self._model.config, self._activations
        for segment in self._segments:
            if any(isinstance(change, BankEdit) and change.reaches(segment) for change in unit):
                functions[segment.index, _BANK].append(
                    lambda bank, segment=segment: of_memory(
                        bank_in(unit, config, segment, bank, self._fresh, activations)
                    )
                )
            for name, hook in hooks(unit, config, segment, activations, write=segment is not self._segments[-1]):
                functions[segment.index, name].append(lambda value, hook=hook: hook(value, HookPoint()))
        return {point: partial(_in_turn, chain) for point, chain in functions.items()}

    def _logits(self, changes: Mapping[_Point, _Change]) -> Float[Tensor, "row d_vocab"]:
        """Those that predict the answer, with a change at each point."""
        before, parts = self._before, []
        for segment in self._segments:
            here = {name: change for (index, name), change in changes.items() if index == segment.index}
            bank = here.pop(_BANK)(of_memory(before.bank)) if _BANK in here else before.bank
            write = segment is not self._segments[-1]
            fwd_hooks = [(name, lambda value, hook, change=change: change(value)) for name, change in here.items()]
            with self._model.hooks(fwd_hooks=[*fwd_hooks]):
                begun = before._replace(bank=bank)
                _, output, before = next(
                    run_segments(self._model, [segment], self._encoded.spec, {}, begun, write=write)
                )
            rows = [row - segment.start for row in self._encoded.rows if segment.start <= row < segment.end]
            parts.append(output.unembed(output.final[0, rows]))
        return torch.cat(parts).float()

    def _keep(self, point: _Point, value: Tensor) -> Tensor:
        self._own[point] = value
        return value


def _in_turn(functions: Sequence[_Change], value: Tensor) -> Tensor:
    for function in functions:
        value = function(value)
    return value


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
