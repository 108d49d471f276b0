"""A question put to a checkpoint, its answer after it: which tokens are facts, question and answer, and in which
segments."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from lm2.runs.runner import prepare
from lm2.runs.spec import RunSpec
from lm2.shown import shown
from lm2.tasks.prompt import Prompt
from lm2.text.segments import Segment
from lm2.text.sequence import TokenSequence
from lm2.text.tokens import BREAK
from lm2.weights.checkpoint import Checkpoint


class NoTokenError(ValueError):
    """A prompt cannot be put to a checkpoint: its tokenizer has no token for a part of it."""


@dataclass(frozen=True, kw_only=True)
class EncodedPrompt:
    """A prompt with its answer after it, as one checkpoint reads it. Places are those of tokens in the document."""

    prompt: Prompt
    spec: RunSpec
    """The run of prompt and answer."""
    tokens: TokenSequence
    segments: tuple[Segment, ...]
    statements: tuple[range, ...]
    """Each statement's tokens."""
    question: range
    answer: range
    """The tokens that hold a character of the answer, and all after them."""
    rivals: tuple[int, ...] = ()
    """The first token of each rival that is given, in the answer's place."""

    @property
    def segment(self) -> int:
        """The segment in which the question begins."""
        return self.segment_of(self.question.start)

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of the logits that predict the answer: each token's is the one before it."""
        return tuple(place - 1 for place in self.answer)

    @property
    def answer_ids(self) -> tuple[int, ...]:
        return tuple(self.tokens.ids[place] for place in self.answer)

    @property
    def facts(self) -> tuple[range, ...]:
        """The tokens of the statements that justify the answer, in the file's order."""
        return tuple(self.statements[index] for index in self.prompt.support)

    @property
    def distance(self) -> int | None:
        """Segments between the question and the end of its last supporting fact; None where the file names no fact."""
        return self.segment - self.segment_of(max(fact[-1] for fact in self.facts)) if self.facts else None

    def segment_of(self, place: int) -> int:
        """The segment that a token is in."""
        return self.segments[bisect_right(self.segments, place, key=lambda segment: segment.end)].index


def encode_prompt(checkpoint: Checkpoint, prompt: Prompt, segment_length: int | None = None) -> EncodedPrompt:
    """Lay out a prompt and its answer, parted by a blank, as `run` will feed them.

    Raises ValueError as `run` does, and NoTokenError for a statement, a question or an answer for which the tokenizer
    has no token (of an answer, none but that for whatever is unknown).
    """
    answer = f" {prompt.answer}"
    spec = RunSpec(checkpoint=checkpoint.name, text=prompt.text + answer, segment_length=segment_length)
    tokens, segments = prepare(checkpoint, spec)
    place = tokens.first_after(len(prompt.text))
    if place == len(tokens) or not checkpoint.tokenizer.knows(tokens, len(prompt.text)):
        raise NoTokenError(f"the tokenizer has no token for the answer {prompt.answer!r}, or not for all of it")
    return EncodedPrompt(
        prompt=prompt,
        spec=spec,
        tokens=tokens,
        segments=segments,
        statements=tuple(_tokens(tokens, span) for span in prompt.statement_spans),
        question=_tokens(tokens, prompt.question_span),
        answer=range(place, len(tokens)),
        rivals=tuple(_first_token(checkpoint, prompt, rival) for rival in prompt.rivals),
    )


def _first_token(checkpoint: Checkpoint, prompt: Prompt, answer: str) -> int:
    before = prompt.text.rpartition(BREAK)[2]  # no token crosses the start of a segment
    tokens = checkpoint.tokenizer.encode(f"{before} {answer}")
    place = tokens.first_after(len(before))
    if place == len(tokens) or not checkpoint.tokenizer.knows(tokens, len(before)):
        raise NoTokenError(f"the tokenizer has no token for the rival {answer!r}, or not for all of it")
    return tokens.ids[place]


def encode_prompts(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], segment_length: int | None = None
) -> tuple[list[EncodedPrompt], list[str]]:
    """The prompts as the checkpoint reads them, and of each that it cannot be asked, which it is and why.

    Raises ValueError as `run` does, and where none can be asked.
    """
    encoded, skipped = [], []
    for number, prompt in enumerate(prompts, start=1):
        try:
            encoded.append(encode_prompt(checkpoint, prompt, segment_length))
        except NoTokenError as error:
            skipped.append(f"question {number} ({shown(prompt.question)}): {error}")
    if not encoded:
        raise ValueError(f"{checkpoint.name} can be asked none of {len(prompts)} questions; {skipped[0]}")
    return encoded, skipped


def _tokens(tokens: TokenSequence, span: tuple[int, int]) -> range:
    places = tokens.within(*span)
    if not places:
        raise NoTokenError(f"the tokenizer has no token for {tokens.text[slice(*span)]!r}")
    return range(places[0], places[-1] + 1)
