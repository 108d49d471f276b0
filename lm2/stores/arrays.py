"""The arrays of a store on disk, in Zarr 3: made whole, and read with their checksums."""

from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from lm2.sealed import DamagedError
from lm2.stores.layout import ArrayPlan, StoreLayout


def create(path: Path, layout: StoreLayout) -> None:
    """Make the arrays of a store, without rows."""
    group = zarr.create_group(LocalStore(path), zarr_format=3)
    for plan in layout.arrays.values():
        group.create_array(
            plan.name,
            shape=plan.shape,
            shards=(plan.shard, *_whole(plan)),
            chunks=plan.chunk,
            dtype=_in_zarr(plan.dtype),
            compressors=[Crc32cCodec()],
            fill_value=0,
            attributes={"format": plan.dtype},
        )


def open_to_write(path: Path, layout: StoreLayout) -> dict[str, zarr.Array]:
    """The arrays of a store by name. Rows of zeros are written, too, so that a missing shard is known to be missing."""
    group = zarr.open_group(LocalStore(path), mode="r+", zarr_format=3)
    return {name: _array(group, name).with_config({"write_empty_chunks": True}) for name in layout.arrays}


def _array(group: zarr.Group, name: str) -> zarr.Array:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array


def encode(rows: np.ndarray, dtype: str) -> np.ndarray:
    """Rows as they are written. A bfloat16 is the upper half of a float32."""
    if dtype != "bfloat16":
        return rows.astype(dtype, copy=False)
    return (np.ascontiguousarray(rows, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def decode(rows: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers of rows as they were written."""
    return (rows.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else rows


def _in_zarr(dtype: str) -> str:
    return "uint16" if dtype == "bfloat16" else dtype


def _whole(plan: ArrayPlan) -> tuple[int, ...]:
    """The axes of a shard after the first. They are whole, in whole chunks."""
    return tuple(-(-size // chunk) * chunk for size, chunk in zip(plan.shape[1:], plan.chunk[1:]))


class Arrays:
    """Reads the arrays of a store."""

    def __init__(self, path: Path, layout: StoreLayout) -> None:
        self._path, self._plans = path, layout.arrays
        self._group = zarr.open_group(LocalStore(path, read_only=True), mode="r", zarr_format=3)

    def read(self, name: str, rows: slice, *others: slice | int) -> np.ndarray:
        """A part of an array. Raises DamagedError where a shard is missing or has changed."""
        plan = self._plans[name]
        zeros = ["0"] * (len(plan.shape) - 1)
        for shard in range(rows.start // plan.shard, -(-rows.stop // plan.shard)):
            file = self._path.joinpath(name, "c", str(shard), *zeros)
            if not file.is_file():  # it would be read as zeros
                raise DamagedError(f"{self._path} is damaged: {file.relative_to(self._path)} is missing")
        try:
            values = np.asarray(_array(self._group, name)[(rows, *others)])
        except (ValueError, KeyError, OSError) as error:
            raise DamagedError(f"{self._path} is damaged: {name} cannot be read: {error}") from error
        values = decode(values, plan.dtype)
        return values.astype(np.float32) if values.dtype == np.float16 else values
