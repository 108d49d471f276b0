"""Sets of numbers as people type them: 0,3-5."""

import re


def numbers(text: str) -> tuple[int, ...]:
    """Numbers in order: (0, 3, 4, 5) for "0,3-5". Raises ValueError for any other form, and for ranges of more than
    100,000 numbers."""
    result: set[int] = set()
    for item in filter(None, map(str.strip, text.split(","))):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        count = int(match[2] or match[1]) - int(match[1]) + 1 if match else 0
        if not 0 < count <= 100_000:
            raise ValueError(f"numbers are written 0,3-5, not {text!r}")
        result |= set(range(int(match[1]), int(match[1]) + count))
    return tuple(sorted(result))
