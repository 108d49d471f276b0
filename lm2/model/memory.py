"""What a memory kind is: everything that the rest of the program asks of it, declared in the kind's own file."""

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
"""How a direction of the stream comes to the vocabulary, in words."""


class MemoryKind(Enum):
    """The arithmetic by which a model remembers.

    One line registers a kind: its name in files, and the module whose `DESIGN` says all else about it. That module is
    imported when it is first asked, for it needs torch.
    """

    NONE = ("none", "lm2.model.kinds.plain")
    """Plain Llama decoder: no bank."""
    GATED = ("gated", "lm2.model.kinds.gated")
    """LM2 as the paper's equations say: read by cross-attention; input, forget and output gates; causal."""
    RELEASE = ("release", "lm2.model.kinds.release")
    """The arithmetic of the released LM2 code, number for number."""
    TOKENS = ("tokens", "lm2.model.kinds.rmt")
    """RMT: memory tokens before and after the segment, through a plain decoder."""
    ARMT = ("armt", "lm2.model.kinds.armt")
    """ARMT: an associative matrix in each block, written by memory tokens behind the segment."""

    def __new__(cls, name: str, module: str) -> MemoryKind:
        member = object.__new__(cls)
        member._value_ = name
        return member

    def __init__(self, name: str, module: str) -> None:
        self.module = module

    @property
    def design(self) -> MemoryDesign:
        """What this kind declares."""
        return import_module(self.module).DESIGN


def of_memory(bank: _Bank | None) -> _Bank:
    """The bank of a model that is known to have a memory."""
    assert bank is not None, "only a model without memory has none"
    return bank


class Fill(NamedTuple):
    """A number that is put in place of some entries of a site's value."""

    site: AnySite
    number: float
    places: Mapping[int, Sequence[int]]
    """Along which axes of [batch, *axes] the entries are chosen, and which; along all others they all are."""


