"""The text that the model reads, with what is known about it."""

from dataclasses import dataclass

from lm2.serialize import as_text
from lm2.tasks.babi import Question, Story, ask
from lm2.tasks.prompt import Prompt
from lm2.tasks.sets.files import sentences
from lm2.text.sequence import TokenSequence
from lm2.text.tokens import BREAK, Tokenizer

MAX_CHARACTERS = 400_000
"""The longest text that the workbench accepts, about 100,000 tokens."""


@dataclass(frozen=True, kw_only=True)
class Quiz:
    """A question in a text, and its true answer."""

    question: str
    end: int
    """Offset of the first character after the question, whose last token predicts the answer."""
    answer: str
    rivals: tuple[str, ...] = ()
    """Wrong answers that it stands against; empty where its set names none."""

    def answerable(self, tokens: TokenSequence, tokenizer: Tokenizer) -> bool:
        """Whether the tokenizer has tokens for the answer after this text."""
        try:
            tokenizer.answer_at(tokens, self.end, self.answer)
        except ValueError:
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class Context:
    """A text, its origin, and where in it there are facts and questions."""

    text: str
    origin: str
    marks: tuple[tuple[int, int, str], ...] = ()
    """Character ranges to underline, with a label for each."""
    quizzes: tuple[Quiz, ...] = ()
    statements: tuple[tuple[int, int], ...] = ()
    """Character ranges of the story's statements in order, or of all sentences in a text that is not a story."""


def of_question(story: Story, number: int, origin: str, *, own_segment: bool) -> Context:
    """One question of a story, asked alone after the statements above it."""
    return of_prompt(ask(story, story.questions[number], own_segment=own_segment), origin)


def of_prompt(prompt: Prompt, origin: str) -> Context:
    """A question after its context."""
    marks = [(*prompt.statement_spans[i], "supporting fact") for i in sorted(set(prompt.support))]
    quiz = Quiz(question=prompt.question, end=prompt.question_span[1], answer=prompt.answer, rivals=prompt.rivals)
    return Context(
        text=prompt.text,
        origin=origin,
        marks=(*marks, (*prompt.question_span, "question")),
        quizzes=(quiz,),
        statements=prompt.statement_spans,
    )


def of_story(story: Story, origin: str) -> Context:
    """A whole story, with each question followed by its answer."""
    text, marks, quizzes, statements = "", [], [], []
    for line in story.lines:
        text += " " if text else ""
        start = len(text)
        text += line.text
        if isinstance(line, Question):
            marks.append((start, len(text), "question"))
            quizzes.append(Quiz(question=line.text, end=len(text), answer=line.answer))
            text += f" {line.answer}"
        else:
            statements.append((start, len(text)))
    return Context(text=text, origin=origin, marks=tuple(marks), quizzes=tuple(quizzes), statements=tuple(statements))


def of_text(text: str, origin: str) -> Context:
    """A user's own text. Raises ValueError if it is empty, too long, or has a character that UTF-8 cannot encode."""
    as_text("The text", text)
    if not text.replace(BREAK, "").strip():
        raise ValueError("The text is empty. Paste some text, or choose a story.")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"The text has {len(text):,} characters; the workbench takes at most {MAX_CHARACTERS:,}. Cut it, or use"
            " `lm2 run`."
        )
    return Context(text=text, origin=origin, statements=sentences(text))
