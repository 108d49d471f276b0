"""Tokenizers of the kinds that others' models bring, built here: toy vocabularies in the forms that real ones have."""

from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

WORDS = ("Mary", "John", "moved", "went", "to", "the", "garden", "office", "kitchen", "Where", "is")
_LETTERS = "abcdefghijklmnopqrstuvwxyzMJW"
_SENTENCES = ["Mary moved to the garden. John went to the office. Where is Mary? garden. Where is John? kitchen."] * 3


def bytes_alone() -> Tokenizer:
    """A byte-level BPE as ours is, with a prefix blank and added tokens, places trimmed, and a token in front of every
    text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(
        _SENTENCES, trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    )
    return made


def trimming() -> Tokenizer:
    """A byte-level BPE with a blank in front of texts, tokens around them, trimmed places, and added tokens that take
    the blanks beside them."""
    made = bytes_alone()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.add_special_tokens(["<s>", "</s>", AddedToken("<mask>", lstrip=True, rstrip=True)])
    made.add_tokens([AddedToken("Zoë", normalized=False)])
    around = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(mark, made.token_to_id(mark)) for mark in ("<s>", "</s>")]
    )
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), around])
    return made


_SPELL_BLANKS = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]


def unigram() -> Tokenizer:
    """SentencePiece's unigram model: words with a mark for the blank before them, bytes for what is unknown."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256)), ("▁", -3.0)]
    pieces += [
        *((f"▁{word}", -1.0) for word in WORDS),
        (".", -1.0),
        ("?", -1.0),
        *((letter, -8.0) for letter in _LETTERS),
    ]
    made = Tokenizer(models.Unigram(pieces, 0, byte_fallback=True))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Sequence(_SPELL_BLANKS)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


def merged() -> Tokenizer:
    """SentencePiece's BPE as Llama 2 has it: the blank is put in front of a text by a normalizer, bytes for what is
    unknown."""
    vocabulary: dict[str, int] = {}
    for piece in ("<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *_LETTERS, ".", "?"):
        vocabulary[piece] = len(vocabulary)
    merges = []
    for word in WORDS:
        for end in range(1, len(word) + 1):
            left, right = f"▁{word[: end - 1]}", word[end - 1]
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(_SPELL_BLANKS)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


def wordpiece() -> Tokenizer:
    """BERT's: lower case, blanks dropped, ## before what continues a word, [UNK] for words that are not in it."""
    vocabulary = {
        piece: at
        for at, piece in enumerate(
            ("[UNK]", "[CLS]", "[SEP]", ".", "?", "mov", "##ed", *(word.lower() for word in WORDS if word != "moved"))
        )
    }
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return made


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    one.__name__: one for one in (bytes_alone, trimming, unigram, merged, wordpiece)
}
