"""What may be chosen: the fields of a view, with the values that a link may give them."""

from dataclasses import dataclass
from enum import Enum

from app.choices import links
from app.choices.toggles import Toggles


class TextSource(Enum):
    """Where the text comes from."""

    STORY = "story"
    SIMULATED = "simulated"
    PASTED = "text"
    FILE = "file"


class TextKind(Enum):
    """How a question of a story is put to the model."""

    OWN_SEGMENT = "own segment"
    SAME_TEXT = "same text"
    WHOLE_STORY = "whole story"


class Patched(Enum):
    """What is carried over from another story's run."""

    BANK = "bank"
    READ = "read"
    STREAM = "stream"


class ProbeText(Enum):
    """Which tokens are read again and again, from one bank after the other."""

    QUESTION = "question"
    SEGMENT = "segment"


@dataclass(frozen=True, kw_only=True)
class Selection(Toggles):
    """One view of the workbench, with what is toggled in it. Field names are the names in the URL."""

    checkpoint: str = "babi-lm2-qa1"
    device: str = "auto"
    dtype: str = "float32"
    length: int = 0
    """Segment length in tokens; 0, the checkpoint's own."""
    source: TextSource = TextSource.STORY
    task: int = 1
    index: int = 0
    question: int = -1
    """Which question of the story; -1, the last."""
    asked: TextKind = TextKind.OWN_SEGMENT
    seed: int = 0
    statements: int = 10
    text: str = ""
    """Pasted."""
    uploaded: str = ""
    """The text of an uploaded file."""
    layer: int = -1
    """Block; -1, the last that has a memory."""
    head: str = "mean"
    """A memory head's number, "mean" or "max"."""
    token: int | None = None
    slot: int | None = None
    scale: str = "sqrt"
    """Of the maps' colours: "linear" or "sqrt"."""
    side: str = "read"
    """Whether the text is coloured by who "read" or who "wrote" the chosen slot."""
    coloured: str = "map"
    """Whether the text's colours end where those of the map do, "map", or at the chosen slot's largest weight,
    "slot"."""
    gate: str = "forget"
    printed: str = ""
    """The panel that is handed out for print; empty, the screen's first."""
    venue: str = "icml"
    """Where figures are to be printed."""
    columns: str = "single"
    """Columns of its text that they span."""
    across: int = 2
    """Panels in a row of the figure that is being composed."""
    shared: str = "off"
    """Whether its maps have one colour scale: "on" or "off"."""
    toggling: str = "Memory"
    """Which of the Ablations screen's toggles are shown."""
    ablated: str = "Chosen token"
    """Which part of what they have changed."""
    segment: int = -1
    """-1, the last."""
    results: str = ""
    """Folder of an evaluation; empty, the bundled one."""
    metric: str = "official"
    shown: str = "mean"
    """Task of the benchmark's curves: "mean" over tasks, or "qa1" ..."""
    at: str = "0k"
    """Length of the benchmark's table of tasks."""
    rival: str = ""
    """Two models whose difference is shown, as "A - B"; empty, the first two."""
    written: int = 24
    """Tokens that the model writes behind the context."""
    writes: str = "on"
    """Whether the text shown was written with the bank updated, "on", or not, "off"."""
    frozen: int = -1
    """Segment from which on nothing is written where writes are off; -1, the context's last."""
    step: int = 1
    """Which of the tokens that the model wrote."""
    probe: ProbeText = ProbeText.QUESTION
    before: int = -1
    """Segments that have written to the first of two banks; -1, those before the context's last."""
    after: int = -1
    """Segments that have written to the second; -1, all."""
    experiment: str = "policies"
    exam_task: int = 1
    """Task of the held-out questions of Experiments and Sweeps."""
    exam_questions: int = 64
    exam_seed: int = 0
    grid: str = "slots"
    """What a sweep's units are."""
    replacement: str = "resample"
    """What takes their place; gates are clamped instead."""
    back: tuple[int, ...] = (0,)
    """Segments in which they are replaced, counted back from the answer's own."""
    route: str = "exact"
    """Whether everything behind a unit is computed anew, "exact", or the "answer" alone."""
    ordered: str = "logit_difference"
    """Metric that puts a sweep's units in order."""
    screened: int = 0
    """Units for whose sake the others are only estimated; 0, all are measured."""
    effect: str = ""
    """Metric that is shown; empty, the one that orders."""
    hidden: str = "on"
    """Whether cells that are not significant are hidden: "on" or "off"."""
    unit: int | None = None
    """The unit whose documents are shown."""
    probe_tasks: tuple[int, ...] = (1,)
    """bAbI tasks whose documents are read by linear probes."""
    probe_count: int = 200
    """Documents of each."""
    probe_origin: str = "simulated"
    probe_seed: int = 0
    """For stories, folds, control labels and whatever else is drawn."""
    probe_moment: str = "segment"
    """Where in a document the rows are that are read."""
    probe_sources: str = "bank:mean, bank:sketch256"
    """What is read, with commas between."""
    probe_targets: str = "place of *"
    """What is read off it."""
    probe_baselines: str = "tokens, embedding, position, untrained, reset"
    probe_family: str = "logistic"
    probe_folds: int = 5
    probe_permutations: int = 999
    probe_strengths: str = "0.001, 0.01, 0.1, 1"
    probe_labels: str = ""
    """A CSV file with labels of one's own; empty, there are none."""
    probe_target: str = ""
    """The target that is shown; empty, the first."""
    probe_source: str = ""
    """The source whose cell is open; empty, the first."""
    probe_segment: int = -1
    """The segment of that cell; -1, all together."""
    donor_source: TextSource = TextSource.STORY
    donor_task: int = 0
    """0, the context's."""
    donor_index: int = -1
    """Story or seed; -1, the first behind the context's with other answers."""
    donor_question: int = -1
    donor_text: str = ""
    patched: Patched = Patched.BANK
    patched_slots: tuple[int, ...] = ()
    """None named, all."""
    patched_layer: int = -1
    """-1, the last that has the site."""


