"""Tokenizers in the metadata of GGUF files."""

from collections.abc import Mapping
from typing import Any

import gguf
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from lm2.serialize import as_bool
from lm2.shown import shown
from lm2.text.tokens import Tokenizer

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How the tokenizers of Llama 3 and Qwen2 split a text before they merge bytes; they differ in how many digits a piece
may have."""


def list_of(metadata: Mapping[str, Any], name: str, kind: type) -> list:
    """A list of the tokenizer. Raises ValueError where it is missing, or an entry is not of this type."""
    values = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, list):
        raise ValueError(f"its tokenizer lacks tokenizer.ggml.{name}")
    if not all(isinstance(value, kind) for value in values):
        raise ValueError(
            f"tokenizer.ggml.{name} must hold {'texts' if kind is str else 'whole numbers'} alone, not {shown(values)}"
        )
    return values


def gguf_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """A byte-level BPE of the metadata's tokens and merges. Control and user-defined tokens in a text are not split.

    Texts begin with the begin-of-text token as the metadata says; where it does not say, those of Llama 3 do.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise ValueError(f"tokenizer.ggml.model is {shown(model)}; expected 'gpt2', a byte-level BPE")
    tokens, kinds = list_of(metadata, "tokens", str), list_of(metadata, "token_type", int)
    merges = [tuple(merge.split(" ")) for merge in list_of(metadata, "merges", str)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or len(kinds) != len(tokens):
        raise ValueError(
            f"its tokenizer has {len(tokens)} tokens, {len(vocabulary)} of them different, and {len(kinds)} types"
        )
    invalid = [merge for merge in merges if len(merge) != 2 or not {*merge, "".join(merge)} <= vocabulary.keys()]
    if invalid:
        raise ValueError(
            f"{len(invalid)} merges of its tokenizer are not of two tokens into one, as {shown(' '.join(invalid[0]))}"
        )
    pre = metadata.get("tokenizer.ggml.pre")
    ignore_merges, pre_tokenizer = _pre_tokenizer(pre)
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges))
    backend.pre_tokenizer, backend.decoder = pre_tokenizer, decoders.ByteLevel()
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    added = {
        kind: [AddedToken(token, normalized=False) for token, its_kind in zip(tokens, kinds) if its_kind == kind]
        for kind in (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED)
    }
    backend.add_special_tokens(added[gguf.TokenType.CONTROL])
    backend.add_tokens(added[gguf.TokenType.USER_DEFINED])
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    if not isinstance(bos, int) or bos not in range(len(tokens)):
        return Tokenizer(backend)
    adds_bos = as_bool("tokenizer.ggml.add_bos_token", metadata.get("tokenizer.ggml.add_bos_token", ignore_merges))
    return Tokenizer(backend).with_bos(tokens[bos], added=adds_bos)


def _pre_tokenizer(name: str | None) -> tuple[bool, pre_tokenizers.PreTokenizer]:
    """(Whether a piece that is a token is kept whole whatever the merges say; how a text is split into pieces)."""
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "gpt-2":
        return False, words
    if name == "smollm":
        return False, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    if name in ("llama-bpe", "llama3", "llama-v3"):
        return True, _split(digits=3)
    if name == "qwen2":
        return False, _split(digits=1)
    raise ValueError(
        f"its tokenizer cuts texts by the rule {shown(name)} of tokenizer.ggml.pre; known are 'gpt-2', 'smollm',"
        " 'llama-bpe' and 'qwen2'"
    )


def _split(digits: int) -> pre_tokenizers.PreTokenizer:
    """By `_SPLIT`, with pieces of so many digits."""
    words = pre_tokenizers.Split(Regex(_SPLIT % digits), behavior="isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
