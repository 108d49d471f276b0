"""Sets of numbers as people type them: 0,3-5."""


def numbers(text: str) -> tuple[int, ...]:
    """ "0,3-5" is (0, 3, 4, 5). Raises ValueError for anything that is not written so, and for more than 100,000
    numbers."""
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)) or int(last or first) - int(
            first
        ) not in range(100_000):
            raise ValueError(f"numbers are written 0,3-5, not {text!r}")
        found |= set(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))
