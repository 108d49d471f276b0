"""What a memory costs or gains on ordinary text: bits per byte of one book, model beside model on the same passages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lm2.intervals import bootstrap
from lm2.model.finite import of_model
from lm2.runs.likelihood import perplexity
from lm2.weights.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Bits per byte with a 95 % interval that resamples passages."""

    model: str
    passages: int
    bytes: int
    bits_per_byte: float
    low: float
    high: float
    token_perplexity: float
    """Comparable only between models of one tokenizer."""
    more: float
    """Bits per byte above the first model's on the same passages, with its interval; 0 for the first."""
    more_low: float
    more_high: float


def passages(text: str, count: int, characters: int) -> list[str]:
    """`count` stretches of `characters` each, evenly over the text, that begin with a line; the last may be shorter.

    Raises ValueError when the text is too short for that many.
    """
    if count < 2 or characters < 100 or len(text) < count * characters:
        raise ValueError(
            f"{len(text):,} characters do not hold {count} passages of {characters}; at least 2 passages of 100 are"
            " needed"
        )
    starts = [
        text.index("\n", at) + 1 if "\n" in text[at:] else at
        for at in range(0, len(text) - characters + 1, len(text) // count)
    ]
    return [text[start : start + characters] for start in starts[:count]]


def compare(
    checkpoints: Sequence[Checkpoint], texts: Sequence[str], *, on_text: Callable[[], None] | None = None
) -> list[Measured]:
    """Every model on every text, each begun with a fresh bank. The first model is what the others are measured
    against."""
    sizes = np.array([len(text.encode()) for text in texts], float)
    bits = np.zeros((len(checkpoints), len(texts)))
    nats, tokens = np.zeros(len(checkpoints)), np.zeros(len(checkpoints))
    for row, checkpoint in enumerate(checkpoints):
        for column, text in enumerate(texts):
            with of_model(checkpoint.name):
                read = perplexity(checkpoint, text)
            bits[row, column] = read.bits_per_byte * sizes[column]
            nats[row] += read.nats_per_token * read.tokens
            tokens[row] += read.tokens
            if on_text is not None:
                on_text()
    drawn = bootstrap(np.vstack([bits, sizes]).T, [str(at) for at in range(len(texts))], seed=0)
    rates = drawn[:, :-1] / drawn[:, -1:]
    more = rates - rates[:, :1]
    measured = []
    for row, checkpoint in enumerate(checkpoints):
        (low, high), (more_low, more_high) = (np.quantile(values[:, row], [0.025, 0.975]) for values in (rates, more))
        rate = float(bits[row].sum() / sizes.sum())
        measured.append(
            Measured(
                model=checkpoint.name,
                passages=len(texts),
                bytes=int(sizes.sum()),
                bits_per_byte=rate,
                low=float(low),
                high=float(high),
                token_perplexity=float(np.exp(nats[row] / tokens[row])),
                more=rate - float(bits[0].sum() / sizes.sum()),
                more_low=float(more_low),
                more_high=float(more_high),
            )
        )
    return measured
