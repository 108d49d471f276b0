"""Words with which a slot is read or written more than the other slots."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from probes.explain.passages import Passage
from probes.explain.spec import Signal

_GROUPS = 20
"""Parts into which the jackknife divides the stories."""
_CELLS = 2**22
"""Words times slots that are counted; words first met after this are left out."""
_PRIOR = 50.0
"""Prior: as many tokens, with the words of the whole corpus, are added to a slot and to the others. Rare words need as
much to stand out."""


@dataclass(frozen=True, kw_only=True)
class Keyword:
    """A word by the log-odds ratio of its share of a slot's mass to its share of the other slots' (Monroe, Colaresi and
    Quinn 2008)."""

    word: str
    share: float
    """Of the slot's mass."""
    elsewhere: float
    """Of the other slots' mass."""
    log_odds: float
    low: float
    high: float
    """95 % interval, from a jackknife over 20 parts of the stories; nan with a single story."""
    q: float
    """Two-sided, for all words and slots of the signal together (Benjamini and Hochberg 1995)."""
    again: float
    """The log-odds ratio in the other half of the stories, from which no word was chosen; nan if they lack the word."""


class Masses:
    """Each word's part in each slot's reading or writing, summed over passages."""

    def __init__(self, signal: Signal, slots: int) -> None:
        self._signal, self._most_words = signal, max(64, _CELLS // slots)
        self._parts: dict[str, int] = {}
        self._words: dict[str, int] = {}
        self._mass = np.zeros((_GROUPS, 64, slots))
        self._tokens = 0

    def add(self, passages: Sequence[Passage]) -> None:
        for passage in passages:
            if self._signal not in passage.values:
                continue
            part = self._parts.setdefault(passage.group, len(self._parts) % _GROUPS)
            self._tokens += len(passage.words)
            for word, row in zip(passage.words, passage.values[self._signal]):
                if len(self._words) < self._most_words:
                    self._words.setdefault(word, len(self._words))
                if len(self._words) > self._mass.shape[1]:
                    self._mass = np.concatenate([self._mass, np.zeros_like(self._mass)], axis=1)
                if word in self._words:
                    self._mass[part, self._words[word]] += row

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self._words)

    @property
    def parts(self) -> Float[np.ndarray, "part word slot"]:
        """Masses in tokens, over all slots 1 for each; parts without stories are left out."""
        mass = self._mass[: min(_GROUPS, len(self._parts)), : len(self._words)]
        return mass * (self._tokens / max(mass.sum(), 1e-30))

    @property
    def share(self) -> Float[np.ndarray, "slot"]:
        """Each slot's share of all mass."""
        return self.parts.sum((0, 1)) / max(1, self._tokens)


def keywords(shown: Masses, scored: Masses, count: int) -> tuple[tuple[Keyword, ...], ...]:
    """For each slot, at most `count` words of which it has more than the other slots.

    They are chosen on the stories shown and looked up on the others, and sorted by the lower ends of their intervals.
    """
    parts = shown.parts
    mass = parts.sum(0)
    odds = log_odds(mass)
    half, q = _jackknife(parts, odds)
    again = dict(zip(scored.words, log_odds(scored.parts.sum(0))))
    own, elsewhere = (m / np.maximum(m.sum(0), 1e-30) for m in (mass, mass.sum(1, keepdims=True) - mass))
    order = np.argsort(-np.where(np.isnan(half), odds, odds - half), axis=0, kind="stable")

    def keyword(i: int, slot: int) -> Keyword:
        centre, reach, word = float(odds[i, slot]), float(half[i, slot]), shown.words[i]
        return Keyword(
            word=word,
            share=float(own[i, slot]),
            elsewhere=float(elsewhere[i, slot]),
            log_odds=centre,
            low=centre - reach,
            high=centre + reach,
            q=float(q[i, slot]),
            again=float(again[word][slot]) if word in again else np.nan,
        )

    best = [[i for i in order[:, slot] if odds[i, slot] > 0][:count] for slot in range(mass.shape[1])]
    return tuple(tuple(keyword(i, slot) for i in indexes) for slot, indexes in enumerate(best))


def log_odds(mass: Float[np.ndarray, "word slot"]) -> Float[np.ndarray, "word slot"]:
    """Log of a word's odds in a slot's mass over its odds in the other slots', each with the prior added."""
    prior = _PRIOR * mass.sum(1, keepdims=True) / max(mass.sum(), 1e-30)
    own, others = mass + prior, mass.sum(1, keepdims=True) - mass + prior
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(own / (own.sum(0) - own)) - np.log(others / (others.sum(0) - others))


def _jackknife(
    parts: Float[np.ndarray, "part word slot"], odds: Float[np.ndarray, "word slot"]
) -> tuple[Float[np.ndarray, "word slot"], Float[np.ndarray, "word slot"]]:
    """Half the width of each 95 % interval, and q, from leaving out each part of the stories."""
    count = len(parts)
    if count < 2:
        return np.full_like(odds, np.nan), np.full_like(odds, np.nan)
    mass, total, squares = parts.sum(0), 0, 0
    for part in parts:
        moved = log_odds(mass - part) - odds
        total, squares = total + moved, squares + moved**2
    error = np.sqrt((count - 1) / count * np.maximum(0, squares - total**2 / count))
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(np.where(error > 0, odds / error, 0)), count - 1)
    return stats.t.ppf(0.975, count - 1) * error, stats.false_discovery_control(p.ravel()).reshape(p.shape)
