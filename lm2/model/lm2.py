"""LM2: a segment and a bank in, logits and the next bank out."""

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
from lm2.model.stream import Cache, Stream, TokenRows, check_padding, with_memory_rows
from lm2.model.weights import Shapes, check_shapes, check_weight


@dataclass(frozen=True)
class SegmentOutput:
    """What a model computes from one segment."""

    final: Float[Tensor, "batch token d_model"]
    """The normed states that the unembedding reads."""
    bank: Float[Tensor, "batch slot slot_dim"] | None
    """The bank after the segment; None without memory, and with `write=False`."""
    cache: Cache
    unembed: Callable[[Float[Tensor, "... d_model"]], Float[Tensor, "... d_vocab"]]

    @cached_property
    def logits(self) -> Float[Tensor, "batch token d_vocab"]:
        """Computed on first use: with a large vocabulary they cost as much as the blocks."""
        return self.unembed(self.final)


class ReturnType(Enum):
    """What `forward` returns, as in TransformerLens."""

    LOGITS = "logits"
    LOSS = "loss"
    BOTH = "both"


class LM2(HookedModel):
    """A Llama decoder with a bank of memory slots; a pure function of ids and bank.

    `run_with_cache`, `run_with_hooks` and TransformerLens' analysis tools work on it. Its weights are on torch's
    current device (`with torch.device("meta"):`), and arbitrary before `initialise` or `load_weights`.
    """

    def __init__(self, config: LM2Config) -> None:
        super().__init__()
        self.config = config
        # The same draw as its own, which would import the compiler of torch, for 1.5 s.
        self.embed = nn.Embedding.from_pretrained(torch.randn(config.d_vocab, config.d_model), freeze=False)
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
        """A model with uninitialised weights, for `load_weights`."""
        with torch.device("meta"):
            model = cls(config)
        for module in model.modules():  # not by `to`, which swaps what fake tensors cannot
            for name, weight in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(torch.empty(weight.shape, dtype=dtype, device=device)))
        if config.tied_embeddings:
            model.unembed.weight = model.embed.weight
        return model

    @classmethod
    def shapes(cls, config: LM2Config, tensors: int) -> Shapes:
        """The shape of every weight by name, for a file with this many `tensors`. Raises ValueError for more blocks
        than tensors, which would take long to build."""
        if config.n_layers > tensors:
            raise ValueError(f"{config.n_layers:,} blocks cannot be in {tensors:,} tensors")
        with torch.device("meta"):
            return {name: tuple(weight.shape) for name, weight in cls(config).weights().items()}

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Fresh weights, drawn from `generator` alone.

        Embeddings have a standard deviation of `embedding_std`, matrices one of 1/sqrt(fan_in), a tenth of that where
        the memory adds to the stream. The forget gates' bias is `initial_forget_bias`.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and module is not self.unembed:
                scale = 0.1 if name.endswith(".mem.o") else 1.0
                module.weight.normal_(0.0, scale / math.sqrt(module.in_features), generator=generator)
                if module.bias is not None:
                    module.bias.fill_(self.config.initial_forget_bias if name.endswith(".mem.forget_gate") else 0.0)
        self.embed.weight.normal_(0.0, self.config.embedding_std, generator=generator)
        if not self.config.tied_embeddings:
            self.unembed.weight.normal_(0.0, 1 / math.sqrt(self.config.d_model), generator=generator)
        if hasattr(self, "bank_start"):
            self.bank_start.normal_(0.0, self.config.memory.design.bank_std(self.config), generator=generator)
        for block in self.blocks:
            block.mem.initialise(generator)

    def weights(self) -> dict[str, Tensor]:
        """Every weight by name, as in checkpoints: a tied unembedding is left out."""
        return {name: weight.detach() for name, weight in self.named_parameters()}

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy in every weight, rounded to the model's own format.

        Raises ValueError, and copies nothing, where a weight is missing, unexpected, of another shape, not in `FLOATS`
        or not finite.
        """
        own = dict(self.named_parameters())
        check_shapes(*({name: tuple(weight.shape) for name, weight in side.items()} for side in (own, weights)))
        for name, weight in weights.items():
            check_weight(name, weight, own[name].dtype)
        for name, weight in own.items():
            weight.copy_(weights[name])

    def fresh_bank(self, batch: int) -> Float[Tensor, "batch slot slot_dim"] | None:
        """The bank at the start of a document; None without memory."""
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
        """Run one segment: `begin`, `through` all blocks, and `finish`.

        Args:
            bank: the bank at the start of the segment; None for a fresh one.
            cache: earlier tokens that this segment may attend to.
            non_padding: False for padding, which must follow the real tokens of its row.
            write: False if the next bank is not needed: it is then None, and the sites of writing do not fire, except
                in RELEASE, whose blocks read what the block before wrote. The logits do not change.

        Raises ValueError for ids, a bank or a mask of the wrong shape, and for rows that begin with padding or have it
        between tokens; NotFiniteError where the stream or the bank has NaN or infinity.
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
        """The segment before block 0. Arguments and errors are those of `segment`."""
        if input_ids.ndim != 2:
            raise ValueError(f"input_ids must be [batch, token], not of shape {tuple(input_ids.shape)}")
        batch, tokens = input_ids.shape
        expected = (batch, self.config.slots, self.config.slot_dim)
        if bank is None:
            bank = self.fresh_bank(batch)
        elif tuple(bank.shape) != expected:
            raise ValueError(f"the bank must be [batch, slot, slot_dim] = {expected}, not {tuple(bank.shape)}")
        if non_padding is None:
            non_padding = torch.ones_like(input_ids, dtype=torch.bool)
        else:
            check_padding(non_padding, input_ids)
        first = torch.zeros_like(input_ids[:, 0]) if cache is None else cache.next_position
        positions = first[:, None] + torch.arange(tokens, device=input_ids.device)
        key_positions = torch.where(non_padding, positions, -1)
        if cache is not None:
            key_positions = torch.cat([cache.positions, key_positions], dim=1)
        rows, keys = TokenRows(positions, non_padding), key_positions
        resid = self.embed(input_ids)
        design = self.config.memory.design
        front, back = design.front_rows(self.config), design.back_rows(self.config) if write else 0
        if front or back:
            assert bank is not None, "rows of memory tokens are made from a bank"
            rows = with_memory_rows(rows, front, back, first)
            keys = torch.cat([torch.where(keys < 0, keys, keys + front), rows.positions[:, tokens:]], dim=1)
            resid = torch.cat([resid, *design.memory_rows(self, bank, write)], dim=1)
        resid = self.hook_embed(resid)
        # Padding sees padding, too: its outputs are not used, and its softmax stays finite.
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
            key_positions=key_positions,
            caches=(),
            write=write,
        )

    def through(self, stream: Stream, until: int | None = None) -> Stream:
        """The stream before block `until`; None for after the last block."""
        until = self.config.n_layers if until is None else until
        result = self._through(stream, until)
        self._check_finite((result.resid, result.bank), lambda: self._through(stream, until))
        return result

    def _through(self, stream: Stream, until: int) -> Stream:
        resid, bank, caches = stream.resid, stream.bank, list(stream.caches)
        for layer in range(stream.layer, until):
            resid, cache, bank = self.blocks[layer](
                resid,
                stream.angles,
                stream.visible,
                stream.before(layer),
                stream.bank_start,
                bank,
                stream.non_padding,
                stream.write,
            )
            caches.append(cache.first(stream.key_positions.shape[1]))
        return replace(stream, layer=until, resid=resid, bank=bank, caches=tuple(caches))

    def finish(self, stream: Stream) -> SegmentOutput:
        """The output of a stream after the last block."""
        output = self._finish(stream)
        self._check_finite((output.final, output.bank), lambda: self._finish(stream))
        return output

    def _finish(self, stream: Stream) -> SegmentOutput:
        final, bank = self.ln_final(stream.resid), None
        if stream.write and stream.bank is not None:
            bank = self.config.memory.design.bank_out(self, final, stream.bank).expand(len(final), -1, -1)
        before = 0 if stream.earlier is None else stream.earlier.next_position
        cache = Cache(stream.caches, stream.key_positions, before + stream.non_padding.sum(1)).repeated(len(final))
        return SegmentOutput(final[:, : stream.tokens], bank, cache, self.unembed)

    def forward(
        self,
        input_ids: Int[Tensor, "batch token"],
        bank: Float[Tensor, "batch slot slot_dim"] | None = None,
        *,
        return_type: ReturnType | str = ReturnType.LOGITS,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """One segment's logits, the mean next-token cross-entropy in nats, or both as (logits, loss)."""
        return_type = ReturnType(return_type)
        logits = self.segment(input_ids, bank).logits
        if return_type is ReturnType.LOGITS:
            return logits
        loss = nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), input_ids[:, 1:].flatten())
        return loss if return_type is ReturnType.LOSS else (logits, loss)

    def _check_finite(self, values: tuple[Tensor | None, ...], compute: Callable[[], object]) -> None:
        """Raise NotFiniteError, with the first place, unless all values that `compute` gave are finite."""
        if not all(value is None or is_finite(value) for value in values):
            raise NotFiniteError(f"the model computes NaN or infinity: first at {first_place(self, compute)}")

    @property
    def cfg(self) -> SimpleNamespace:
        """The config under TransformerLens' names, with the weights' device and dtype."""
        same = ("n_layers", "n_heads", "n_key_value_heads", "d_model", "d_head", "d_mlp", "d_vocab")
        return SimpleNamespace(
            **{name: getattr(self.config, name) for name in same},
            n_ctx=self.config.segment_length,
            attn_only=False,
            normalization_type="RMS",
            final_rms=True,
            use_attn_result=False,
            device=self.embed.weight.device,
            dtype=self.embed.weight.dtype,
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
        """Unembedding directions times the final norm's gain, so that attributions sum to the logit."""
        return self.unembed.weight[tokens] * self.ln_final.w

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, "d_model"]:
        """The sum of the biases that attention and MLP have added to the stream before block `layer`, or its MLP."""
        biases = [block.attn.b_O for block in self.blocks[: layer + bool(mlp_input)]]
        if include_mlp_biases:
            biases += [block.mlp.b_out for block in self.blocks[:layer]]
        return sum(biases, torch.zeros_like(self.ln_final.w))
