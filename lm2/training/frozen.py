"""What the blocks before the first trained one compute of a segment: always the same, and so computed once."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lm2.model.lm2 import LM2
from lm2.model.stream import Stream
from lm2.text.segments import Segment


class FrozenBlocks:
    """The blocks before the first one that training changes, for segments that only the bank connects.

    The stream that leaves them is kept in a temporary file. It is computed for each segment alone: in a batch, its last
    bits would depend on the segments beside it, and an interrupted training could not go on with the same numbers.
    """

    def __init__(self, model: LM2, folder: Path) -> None:
        """`folder`: for the file, which has no name and goes with this object."""
        self._model, self._folder = model, folder
        self.count = _before_first_trained(model)
        """How many blocks."""
        self._places: dict[tuple[int, ...], int] = {}

    @cached_property
    def _file(self) -> IO[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=self._folder)

    def through(self, stream: Stream, segments: Sequence[Segment]) -> Stream:
        """The stream of a batch of `segments` before the first trained block. It is without the keys and values of
        earlier blocks, which no later segment looks back on."""
        if not self.count:
            return stream
        rows = [self._resid(segment.ids, stream, row) for row, segment in enumerate(segments)]
        resid = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(stream.resid)
        return replace(stream, layer=self.count, resid=resid)

    def _resid(self, ids: tuple[int, ...], stream: Stream, row: int) -> Float[Tensor, "token d_model"]:
        if ids not in self._places:
            with torch.no_grad():
                resid = self._model.through(stream.alone(row), self.count).resid[0]
            self._places[ids] = self._file.seek(0, 2)
            self._file.write(resid.float().cpu().numpy().tobytes())
        self._file.seek(self._places[ids])
        d_model = self._model.config.d_model
        values = np.frombuffer(bytearray(self._file.read(4 * len(ids) * d_model)), np.float32)
        return torch.from_numpy(values.reshape(len(ids), d_model))


def _before_first_trained(model: LM2) -> int:
    config = model.config
    design = config.memory.design
    if model.embed.weight.requires_grad or design.front_rows(config) or design.back_rows(config):
        return 0  # rows of memory tokens come from the bank
    trained = [
        number
        for number, block in enumerate(model.blocks)
        if number in config.memory_layers or any(weight.requires_grad for weight in block.parameters())
    ]
    return min(trained, default=0)
