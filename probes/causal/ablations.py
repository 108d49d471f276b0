"""Ablations that several studies make."""

from lm2.runs.donors import Patch
from lm2.runs.interventions import BankEdit
from lm2.tasks.encoded_prompt import EncodedPrompt


def donors_bank(donor: EncodedPrompt, encoded: EncodedPrompt, slots: tuple[int, ...] | None = None) -> BankEdit:
    """The question's segment begins with the bank (or slots of it) with which the donor's question begins."""
    return BankEdit(
        operation=Patch(text=donor.spec.text, segment=donor.segment), segments=(encoded.segment,), slots=slots
    )