class MemoryDesign(ABC):
    """A memory kind. What is written here holds for a bank that is read and written in some blocks, causally.

    The answers are facts about the arithmetic; whoever asks decides what to do about them. Texts are for screens.
    """

    title: str
    """What a model of this kind has, in words that end no sentence."""
    sites: tuple[AnySite, ...]
    """The memory's own, beside those that every decoder has. They say much: it adds to the stream where MEM_OUT is one
    of them, has gates where these are, and writes by attention where WRITE_PATTERN is."""
    causal = True
    """Whether no token of a segment depends on a later one."""
    decodes_with_cache = True
    """Whether a segment can be read on token by token, with the keys and values of the tokens before."""
    batches = True
    """Whether documents whose segments meet in the bank alone can be read as rows of a batch, padded."""
    folds = True
    """Whether tokens of several documents that read one bank and write nothing can stand in one row, which only their
    attention has to keep apart."""
    reads_own_writes = False
    """Whether a block reads what the block before it has written; otherwise all read the bank as the segment began."""
    slots_are_tokens = False
    """Whether row j of the bank belongs to token j of the segment: the token reads rows 0..j, and rows behind the
    segment's last token stay as they are."""
    bank_in_stream = False
    """Whether slots are rows of the stream, which tokens read by self-attention; their states are final ones."""
    terms_by_slot = False
    """Whether what a block's memory adds to the stream is a sum over slots, with gates as they are: of the read
    pattern's weight times the slot's value, on a way out that is linear (`way_out`)."""
    begins_as_attention = False
    """Whether fresh weights can be set by what self-attention has learnt (`begin_as` of a block's memory)."""
    pattern_copies = 0
    """Arrays as large as the attention pattern that are there at once beside those of any decoder."""

    write_block_refused: str | None = None
    """Why the writing of single tokens cannot be blocked; None, it can (`unwritten`)."""
    no_write_pattern = "this memory has no write attention"
    """What to say where there is no WRITE_PATTERN."""
    no_gates = "a memory without gates"
    """What a model "has" where there is nothing for a screen of gates."""
    head_edit = (
        "A head's read is replaced at READ_V, the values that the slots offer to that head. This is before the output"
        " gate, which sees the change. The read pattern stays the same."
    )
    """How a memory head's read is replaced."""
    slot_way = (
        "Each slot goes through the block's value projection, output gate and W_O, the final norm and the output"
        " head, as if a token read it alone"
    )
    """How slots are read through the output head, in words (`slot_states`)."""
    rereading = ""
    """What to know of the weights of reading the same tokens from several banks."""

    own_sizes: type[Spec] | None = None
    """The class of `LM2Config.memory_sizes`; None, this kind has no sizes but those that all have."""

    @property
    def gates(self) -> Mapping[str, Gate]:
        """Its gates, by the names that links and figures have for them."""
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
        """Raise ValueError for sizes with which a document's first bank cannot be made."""
        if not config.learned_bank and config.slots > config.slot_dim:
            raise ValueError(f"an identity bank needs slots <= slot_dim, not {config.slots} > {config.slot_dim}")

    def sizes(self, config: LM2Config) -> dict[Axis, int]:
        """How long the axes of the memory's own sites are that no decoder has."""
        return {
            Axis.SLOT: config.slots,
            Axis.SLOT_DIM: config.slot_dim,
            Axis.HEAD: config.memory_heads,
            Axis.D_HEAD: config.d_model // max(1, config.memory_heads),
        }

    def full_length(self, config: LM2Config) -> int | None:
        """The length that every segment must have, or is padded to; None, any."""
        return None

    def front_rows(self, config: LM2Config) -> int:
        """Rows of the memory in the stream that stand before the segment's tokens."""
        return 0

    def back_rows(self, config: LM2Config) -> int:
        """Those that stand behind them where the segment writes."""
        return 0

    def memory_rows(self, model: LM2, bank: Tensor, write: bool) -> tuple[Float[Tensor, "batch row d_model"], ...]:
        """The front rows as a segment begins and, where it writes, the back rows."""
        raise NotImplementedError

    def first_bank(self, model: LM2) -> Float[Tensor, "slot slot_dim"] | None:
        """The bank at the start of a document; None where there is none."""
        config = model.config
        if config.learned_bank:
            return model.bank_start
        return model.embed.weight.new_zeros(config.slots, config.slot_dim).fill_diagonal_(1.0)

    def bank_std(self, config: LM2Config) -> float:
        """Standard deviation of a fresh learned bank."""
        return config.slot_dim**-0.5

    def bank_out(self, model: LM2, final: Float[Tensor, "batch row d_model"], bank: Tensor) -> Tensor:
        """The bank that a segment hands on. `final`: the normed states; `bank`: as the last block left it."""
        return bank

    def unread(self, config: LM2Config, layer: int, tokens: int, write: bool) -> Iterator[Fill]:
        """What turns off a block's reading, in a segment of `tokens` tokens that writes or does not."""
        yield Fill(Site.MEM_OUT, 0.0, {})

    def unwritten(self, config: LM2Config, layer: int, tokens: Sequence[int], all_of_them: bool) -> Iterator[Fill]:
        """What keeps `tokens` of a segment from writing in a block. `all_of_them`: the segment has no others."""
        raise NotImplementedError

    def slot_states(
        self, model: LM2, layer: int, slots: Float[Tensor, "slot slot_dim"]
    ) -> Float[Tensor, "slot d_model"]:
        """Slots as final states, each as if a token read it alone through block `layer`."""
        raise NotImplementedError

    def slot_directions(
        self, model: LM2, layer: int, directions: Float[Tensor, "direction slot_dim"]
    ) -> tuple[Float[Tensor, "direction d_model"], str]:
        """Directions of slots as directions of final states, without what depends on what else is there, and the way
        in words."""
        raise NotImplementedError

    def read_directions(
        self, model: LM2, layer: int, directions: Float[Tensor, "direction d_model"]
    ) -> tuple[Float[Tensor, "direction d_model"], str] | None:
        """The same for directions of READ; None where these have no way of their own to the stream."""
        return None

    def way_out(
        self, memory: BlockMemory, direction: Float[ndarray, "d_model"], gate: Float[ndarray, "d_model"] | None
    ) -> Float[ndarray, "d_model"]:
        """A direction of the stream as one of what is read. `gate`: the token's output gate, where there is one."""
        raise NotImplementedError

    def gates_warning(self, config: LM2Config) -> str | None:
        """What to know before looking at gates; None, nothing."""
        return None


def divides(whole_name: str, whole: int, part_name: str, part: int) -> None:
    """Raise ValueError unless `whole` divides among `part`."""
    if part < 1 or whole % part:
        raise ValueError(f"{whole_name} {whole} does not divide among {part_name} {part}")
