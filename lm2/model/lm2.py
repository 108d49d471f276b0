"""LM2: the blocks, the stream, bank in -> logits and bank out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from types import SimpleNamespace
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lm2.model.block import Block
from lm2.model.config import LM2Config
from lm2.model.finite import NotFiniteError, Unembedding, first_place, is_finite
from lm2.model.hooks import HookedModel, HookPoint
from lm2.model.llama import RMSNorm, rotary_frequencies
from lm2.model.stream import Cache, Stream, TokenRows, with_memory_rows
from lm2.model.weights import Shapes, check_shapes, check_weight


@dataclass(frozen=True)
class SegmentOutput:
    """What a model makes of one segment."""

    final: Float[Tensor, "batch token d_model"]
    """The normed states that the unembedding reads."""
    bank: Float[Tensor, "batch slot slot_dim"] | None
    """The bank after the segment; None for a model without memory, and where nothing was to be written."""
    cache: Cache
    unembed: Callable[[Float[Tensor, "... d_model"]], Float[Tensor, "... d_vocab"]]

    @cached_property
    def logits(self) -> Float[Tensor, "batch token d_vocab"]:
        """Computed when first asked for: a vocabulary can cost as much as the blocks, and training needs few tokens'
        logits."""
        return self.unembed(self.final)


class ReturnType(Enum):
    """What `forward` returns, in TransformerLens' words."""

    LOGITS = "logits"
    LOSS = "loss"
    BOTH = "both"


def _padded_after(
    non_padding: Bool[Tensor, "batch token"], input_ids: Int[Tensor, "batch token"]
) -> Bool[Tensor, "batch token"]:
    """`non_padding` as it is. Raises ValueError unless it marks a token of every row, and none after padding."""
    if non_padding.shape != input_ids.shape or non_padding.dtype is not torch.bool:
        raise ValueError(
            f"non_padding must be true or false for each of {tuple(input_ids.shape)} tokens, not {non_padding.dtype}"
            f" of shape {tuple(non_padding.shape)}"
        )
    wrong = torch.cat([~non_padding[:, :1], non_padding[:, 1:] & ~non_padding[:, :-1]], dim=1)
    if wrong.any():
        row, token = wrong.nonzero()[0].tolist()
        what = f"token {token} is real after padding" if token else "its first token is padding"
        raise ValueError(f"row {row} must be real tokens, one at least, and then padding, but {what}")
    return non_padding


