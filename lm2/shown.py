"""How a value stands in an error's sentence."""

import reprlib


def shown(value: object) -> str:
    """A value on one line and short, whatever it is: the ends of a long text or number, the first entries of a long
    sequence."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
