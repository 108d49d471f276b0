"""The choice of a linear probe: documents, sources, targets and the fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app.server import owner, sets
from app.ui import session, state, widgets
from lm2.tasks import stories
from lm2.tasks.sets.built_in import Babi, Simulated

if TYPE_CHECKING:
    from lm2.weights.checkpoint import Checkpoint
    from probes.features.examples import RowPosition
    from probes.probing.spec import ProbeSpec

SEPARATOR = "\n"
"""Between the names of sets, in which a comma may stand."""
_OFFERED = tuple(kind(task=task).name for kind in (Simulated, Babi) for task in stories.TASKS)
_MOMENTS = {
    "segment": "each segment's end", "statement": "each statement's end", "question": "the question's end",
    "token": "each token of statements",
}  # fmt: skip
_SOURCES = (
    "bank:mean", "bank:sketch256", "bank:slot*", "bank:read.*", "resid_post.*", "resid_mid.*", "attn_out.*",
    "mem_out.*", "mlp_out.*", "read.*",
    "read_pattern.*", "gate_out.*", "candidate.*:mean", "gate_in.*:mean", "gate_forget.*:mean", "embed",
)  # fmt: skip
"""Offered if the model has them; others can be typed."""
_NAMED_TARGETS = ("label *", "place of *", "previous place of *", "holder of *")
_TARGETS = ("answer", "fact told", "facts told", "question type", "segment", "distance", "token 0 back", "token 1 back")
_MOST_OFFERED = 64
_MOST_DOCUMENTS = 2000
"""What one job may read; the command line reads more."""
_PLACES = "place of *"
_STREAM, _BANK = "resid_post.*", "bank:mean, bank:sketch256"
_HELP = {
    "sets": (
        "Their contexts are the documents. A set that is chosen under Questions in the sidebar stands here, too; others"
        " can be added or typed."
    ),
    "count": "Of each set. Rows of one group are never split: a probe is tested on groups that it has not seen.",
    "moment": (
        "Where the rows are. At a segment's end the bank is the one passed on; elsewhere, it is the one"
        " with which the row's segment begins."
    ),
    "sources": (
        "Where the features come from. * stands for every block or slot. bank:sketchN is a random"
        " projection of all slots to N features."
    ),
    "targets": (
        "What to decode, known exactly from the story. * stands for every name. You can type anything"
        " that lm2 probe accepts."
    ),
    "baselines": (
        "What a source is compared with: the words of the segment, their embeddings, the position in the"
        " text; the same source in a model with random weights, or with a bank that is fresh in every"
        " segment."
    ),
    "strengths": (
        "C of a logistic probe, lambda of ridge, shrinkage of LDA; chosen for each target from training stories alone."
    ),
    "labels": (
        "Path of a CSV file with columns row, label and group, if the server's owner allows it. lm2 probe"
        " SPEC.json --rows FILE.csv writes the rows."
    ),
    "permutations": "For p: stories exchange their labels. 0 omits p.",
}


def choose(checkpoint: Checkpoint) -> None:
    """Show the widgets."""
    from probes.features.examples import RowPosition

    with st.container(border=True):
        names, count, seed = st.columns([6, 2, 2])
        widgets.texts("Question sets", "probes.sets", _OFFERED, separator=SEPARATOR, help=_HELP["sets"], at=names)
        widgets.number("Documents", "probes.count", help=_HELP["count"], at=count)
        widgets.number("Seed", "probes.seed", help="For folds, control labels and all other random draws.", at=seed)
        where, sources, targets = st.columns([3, 4, 4])
        moment = RowPosition(
            widgets.select("Rows at", "probes.moment", show=_MOMENTS.__getitem__, help=_HELP["moment"], at=where)
        )
        if not checkpoint.config.slots and state.current().probes.sources == _BANK:
            state.update("probes", sources=_STREAM)
        widgets.texts("Sources", "probes.sources", _sources(checkpoint, moment), help=_HELP["sources"], at=sources)
        offered = _targets(checkpoint)
        if state.current().probes.targets == _PLACES and _PLACES not in offered:  # the set says nothing about places
            state.update("probes", targets=offered[0])
        widgets.texts("Targets", "probes.targets", offered, help=_HELP["targets"], at=targets)
        _how()


def _how() -> None:
    """The fit, and what it is compared with."""
    from probes.estimators.probe import Family
    from probes.probing.spec import BASELINES

    family, baselines = st.columns([3, 8])
    forms = "Logistic is the one to report. Ridge, LDA and mass-mean have closed forms and are faster."
    widgets.select("Probe", "probes.family", [member.value for member in reversed(Family)], help=forms, at=family)
    widgets.texts("Baselines", "probes.baselines", BASELINES, help=_HELP["baselines"], at=baselines)
    # Not a popover: the browser gets its widgets only when it opens, and then reports empty values as choices.
    with st.expander("Folds, permutations, strengths, your own labels", icon=":material/tune:"):
        folds, permutations, strengths, labels = st.columns([1, 1, 2, 2])
        widgets.number("Folds", "probes.folds", help="Whole groups go into one fold.", at=folds)
        widgets.number("Permutations", "probes.permutations", help=_HELP["permutations"], at=permutations)
        widgets.text_input("Strengths", "probes.strengths", help=_HELP["strengths"], at=strengths)
        widgets.text_input("Your own labels", "probes.labels", help=_HELP["labels"], at=labels)


def _sources(checkpoint: Checkpoint, moment: RowPosition) -> list[str]:
    """The sources that the model has at rows of a kind: first patterns, then single sources."""
    from probes.features.source_names import expand

    patterns, single = [], []
    for pattern in _SOURCES:
        try:
            labels = [source.label for source in expand((pattern,), checkpoint.config, moment)]
        except ValueError:
            continue
        patterns.append(pattern)
        single += labels if len(labels) <= _MOST_OFFERED else []
    return [*patterns, *single]


def _targets(checkpoint: Checkpoint) -> list[str]:
    """First patterns, then single targets."""
    single = {
        pattern: [target for name in _names() for target in sets.targets(checkpoint, name, pattern)]
        for pattern in _NAMED_TARGETS
    }
    patterns = [pattern for pattern in _NAMED_TARGETS if single[pattern]]
    overwritten = ["slot * overwritten"] if checkpoint.config.slots else []
    return [*patterns, *_TARGETS, *overwritten, *(target for pattern in patterns for target in single[pattern])]


def spec(checkpoint: Checkpoint) -> ProbeSpec:
    """The chosen probe. Raises ValueError for choices that make no sense."""
    from probes.estimators.probe import Family
    from probes.features.documents import Documents
    from probes.features.examples import RowPosition
    from probes.probing.spec import ProbeSpec

    choice = state.current().probes
    names = tuple(map(sets.checked, _names()))
    most = {name: len(file.prompts) for name in names if (file := sets.file_read(name)) is not None}
    count = min([choice.count, *most.values()])
    documents = count * len(names)
    if documents > _MOST_DOCUMENTS:
        raise ValueError(
            f"{documents:,} documents in all are more than the {_MOST_DOCUMENTS:,} that one job may read here;"
            " `lm2 probe` reads more"
        )
    spec = ProbeSpec(
        checkpoint=checkpoint.name,
        documents=Documents(questions=names, count=count),
        moment=RowPosition(choice.moment), segment_length=session.segment_length(),
        sources=state.texts("probes.sources"), targets=state.texts("probes.targets"),
        baselines=state.texts("probes.baselines"), family=Family(choice.family), strengths=_strengths(),
        folds=choice.folds, permutations=choice.permutations, labels=choice.labels.strip(), seed=choice.seed,
    )  # fmt: skip
    for file in spec.files:
        owner.allowed_path(file)
    return spec


def _names() -> tuple[str, ...]:
    return state.texts("probes.sets", SEPARATOR)


def _strengths() -> tuple[float, ...]:
    try:
        return tuple(map(float, state.texts("probes.strengths")))
    except ValueError as error:
        text = state.current().probes.strengths
        raise ValueError(f"strengths are numbers with commas between, not {text!r}") from error
