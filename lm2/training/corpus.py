"""The texts that the bundled tokenizer was trained on: bAbI stories and the training books of a data folder."""

from collections.abc import Iterator
from pathlib import Path

from lm2.files import read_text
from lm2.tasks.babi import Question
from lm2.tasks.babi_files import read


def texts(folder: Path) -> Iterator[str]:
    """Each line of each bAbI story and the whole story, then each book.

    `folder` holds babi/babi-v1.2-en-train.tar.xz and books/train/*.txt.xz. Raises ValueError where it does not.
    """
    books = sorted((folder / "books" / "train").glob("*.txt.xz"))
    if not books:
        raise ValueError(f"{folder} has no books: expected books/train/*.txt.xz")
    for story in read(folder / "babi" / "babi-v1.2-en-train.tar.xz"):
        lines = [
            f"{line.text} {line.answer.replace(',', ', ')}" if isinstance(line, Question) else line.text
            for line in story.lines
        ]
        yield from lines
        yield " ".join(lines)
    for book in books:
        yield read_text(book)