_ON, _TASKS, _SEEDS = ("on", "off"), range(1, 11), range(2**31)
ALLOWED = {
    "device": ("auto", "cpu", "cuda", "mps"), "dtype": ("float32", "bfloat16"), "length": range(1_000_001),
    "task": _TASKS, "index": range(10_000), "question": range(-1, 20), "seed": range(1_000_001),
    "statements": range(1, 61),
    "head": links.TextForm(r"mean|max|[0-9]{1,4}", "mean, max and the numbers of heads"), "token": _SEEDS, "slot": _SEEDS,
    "scale": ("linear", "sqrt"), "side": ("read", "wrote"),
    "coloured": ("map", "slot"),
    "gate": ("in", "forget", "out"), "venue": ("icml", "neurips", "iclr", "acl", "aaai", "cvpr", "tmlr", "ieee"),
    "columns": ("single", "double"),
    "across": range(1, 27), "shared": _ON, "toggling": ("Memory", "Slots", "Heads and gates", "Statements"),
    "ablated": ("Chosen token", "Most changed", "Along the text", "Runs", "Run it again"),
    "metric": ("official", "exact"),
    "shown": links.TextForm(r"mean|qa[0-9]{1,2}", "mean, qa1, qa2 and so on"),
    "at": links.TextForm(r"[0-9]{1,5}k", "lengths such as 0k and 16k"), "written": range(1, 65), "writes": _ON,
    "step": range(1, 65),
    "experiment": (
        "policies", "gates", "swap", "permutation", "provenance", "decoding", "attribution", "forgetting", "capacity",
        "overwrites", "interference",
        "erasure", "slots",
    ),
    "exam_task": _TASKS, "exam_questions": range(2, 2_001), "exam_seed": _SEEDS,
    "grid": ("slots", "memory_heads", "attention_heads", "blocks", "gates"),
    "replacement": ("resample", "mean", "initial", "zero"),
    "back": range(16), "route": ("exact", "answer"),
    "ordered": ("logit_difference", "log_probability", "kl", "cross_entropy", "exact"),
    "screened": range(1_001), "effect": ("", "logit_difference", "log_probability", "kl", "cross_entropy", "exact"),
    "hidden": _ON, "unit": _SEEDS,
    "probe_tasks": _TASKS, "probe_count": range(1, 2_001), "probe_origin": ("simulated", "held out"),
    "probe_seed": _SEEDS,
    "probe_moment": ("segment", "statement", "question", "token"),
    "probe_family": ("mass-mean", "LDA", "ridge", "logistic"),
    "probe_folds": range(2, 21), "probe_permutations": range(100_000),
    "donor_task": range(11), "donor_index": range(-1, 1_000_001), "donor_question": range(-1, 20),
    "freeze_at": _SEEDS, "since": _SEEDS, "other": range(1, 10_000), "others": range(1, 17),
    **dict.fromkeys(
        ("input_gate", "forget_gate", "output_gate"),
        links.TextForm(r"|0|1|0?\.[0-9]{1,6}|[0-9.]{1,7}e-[0-9]{1,2}", "numbers from 0 to 1")
    ),
}  # fmt: skip
"""The values of fields that have a closed set. Other numbers are -1 to 2^31 - 1; other texts are free."""

_OF_TEXT = ("source", "task", "index", "question", "asked", "seed", "statements", "text", "uploaded")
DECIDED_BY = {
    "context": ("another text", _OF_TEXT), "weights": ("another model", ("checkpoint",)),
    "donor": ("another donor", (*_OF_TEXT, "donor_source", "donor_task", "donor_index", "donor_question",
        "donor_text")),
    "documents": ("other documents", ("probe_tasks", "probe_count", "probe_origin", "probe_seed")),
    "labels": ("other labels", ("probe_labels", "probe_targets")),
    "questions": ("other questions", ("exam_task", "exam_questions")),
    "evaluation": ("another evaluation", ("results",)),
}  # fmt: skip
"""What a link names by its digest, in words where it differs, and the fields that choose it here; others' files and
folders may hold something else."""
