"""Memory kinds: the registry, and what each kind declares in its own file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from lm2.model.gates import GATES, Gate
from lm2.model.sites import AnySite, Axis, Site
from lm2.serialize import Spec
from lm2.shown import shown

if TYPE_CHECKING:
    from jaxtyping import Float
    from numpy import ndarray
    from torch import Tensor

    from lm2.model.block import BlockMemory
    from lm2.model.config import LM2Config
    from lm2.model.lm2 import LM2


_Bank = TypeVar("_Bank")

OUTPUT = "the final norm's gain and the unembedding"
"""The path from the stream to the vocabulary, in words."""


class MemoryKind(Enum):
    """How a model remembers.

    A kind is registered by one line: its name in files, and the module that has its `DESIGN`, imported on first use
    because it needs torch.
    """

    NONE = ("none", "lm2.model.kinds.plain")
    """Plain Llama decoder: no bank."""
    GATED = ("gated", "lm2.model.kinds.gated")
    """LM2 by the paper's equations: read by cross-attention; input, forget and output gates; causal."""
    RELEASE = ("release", "lm2.model.kinds.release")
    """The arithmetic of the released LM2 code, number for number."""
    TOKENS = ("tokens", "lm2.model.kinds.rmt")
    """RMT: memory tokens before and after the segment, through a plain decoder."""
    ARMT = ("armt", "lm2.model.kinds.armt")
    """ARMT: an associative matrix in each block, written by memory tokens after the segment."""

    def __new__(cls, name: str, module: str) -> MemoryKind:
        member = object.__new__(cls)
        member._value_ = name
        return member

    def __init__(self, name: str, module: str) -> None:
        self.module = module

    @property
    def design(self) -> MemoryDesign:
        return import_module(self.module).DESIGN


def of_memory(bank: _Bank | None) -> _Bank:
    """A bank that is not None, as the model has a memory."""
    assert bank is not None, "only a model without memory has none"
    return bank


class Fill(NamedTuple):
    """A number that replaces entries of a site's value."""

    site: AnySite
    number: float
    places: Mapping[int, Sequence[int]]
    """The entries by axis of [batch, *axes]; along other axes, all."""


