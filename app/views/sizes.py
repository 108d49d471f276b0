"""Sizes of files in words."""


def size_in_words(size: int) -> str:
    """Bytes in decimal units: "1.2 MB"."""
    for unit, bytes_of_unit in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_of_unit:
            return f"{size / bytes_of_unit:,.1f} {unit}"
    return f"{size} bytes"
