"""Logits as a run makes them: in memory, or, where a long text has many, in a file that no folder names."""

import tempfile

import numpy as np
from jaxtyping import Float

MOST_IN_MEMORY = 256 * 1024**2
"""Bytes of logits beyond which they are kept in a temporary file, from which pages are read as they are looked at."""


class GrowingLogits:
    """The rows of one run, put in order. What is given out at the end is read-only, the same numbers either way."""

    def __init__(self, tokens: int, d_vocab: int) -> None:
        """Raises OSError where the system's temporary folder (TMPDIR) cannot be written to."""
        self._shape, self._rows = (tokens, d_vocab), 0
        in_memory = 4 * tokens * d_vocab <= MOST_IN_MEMORY
        self._file = None if in_memory else tempfile.TemporaryFile(prefix="lm2-logits-")  # noqa: SIM115 - it goes with the array
        self._values = np.empty(self._shape if in_memory else 0, np.float32)

    def put(self, rows: Float[np.ndarray, "token d_vocab"]) -> None:
        """Take the next rows. Raises OSError where the disk is full."""
        if self._file is None:
            self._values[self._rows : self._rows + len(rows)] = rows
        else:
            self._file.write(rows.tobytes())  # a map that is written to would end the process on a full disk
        self._rows += len(rows)

    def whole(self) -> Float[np.ndarray, "token d_vocab"]:
        """All rows, once each has been put. A file goes when the array does."""
        if self._file is not None:
            with self._file:
                self._file.flush()
                self._values = np.memmap(self._file, np.float32, "r", shape=self._shape)
        self._values.setflags(write=False)
        return self._values
