"""The working memory of a run, estimated before it runs."""

from collections.abc import Sequence

from lm2.model.config import LM2Config
from lm2.text.segments import Segment

WORKING_BYTES = 8 * 1024**3
"""The default limit for one segment; the workbench allows visitors less."""
_COPIES = 3
"""Arrays as large as the attention pattern in memory at once: scores, masked scores, pattern."""
_WIDE = 8
"""Arrays as wide as the stream in memory at once."""


class TooLargeError(ValueError):
    """A run would need more memory than allowed."""


def working_bytes(config: LM2Config, segment: Segment) -> int:
    """About how many bytes reading a segment takes at its peak, without the weights: attention, memory, MLP and logits,
    in float32."""
    design = config.memory.design
    rows = len(segment.ids) + design.front_rows(config) + design.back_rows(config)
    keys = rows + (segment.start if config.lookback is None else min(segment.start, config.lookback))
    patterns = _COPIES + design.pattern_copies
    attention = rows * keys * (patterns * config.n_heads + 1)  # and the mask
    memory = _COPIES * rows * config.slots * config.memory_heads
    wide = rows * (_WIDE * max(config.d_model, config.n_heads * config.d_head) + _COPIES * config.d_mlp)
    return 4 * (attention + memory + wide + len(segment.ids) * config.d_vocab)


def check_working(config: LM2Config, segments: Sequence[Segment], limit: int) -> None:
    """Raises TooLargeError for a segment that would take more than `limit` bytes."""
    largest = max(segments, key=lambda segment: working_bytes(config, segment), default=None)
    if largest is not None and (needed := working_bytes(config, largest)) > limit:
        before = largest.start if config.lookback is None else min(largest.start, config.lookback)
        raise TooLargeError(
            f"a segment of {len(largest.ids):,} tokens that looks back on {before:,} would take about {needed:,} bytes"
            f" of working memory, more than the {limit:,} allowed: choose shorter segments, or a shorter text"
        )


def side_by_side(config: LM2Config, segments: Sequence[Segment], limit: int, most: int) -> int:
    """How many documents of such segments fit in a batch within `limit` bytes, between 1 and `most`."""
    largest = max((working_bytes(config, segment) for segment in segments), default=1)
    return max(1, min(most, limit // largest))


def check_repeated(config: LM2Config, segment: Segment, times: int, limit: int) -> None:
    """Raises TooLargeError if reading a segment `times` times would take more than 4 x `limit` bytes in all."""
    work = times * working_bytes(config, segment)
    if work > 4 * limit:
        raise TooLargeError(
            f"a segment of {len(segment.ids):,} tokens would be read {times:,} times, with about {work:,} bytes of"
            f" working memory in all, more than the {4 * limit:,} allowed: choose shorter segments, or fewer tokens to"
            " write"
        )
