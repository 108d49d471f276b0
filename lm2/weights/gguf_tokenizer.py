"""The tokenizer in the metadata of a GGUF file."""

from collections.abc import Mapping
from typing import Any

import gguf
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from lm2.shown import shown
from lm2.text.tokens import Tokenizer

_LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Llama 3's tokenizer cuts a text before it merges bytes."""


def entry(known: Mapping[str, Any], name: str, kind: type) -> list:
    found = known.get(f"tokenizer.ggml.{name}")
    if not isinstance(found, list):
        raise ValueError(f"its tokenizer lacks tokenizer.ggml.{name}")
    if not all(isinstance(value, kind) for value in found):
        raise ValueError(
            f"tokenizer.ggml.{name} must hold {'texts' if kind is str else 'whole numbers'} alone, not {shown(found)}"
        )
    return found


def gguf_tokenizer(known: Mapping[str, Any]) -> Tokenizer:
    """A byte-level BPE of the metadata's tokens and merges; control and user-defined tokens are met whole in a text."""
    if known.get("tokenizer.ggml.model") != "gpt2":
        raise ValueError(
            f"its tokenizer is of model {shown(known.get('tokenizer.ggml.model'))}; expected 'gpt2', a byte-level BPE"
        )
    tokens, kinds = entry(known, "tokens", str), entry(known, "token_type", int)
    merges = [tuple(merge.split(" ")) for merge in entry(known, "merges", str)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or len(kinds) != len(tokens):
        raise ValueError(
            f"its tokenizer has {len(tokens)} tokens, {len(vocabulary)} of them different, and {len(kinds)} types"
        )
    strange = [merge for merge in merges if len(merge) != 2 or not {*merge, "".join(merge)} <= vocabulary.keys()]
    if strange:
        raise ValueError(
            f"{len(strange)} merges of its tokenizer are not of two tokens into one, as {shown(' '.join(strange[0]))}"
        )
    whole_words, pre_tokenizer = _pre_tokenizer(known.get("tokenizer.ggml.pre"))
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole_words))
    backend.pre_tokenizer, backend.decoder = pre_tokenizer, decoders.ByteLevel()
    for kind, add in (
        (gguf.TokenType.CONTROL, backend.add_special_tokens),
        (gguf.TokenType.USER_DEFINED, backend.add_tokens),
    ):
        add([AddedToken(token, normalized=False) for token, own in zip(tokens, kinds, strict=True) if own == kind])
    return Tokenizer(backend)


def _pre_tokenizer(name: str | None) -> tuple[bool, pre_tokenizers.PreTokenizer]:
    """(Whether a piece that is a token stays whole against the merges; how a text is cut into pieces)."""
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "gpt-2":
        return False, words
    if name == "smollm":
        return False, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    if name in ("llama-bpe", "llama3", "llama-v3"):
        cut = pre_tokenizers.Split(Regex(_LLAMA_3_SPLIT), behavior="isolated")
        return True, pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    raise ValueError(f"its tokenizer cuts texts by the rule {shown(name)}; known are 'gpt-2', 'smollm' and 'llama-bpe'")
