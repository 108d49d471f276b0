"""How the question of a mixture is put to a model: plainly, or with instructions for pretrained models."""

from dataclasses import dataclass

from lm2.tasks.babilong import Mixture
from lm2.text.tokens import BREAK


def plain_prompt(mixture: Mixture) -> str:
    """Mixture and question, in a segment of its own: how models trained here are asked."""
    return f"{mixture.text}{BREAK}{mixture.question}"


def instructed_prompt(mixture: Mixture) -> str:
    """The five parts in which pretrained models are asked: instruction, examples, form of the answer, context,
    question.

    Raises ValueError for tasks other than qa1..qa10.
    """
    if mixture.task not in _INSTRUCTIONS:
        raise ValueError(f"there are instructions for qa1 to qa10, not for qa{mixture.task}")
    instruction = _INSTRUCTIONS[mixture.task]
    examples = "\n\n".join(
        f"<example>\n{facts}\nQuestion: {question}\nAnswer: {answer}\n</example>"
        for facts, question, answer in instruction.examples
    )
    return "\n\n".join(
        (
            f"{instruction.what} {_HIDDEN}",
            examples,
            instruction.form,
            f"<context>\n{mixture.text}\n</context>",
            f"Question: {mixture.question}",
        )
    )


@dataclass(frozen=True)
class _Instruction:
    what: str
    form: str
    examples: tuple[tuple[str, str, str], ...]


_HIDDEN = "The facts are scattered through a long text that has nothing to do with them. Rely on the facts alone."


_WORD = "Answer with one word and nothing else."


_INSTRUCTIONS = {
    1: _Instruction(
        "You will read facts about where people go, and say where one of them is. Only the last place counts.",
        "Answer with the name of the place and nothing else.",
        (
            (
                "Lucy went to the cellar. Tom moved to the porch. Lucy travelled to the attic.",
                "Where is Lucy?",
                "attic",
            ),
            ("Tom journeyed to the kitchen. Lucy went back to the porch.", "Where is Tom?", "kitchen"),
        ),
    ),
    2: _Instruction(
        "You will read facts about people who move and carry things, and say where a thing is. What is carried goes "
        "where its carrier goes; what is put down stays.",
        "Answer with the name of the place and nothing else.",
        (
            (
                "Lucy went to the cellar. Lucy got the lamp there. Lucy moved to the porch.",
                "Where is the lamp?",
                "porch",
            ),
            (
                "Tom picked up the coin there. Tom went to the attic. Tom dropped the coin. Tom went to the cellar.",
                "Where is the coin?",
                "attic",
            ),
        ),
    ),
    3: _Instruction(
        "You will read facts about people who move and carry things, and say where a thing was before it came to a "
        "given place. What is carried goes where its carrier goes; what is put down stays.",
        "Answer with the name of the place and nothing else.",
        (
            (
                "Lucy went to the cellar. Lucy took the lamp there. Lucy moved to the porch.",
                "Where was the lamp before the porch?",
                "cellar",
            ),
            (
                "Tom went to the attic. Tom got the coin there. Tom went to the porch. Tom went to the garden.",
                "Where was the coin before the garden?",
                "porch",
            ),
        ),
    ),
    4: _Instruction(
        "You will read facts about how places lie to one another, and say which place lies in a given direction.",
        _WORD,
        (
            (
                "The attic is north of the porch. The cellar is south of the porch.",
                "What is north of the porch?",
                "attic",
            ),
            ("The porch is east of the attic. The cellar is west of the attic.", "What is the porch east of?", "attic"),
        ),
    ),
    5: _Instruction(
        "You will read facts about people who hand things to one another, and say who gave, who received, or what was"
        " given.",
        _WORD,
        (
            ("Lucy gave the lamp to Tom.", "Who gave the lamp?", "Lucy"),
            ("Tom passed the coin to Lucy.", "Who received the coin?", "Lucy"),
            ("Tom handed the lamp to Lucy.", "What did Tom give to Lucy?", "lamp"),
        ),
    ),
    6: _Instruction(
        "You will read facts about where people go, and say whether one of them is in a given place. Only the last"
        " place counts.",
        "Answer yes or no and nothing else.",
        (
            ("Lucy went to the cellar. Lucy moved to the porch.", "Is Lucy in the cellar?", "no"),
            ("Tom went to the attic.", "Is Tom in the attic?", "yes"),
        ),
    ),
    7: _Instruction(
        "You will read facts about people who take, drop and give things, and say how many one of them carries.",
        "Answer with one number word (none, one, two, three) and nothing else.",
        (
            ("Lucy took the lamp there. Lucy got the coin there.", "How many objects is Lucy carrying?", "two"),
            ("Tom got the lamp there. Tom left the lamp.", "How many objects is Tom carrying?", "none"),
            ("Tom got the lamp there. Tom gave the lamp to Lucy.", "How many objects is Lucy carrying?", "one"),
        ),
    ),
    8: _Instruction(
        "You will read facts about people who take and drop things, and say what one of them carries.",
        "Answer with the things, separated by commas, or with nothing if there is none.",
        (
            ("Lucy took the lamp there. Lucy got the coin there.", "What is Lucy carrying?", "lamp,coin"),
            ("Tom got the lamp there. Tom left the lamp.", "What is Tom carrying?", "nothing"),
            ("Tom grabbed the coin there.", "What is Tom carrying?", "coin"),
        ),
    ),
    9: _Instruction(
        "You will read facts about where people are and are not, and say whether one of them is in a given place. Only"
        " the last fact about a person counts.",
        "Answer yes or no and nothing else.",
        (
            ("Lucy is in the cellar. Lucy is no longer in the cellar.", "Is Lucy in the cellar?", "no"),
            ("Tom went to the attic.", "Is Tom in the attic?", "yes"),
        ),
    ),
    10: _Instruction(
        "You will read facts about where people are or may be, and say whether one of them is in a given place.",
        "Answer yes, no or maybe and nothing else.",
        (
            ("Lucy is either in the cellar or the attic.", "Is Lucy in the attic?", "maybe"),
            ("Tom is in the porch.", "Is Tom in the porch?", "yes"),
            ("Tom moved to the attic.", "Is Tom in the cellar?", "no"),
        ),
    ),
}
