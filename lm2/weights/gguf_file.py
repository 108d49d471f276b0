"""GGUF files, read within limits, so that a broken one cannot take all time or memory."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from lm2.weights.weight_files import reason

MOST_ENTRIES = 2**22
"""Longest list in the metadata that is read; the largest vocabularies have a tenth of that."""


class _Reader(gguf.GGUFReader):
    """The library's reader, made to stop at the end of the file: it would go on and read as many empty entries as the
    file claims to have."""

    def _get(self, offset: int, dtype: npt.DTypeLike, count: int = 1, override_order: Any = None) -> npt.NDArray[Any]:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):
            raise ValueError(f"it ends at byte {len(self.data):,}, and what it says it holds at byte {end:,}")
        return super()._get(offset, dtype, count, override_order)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        if (
            raw_type == gguf.GGUFValueType.ARRAY
            and (entries := int(self._get(orig_offs + 4, np.uint64)[0])) > MOST_ENTRIES
        ):
            raise ValueError(f"a list in it has {entries:,} entries, expected at most {MOST_ENTRIES:,}")
        return super()._get_field_parts(orig_offs, raw_type)


def read_gguf_file(path: Path) -> tuple[dict[str, Any], list[gguf.ReaderTensor]]:
    """The metadata by name, and the tensors, which are mapped from the file.

    Raises ValueError with the path for a file that is broken, not in this format, or in the other byte order.
    """
    try:
        reader = _Reader(path)
        if reader.byte_order == "S":
            raise ValueError("its numbers are in the other byte order than this machine's")
        return {name: field.contents() for name, field in reader.fields.items()}, reader.tensors
    except (OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise ValueError(
            f"{path} is broken or no GGUF file ({path.stat().st_size:,} bytes): {reason(error)}"
        ) from error