class LM2(HookedModel):
    """A Llama decoder with a bank of memory slots; a pure function of ids and bank.

    `run_with_cache`, `run_with_hooks` and TransformerLens' analysis tools work on it. It is built on the
    device and in the dtype that torch is told to (`with torch.device("meta"):`), with fresh weights only
    after `initialise`.
    """

    def __init__(self, config: LM2Config) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.d_vocab, config.d_model)
        blocks = nn.ModuleList([Block(config, layer) for layer in range(config.n_layers)])
        self.blocks = cast("Sequence[Block]", blocks)
        self.ln_final = RMSNorm(config.d_model, config.rms_norm_eps)
        self.unembed = Unembedding(config.d_model, config.d_vocab, bias=False)
        if config.tied_embeddings:
            self.unembed.weight = self.embed.weight
        if config.memory_layers and config.learned_bank:
            self.bank_start = nn.Parameter(torch.zeros(config.slots, config.slot_dim))
        self.hook_embed = HookPoint()
        self.setup()
        self.eval()

    @classmethod
    def empty(cls, config: LM2Config, device: torch.device, dtype: torch.dtype) -> "LM2":
        """A model whose weights are memory without meaning, to be filled by `load_weights`."""
        with torch.device("meta"):
            model = cls(config)
        for module in model.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(torch.empty(weight.shape, dtype=dtype, device=device)))
        if config.tied_embeddings:
            model.unembed.weight = model.embed.weight
        return model

    @classmethod
    def shapes(cls, config: LM2Config, tensors: int) -> Shapes:
        """The shape of every weight by name, for a model whose weights are in this many tensors.

        Raises ValueError for more blocks than that, before it takes the time that so many would.
        """
        if config.n_layers > tensors:
            raise ValueError(f"{config.n_layers:,} blocks cannot be in {tensors:,} tensors")
        with torch.device("meta"):
            return {name: tuple(weight.shape) for name, weight in cls(config).weights().items()}

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Fresh weights, drawn from `generator` alone.

        Embeddings normal(0, embedding_std); matrices normal(0, 1/fan_in), ten times quieter where the memory writes
        into the stream, so that reading starts as a whisper; the forget gate's bias at `forget_bias`.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and module is not self.unembed:
                scale = 0.1 if name.endswith(".mem.o") else 1.0
                module.weight.normal_(0.0, scale / math.sqrt(module.in_features), generator=generator)
                if module.bias is not None:
                    module.bias.fill_(self.config.forget_bias if name.endswith(".mem.forget_gate") else 0.0)
        self.embed.weight.normal_(0.0, self.config.embedding_std, generator=generator)
        if not self.config.tied_embeddings:
            self.unembed.weight.normal_(0.0, 1 / math.sqrt(self.config.d_model), generator=generator)
        if isinstance(getattr(self, "bank_start", None), nn.Parameter):
            self.bank_start.normal_(0.0, self.config.memory.design.bank_std(self.config), generator=generator)
        for block in self.blocks:
            block.mem.initialise(generator)

    def weights(self) -> dict[str, Tensor]:
        """Every weight once, by name (a tied unembedding is the embedding); what checkpoints hold."""
        return {name: weight.detach() for name, weight in self.named_parameters()}

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy in every weight, rounded to the model's own format.

        Raises ValueError naming what is missing, unexpected, of another shape, not in `FLOATS` or not finite; then
        nothing is copied.
        """
        own = dict(self.named_parameters())
        check_shapes(*({name: tuple(weight.shape) for name, weight in each.items()} for each in (own, weights)))
        for name, weight in weights.items():
            check_weight(name, weight, own[name].dtype)
        for name, weight in own.items():
            weight.copy_(weights[name])

    def fresh_bank(self, batch: int) -> Float[Tensor, "batch slot slot_dim"] | None:
        """The bank at the start of a document; None for a model without memory."""
        start = self.config.memory.design.first_bank(self)
        return None if start is None else start.expand(batch, -1, -1).clone()

    def segment(
        self,
        input_ids: Int[Tensor, "batch token"],
        bank: Float[Tensor, "batch slot slot_dim"] | None = None,
        *,
        cache: Cache | None = None,
        non_padding: Bool[Tensor, "batch token"] | None = None,
        write: bool = True,
    ) -> SegmentOutput:
        """Feed one segment: `begin`, `through` all blocks and `finish` in one.

        Args:
            bank: the bank as the segment begins; None, a fresh one.
            cache: earlier tokens that this segment may attend to; None, none.
            non_padding: False where a token is padding, which must follow the real tokens of its row.
            write: False where nobody will use the new bank: it is then None, nothing is spent on it, and the sites of
                writing do not fire (RELEASE writes all the same, for its blocks read what the block before wrote). The
                logits do not change.

        Raises ValueError for ids that are no matrix, for a bank of another shape than the config says, and for a row
        that does not begin with a real token or has padding between them; NotFiniteError where a stream or a bank is
        NaN or infinite.
        """
        return self.finish(self.through(self.begin(input_ids, bank, cache=cache, non_padding=non_padding, write=write)))

    def begin(
        self,
        input_ids: Int[Tensor, "batch token"],
        bank: Float[Tensor, "batch slot slot_dim"] | None = None,
        *,
        cache: Cache | None = None,
        non_padding: Bool[Tensor, "batch token"] | None = None,
        write: bool = True,
    ) -> Stream:
        """The segment as it enters block 0. Arguments and errors are those of `segment`."""
        if input_ids.ndim != 2:
            raise ValueError(f"input_ids must be [batch, token], not of shape {tuple(input_ids.shape)}")
        batch, tokens = input_ids.shape
        bank = self._checked(bank, batch)
        non_padding = (
            torch.ones_like(input_ids, dtype=torch.bool)
            if non_padding is None
            else _padded_after(non_padding, input_ids)
        )
        first = torch.zeros_like(input_ids[:, 0]) if cache is None else cache.next_position
        own = first[:, None] + torch.arange(tokens, device=input_ids.device)
        seen = torch.where(non_padding, own, -1)
        if cache is not None:
            seen = torch.cat([cache.positions, seen], dim=1)
        rows, keys = TokenRows(own, non_padding), seen
        resid = self.embed(input_ids)
        design = self.config.memory.design
        front, back = design.front_rows(self.config), design.back_rows(self.config) if write else 0
        if front or back:
            assert bank is not None, "rows of memory tokens are made from a bank"
            rows = with_memory_rows(rows, front, back, first)
            keys = torch.cat([torch.where(seen < 0, seen, seen + front), rows.positions[:, tokens:]], dim=1)
            resid = torch.cat([resid, *design.memory_rows(self, bank, write)], dim=1)
        resid = self.hook_embed(resid)
        # A padded query sees no real restriction it could break; letting it see itself keeps its softmax finite.
        visible = (keys[:, None, :] <= rows.positions[:, :, None]) & (
            (keys >= 0)[:, None, :] | ~rows.non_padding[:, :, None]
        )
        frequencies = rotary_frequencies(
            self.config.d_head, self.config.rope_theta, self.config.rope_scaling, first + non_padding.sum(1)
        )
        return Stream(
            layer=0,
            tokens=tokens,
            resid=resid,
            bank_start=bank,
            bank=bank,
            non_padding=non_padding,
            rows=rows,
            angles=rows.positions[..., None] * frequencies,
            visible=visible[:, None],
            earlier=cache,
            seen=seen,
            kept=(),
            write=write,
        )

    def through(self, stream: Stream, until: int | None = None) -> Stream:
        """The stream as it enters block `until`; None, after the last block. It goes on from the block that it enters
        next."""
        until = self.config.n_layers if until is None else until
        ahead = self._through(stream, until)
        self._check_finite((ahead.resid, ahead.bank), lambda: self._through(stream, until))
        return ahead

    def _through(self, stream: Stream, until: int) -> Stream:
        resid, bank, kept = stream.resid, stream.bank, list(stream.kept)
        for layer in range(stream.layer, until):
            resid, own, bank = self.blocks[layer](
                resid,
                stream.angles,
                stream.visible,
                stream.before(layer),
                stream.bank_start,
                bank,
                stream.non_padding,
                stream.write,
            )
            kept.append(own.first(stream.seen.shape[1]))
        return replace(stream, layer=until, resid=resid, bank=bank, kept=tuple(kept))

    def finish(self, stream: Stream) -> SegmentOutput:
        """What the stream after the last block comes to."""
        output = self._finish(stream)
        self._check_finite((output.final, output.bank), lambda: self._finish(stream))
        return output

    def _finish(self, stream: Stream) -> SegmentOutput:
        final = self.ln_final(stream.resid)
        if not stream.write or stream.bank is None:
            bank = None
        else:
            bank = self.config.memory.design.bank_out(self, final, stream.bank).expand(len(final), -1, -1)
        before = 0 if stream.earlier is None else stream.earlier.next_position
        cache = Cache(stream.kept, stream.seen, before + stream.non_padding.sum(1)).repeated(len(final))
        return SegmentOutput(final[:, : stream.tokens], bank, cache, self.unembed)

    def forward(
        self,
        input_ids: Int[Tensor, "batch token"],
        bank: Float[Tensor, "batch slot slot_dim"] | None = None,
        *,
        return_type: ReturnType | str = ReturnType.LOGITS,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """One segment's logits, the mean next-token cross-entropy in nats, or both as (logits, loss)."""
        wanted = ReturnType(return_type)
        logits = self.segment(input_ids, bank).logits
        if wanted is ReturnType.LOGITS:
            return logits
        loss = nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), input_ids[:, 1:].flatten())
        return loss if wanted is ReturnType.LOSS else (logits, loss)

    def _check_finite(self, values: tuple[Tensor | None, ...], compute: Callable[[], object]) -> None:
        """Raise NotFiniteError, with the first place, unless all `values` that `compute` has come to are finite."""
        if not all(value is None or is_finite(value) for value in values):
            raise NotFiniteError(f"the model computes NaN or infinity: first at {first_place(self, compute)}")

    def _checked(self, bank: Tensor | None, batch: int) -> Tensor | None:
        if bank is None:
            return self.fresh_bank(batch)
        wanted = (batch, self.config.slots, self.config.slot_dim)
        if tuple(bank.shape) != wanted:
            raise ValueError(f"the bank must be [batch, slot, slot_dim] = {wanted}, not {tuple(bank.shape)}")
        return bank

    @property
    def cfg(self) -> SimpleNamespace:
        """The config in TransformerLens' words; device and dtype are read off the weights, so never stale."""
        config, like = self.config, self.embed.weight
        return SimpleNamespace(
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            n_key_value_heads=config.n_key_value_heads,
            d_model=config.d_model,
            d_head=config.d_head,
            d_mlp=config.d_mlp,
            d_vocab=config.d_vocab,
            n_ctx=config.segment_length,
            attn_only=False,
            normalization_type="RMS",
            final_rms=True,
            use_attn_result=False,
            device=like.device,
            dtype=like.dtype,
        )

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        return self.embed.weight

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        return self.unembed.weight.T

    @property
    def b_U(self) -> Float[Tensor, "d_vocab"]:
        return torch.zeros_like(self.unembed.weight[:, 0])

    def tokens_to_residual_directions(self, tokens: int | Int[Tensor, "..."]) -> Float[Tensor, "... d_model"]:
        """Unembedding directions with the final norm's gain folded in, so that attributions sum to the logit."""
        return self.unembed.weight[tokens] * self.ln_final.w

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, "d_model"]:
        """What the biases of attention and MLP have added to the stream that enters block `layer`, or its MLP."""
        found = torch.zeros_like(self.ln_final.w)
        for at, block in enumerate(self.blocks[: layer + bool(mlp_input)]):
            found = found + block.attn.b_O
            if include_mlp_biases and at < layer:
                found = found + block.mlp.b_out
        return found