class MemoryDesign(ABC):
    """What a memory kind declares. The defaults are for a bank that some blocks read and write, causally.

    Flags are facts about the arithmetic; callers decide what follows from them. Texts are for screens and errors.
    """

    title: str
    """What a model of this kind has, as part of a sentence."""
    sites: tuple[AnySite, ...]
    """The memory's own sites. With MEM_OUT it adds to the stream, and with WRITE_PATTERN it writes by attention."""
    causal = True
    """Whether no token of a segment depends on a later one."""
    decodes_with_cache = True
    """Whether a segment can be continued token by token, with a cache of keys and values."""
    batches = True
    """Whether documents whose segments share nothing but the bank can be padded into a batch."""
    folds = True
    """Whether several documents that read one bank and do not write can be in one row, kept apart by an attention
    mask alone."""
    reads_own_writes = False
    """Whether a block reads what the block before it has written, and not the bank at the start of the segment."""
    slots_are_tokens = False
    """Whether row j of the bank belongs to token j of the segment, which reads rows 0..j. Rows after the last token
    keep the old bank."""
    bank_in_stream = False
    """Whether slots are rows of the stream that tokens read by self-attention."""
    read_weights: tuple[str, ...] = ()
    """The weights of a block's memory with which its read pattern follows from READ_Q and the bank at the start of the
    segment (`BlockMemory.read_pattern`); none where it does not follow from these."""
    terms_by_slot = False
    """Whether a block's memory adds a sum over slots to the stream: the weight in the read pattern times the slot's
    value, on a path that is linear if the gates are fixed (`pull_back`)."""
    begins_as_attention = False
    """Whether a block's memory can be initialised from self-attention, by its `begin_as`."""
    starts_keeping = False
    """Whether `LM2Config.start_keeps` sets what its forget gates keep at the start of training."""
    pattern_copies = 0
    """Extra arrays as large as the attention pattern that are in memory at once."""

    write_block_refused: str | None = None
    """Why the writing of single tokens cannot be blocked; None if it can (`without_writing`)."""
    no_write_pattern = "this memory has no write attention"
    """What to say where there is no WRITE_PATTERN."""
    no_gates = "a memory without gates"
    """What a model has instead of gates, on the screen of gates."""
    head_edit = (
        "A head's read is replaced at READ_V, the values that the slots offer to that head. This is before the output"
        " gate, which sees the change. The read pattern stays the same."
    )
    """How a memory head's read is replaced."""
    slot_path = (
        "Each slot goes through the block's value projection, output gate and W_O, the final norm and the output"
        " head, as if a token read it alone"
    )
    """How slots are read through the output head (`slot_states`)."""
    rereading = ""
    """A caution about read weights of the same tokens with several banks."""

    own_sizes: type[Spec] | None = None
    """The class of `LM2Config.memory_sizes`; None if this kind needs none."""

    @property
    def gates(self) -> Mapping[str, Gate]:
        """Its gates by the names that links and figures use."""
        return {name: gate for name, gate in GATES.items() if gate.site in self.sites}

    @abstractmethod
    def block(self, config: LM2Config, layer: int) -> BlockMemory:
        """The memory of one block."""

    def check(self, config: LM2Config) -> None:
        """Raise ValueError, with the numbers, for sizes that cannot be built."""
        for name in ("slots", "slot_dim", "memory_heads"):
            if getattr(config, name) < 1:
                raise ValueError(
                    f"memory kind {config.memory.value!r} needs {name} of at least 1, not {getattr(config, name)}"
                )
        layers = config.memory_layers
        outside = [layer for layer in layers if not 0 <= layer < config.n_layers]
        if outside or len(set(layers)) != len(layers) or not layers:
            raise ValueError(f"memory_layers must be distinct blocks of 0..{config.n_layers - 1}, not {shown(layers)}")
        divides("d_model", config.d_model, "memory_heads", config.memory_heads)
        divides("slot_dim", config.slot_dim, "memory_heads", config.memory_heads)
        self.check_start(config)
        if config.read_top_k is not None and not 1 <= config.read_top_k <= config.slots:
            raise ValueError(f"read_top_k must be within 1..{config.slots} (slots), not {config.read_top_k}")

    def check_start(self, config: LM2Config) -> None:
        """Raise ValueError for sizes that do not allow a first bank."""
        if not config.learned_bank and config.slots > config.slot_dim:
            raise ValueError(f"an identity bank needs slots <= slot_dim, not {config.slots} > {config.slot_dim}")

    def sizes(self, config: LM2Config) -> dict[Axis, int]:
        """Lengths of the axes of the memory's own sites."""
        return {
            Axis.SLOT: config.slots,
            Axis.SLOT_DIM: config.slot_dim,
            Axis.HEAD: config.memory_heads,
            Axis.D_HEAD: config.d_model // max(1, config.memory_heads),
        }

    def silence(self, model: LM2) -> None:  # noqa: B027 - most kinds cannot be silent
        """Make a fresh memory add nothing to the stream until it is trained, where that is possible."""

    def full_length(self, config: LM2Config) -> int | None:
        """The length that every segment is padded to; None for no padding."""
        return None

    def front_rows(self, config: LM2Config) -> int:
        """Rows of the stream that the memory puts before the segment's tokens."""
        return 0

    def back_rows(self, config: LM2Config) -> int:
        """Rows of the stream that it puts after them in a segment that writes."""
        return 0

    def memory_rows(self, model: LM2, bank: Tensor, write: bool) -> tuple[Float[Tensor, "batch row d_model"], ...]:
        """The front rows and, in a segment that writes, the back rows, before block 0."""
        raise NotImplementedError

    def first_bank(self, model: LM2) -> Float[Tensor, "slot slot_dim"] | None:
        """The bank at the start of a document; None without memory."""
        config = model.config
        if config.learned_bank:
            return model.bank_start
        return model.embed.weight.new_zeros(config.slots, config.slot_dim).fill_diagonal_(1.0)

    def bank_std(self, config: LM2Config) -> float:
        """Standard deviation of a fresh learned bank."""
        return config.slot_dim**-0.5

    def bank_out(self, model: LM2, final: Float[Tensor, "batch row d_model"], bank: Tensor) -> Tensor:
        """The bank after a segment, from the normed final states and the bank after the last block."""
        return bank

    def without_reading(self, config: LM2Config, layer: int, tokens: int, write: bool) -> Iterator[Fill]:
        """What turns off a block's reading in a segment of `tokens` tokens."""
        yield Fill(Site.MEM_OUT, 0.0, {})

    def without_writing(self, config: LM2Config, layer: int, tokens: Sequence[int], all_tokens: bool) -> Iterator[Fill]:
        """What keeps `tokens` of a segment from writing in a block. `all_tokens`: the segment has no others."""
        raise NotImplementedError

    def slot_states(
        self, model: LM2, layer: int, slots: Float[Tensor, "slot slot_dim"]
    ) -> Float[Tensor, "slot d_model"]:
        """Slots as final states, each as if a token read it alone through block `layer`."""
        raise NotImplementedError

    def slot_directions(
        self, model: LM2, layer: int, directions: Float[Tensor, "direction slot_dim"]
    ) -> tuple[Float[Tensor, "direction d_model"], str]:
        """Directions of slots as directions of final states, by the linear part of the path between them, and that path
        in words."""
        raise NotImplementedError

    def read_directions(
        self, model: LM2, layer: int, directions: Float[Tensor, "direction d_model"]
    ) -> tuple[Float[Tensor, "direction d_model"], str] | None:
        """The same for directions of READ; None for a memory without such a path."""
        return None

    def pull_back(
        self, memory: BlockMemory, direction: Float[ndarray, "d_model"], gate: Float[ndarray, "d_model"] | None
    ) -> Float[ndarray, "d_model"]:
        """The gradient, with respect to what a token reads, of the stream's component along `direction`; `gate` is the
        token's output gate."""
        raise NotImplementedError

    def gates_warning(self, config: LM2Config) -> str | None:
        """A caution for readers of its gates."""
        return None


def divides(total_name: str, total: int, count_name: str, count: int) -> None:
    """Raise ValueError unless `total` is a multiple of `count`."""
    if count < 1 or total % count:
        raise ValueError(f"{total_name} {total} does not divide among {count_name} {count}")
