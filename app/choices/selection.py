"""What may be chosen: a part for the model, the text and the run, which all screens share, and one for each screen."""

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from app.choices.fields import SelectionField, TextForm, choice, choices
from app.choices.toggles import Toggles
from lm2.model.gates import GATES
from probes.experiments.registry import EXPERIMENTS

_ON, _TASKS, _SEEDS, _SIDES = ("on", "off"), range(1, 11), range(2**31), ("read", "wrote")
_METRICS = ("logit_difference", "log_probability", "kl", "cross_entropy", "exact")


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
class ModelChoice:
    """The model, and how it runs."""

    checkpoint: str = "babi-lm2-qa1"
    device: str = choice("auto", ("auto", "cpu", "cuda", "mps"))
    dtype: str = choice("float32", ("float32", "bfloat16"))
    length: int = choice(0, range(1_000_001))
    """Segment length in tokens; 0, the checkpoint's own."""


@dataclass(frozen=True, kw_only=True)
class TextChoice:
    """The text that the model reads."""

    source: TextSource = TextSource.STORY
    task: int = choice(1, _TASKS)
    index: int = choice(0, range(10_000))
    question: int = choice(-1, range(-1, 20))
    """Which question of the story; -1, the last."""
    asked: TextKind = TextKind.OWN_SEGMENT
    seed: int = choice(0, range(1_000_001))
    statements: int = choice(10, range(1, 61))
    pasted: str = choice("", link="text")
    uploaded: str = ""
    """The text of an uploaded file."""


@dataclass(frozen=True, kw_only=True)
class RunChoice:
    """Which place of the run is looked at."""

    layer: int = -1
    """Block; -1, the last that has a memory."""
    head: str = choice("mean", TextForm(r"mean|max|[0-9]{1,4}", "mean, max and the numbers of heads"))
    """A memory head's number, "mean" or "max"."""
    token: int | None = choice(None, _SEEDS)
    slot: int | None = choice(None, _SEEDS)
    side: str = choice("read", _SIDES)
    """Whether those that "read" or those that "wrote" the chosen slot are shown."""


@dataclass(frozen=True, kw_only=True)
class MemoryChoice:
    """How maps and text are coloured."""

    scale: str = choice("sqrt", ("linear", "sqrt"))
    coloured: str = choice("map", ("map", "slot"))
    """Whether the text's colours end where those of the map do, "map", or at the chosen slot's largest weight,
    "slot"."""


@dataclass(frozen=True, kw_only=True)
class GatesChoice:
    gate: str = choice("forget", tuple(GATES))


@dataclass(frozen=True, kw_only=True)
class BankChoice:
    segment: int = -1
    """-1, the last."""


@dataclass(frozen=True, kw_only=True)
class PrintChoice:
    """How figures are to be printed."""

    panel: str = choice("", link="printed")
    """The panel that is handed out; empty, the screen's first."""
    venue: str = choice("icml", ("icml", "neurips", "iclr", "acl", "aaai", "cvpr", "tmlr", "ieee"))
    columns: str = choice("single", ("single", "double"))
    """Columns of the venue's text that they span."""
    across: int = choice(2, range(1, 27))
    """Panels in a row of the figure that is being composed."""
    shared: str = choice("off", _ON)
    """Whether its maps have one colour scale: "on" or "off"."""


@dataclass(frozen=True, kw_only=True)
class AblationsChoice:
    toggling: str = choice("Memory", ("Memory", "Slots", "Heads and gates", "Statements"))
    """Which toggles are shown."""
    changed: str = choice(
        "Chosen token", ("Chosen token", "Most changed", "Along the text", "Runs", "Run it again"), link="ablated"
    )
    """Which part of what they have changed."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkChoice:
    results: str = ""
    """Folder of an evaluation; empty, the bundled one."""
    metric: str = choice("official", ("official", "exact"))
    task: str = choice("mean", TextForm(r"mean|qa[0-9]{1,2}", "mean, qa1, qa2 and so on"), link="shown")
    """Of the curves: "mean" over tasks, or "qa1" ..."""
    length: str = choice("0k", TextForm(r"[0-9]{1,5}k", "lengths such as 0k and 16k"), link="at")
    """Of the table of tasks."""
    pair: str = choice("", link="rival")
    """Two models whose difference is shown, as "A - B"; empty, the first two."""


@dataclass(frozen=True, kw_only=True)
class UpdatesChoice:
    written: int = choice(24, range(1, 65))
    """Tokens that the model writes behind the context."""
    writes: str = choice("on", _ON)
    """Whether the text shown was written with the bank updated, "on", or not, "off"."""
    frozen: int = -1
    """Segment from which on nothing is written where writes are off; -1, the context's last."""
    step: int = choice(1, range(1, 65))
    """Which of the tokens that the model wrote."""
    probe: ProbeText = ProbeText.QUESTION
    before: int = -1
    """Segments that have written to the first of two banks; -1, those before the context's last."""
    after: int = -1
    """Segments that have written to the second; -1, all."""


@dataclass(frozen=True, kw_only=True)
class QuestionsChoice:
    """The held-out questions of Experiments, Sweeps and Slots."""

    task: int = choice(1, _TASKS, link="exam_task")
    count: int = choice(64, range(2, 2_001), link="exam_questions")
    seed: int = choice(0, _SEEDS, link="exam_seed")


@dataclass(frozen=True, kw_only=True)
class ExperimentsChoice:
    experiment: str = choice("policies", EXPERIMENTS)


@dataclass(frozen=True, kw_only=True)
class SweepsChoice:
    grid: str = choice("slots", ("slots", "memory_heads", "attention_heads", "blocks", "gates"))
    """What the units are."""
    replacement: str = choice("resample", ("resample", "mean", "initial", "zero"))
    """What takes their place; gates are clamped instead."""
    back: tuple[int, ...] = choice((0,), range(16))
    """Segments in which they are replaced, counted back from the answer's own."""
    route: str = choice("exact", ("exact", "answer"))
    """Whether everything behind a unit is computed anew, "exact", or the "answer" alone."""
    ordered: str = choice("logit_difference", _METRICS)
    """Metric that puts units in order."""
    screened: int = choice(0, range(1_001))
    """Units for whose sake the others are only estimated; 0, all are measured."""
    metric: str = choice("", ("", *_METRICS), link="effect")
    """Metric that is shown; empty, the one that orders."""
    hidden: str = choice("on", _ON)
    """Whether cells that are not significant are hidden: "on" or "off"."""
    unit: int | None = choice(None, _SEEDS)
    """The unit whose documents are shown."""


@dataclass(frozen=True, kw_only=True)
class ProbesChoice:
    tasks: tuple[int, ...] = choice((1,), _TASKS, link="probe_tasks")
    """bAbI tasks whose documents are read by linear probes."""
    count: int = choice(200, range(1, 2_001), link="probe_count")
    """Documents of each."""
    origin: str = choice("simulated", ("simulated", "held out"), link="probe_origin")
    seed: int = choice(0, _SEEDS, link="probe_seed")
    """For stories, folds, control labels and whatever else is drawn."""
    moment: str = choice("segment", ("segment", "statement", "question", "token"), link="probe_moment")
    """Where in a document the rows are that are read."""
    sources: str = choice("bank:mean, bank:sketch256", link="probe_sources")
    """What is read, with commas between."""
    targets: str = choice("place of *", link="probe_targets")
    """What is read off it."""
    baselines: str = choice("tokens, embedding, position, untrained, reset", link="probe_baselines")
    family: str = choice("logistic", ("mass-mean", "LDA", "ridge", "logistic"), link="probe_family")
    folds: int = choice(5, range(2, 21), link="probe_folds")
    permutations: int = choice(999, range(100_000), link="probe_permutations")
    strengths: str = choice("0.001, 0.01, 0.1, 1", link="probe_strengths")
    labels: str = choice("", link="probe_labels")
    """A CSV file with labels of one's own; empty, there are none."""
    target: str = choice("", link="probe_target")
    """The target that is shown; empty, the first."""
    source: str = choice("", link="probe_source")
    """The source whose cell is open; empty, the first."""
    segment: int = choice(-1, link="probe_segment")
    """The segment of that cell; -1, all together."""


@dataclass(frozen=True, kw_only=True)
class DonorChoice:
    """The story that something is carried over from."""

    source: TextSource = choice(TextSource.STORY, link="donor_source")
    task: int = choice(0, range(11), link="donor_task")
    """0, the text's own."""
    index: int = choice(-1, range(-1, 1_000_001), link="donor_index")
    """Story or seed; -1, the first behind the text's with other answers."""
    question: int = choice(-1, range(-1, 20), link="donor_question")
    pasted: str = choice("", link="donor_text")


@dataclass(frozen=True, kw_only=True)
class PatchingChoice:
    part: Patched = choice(Patched.BANK, link="patched")
    slots: tuple[int, ...] = choice((), link="patched_slots")
    """None named, all."""
    layer: int = choice(-1, link="patched_layer")
    """-1, the last that has the site."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """One view of the workbench, with what is toggled in it."""

    model: ModelChoice = ModelChoice()
    text: TextChoice = TextChoice()
    run: RunChoice = RunChoice()
    memory: MemoryChoice = MemoryChoice()
    gates: GatesChoice = GatesChoice()
    bank: BankChoice = BankChoice()
    updates: UpdatesChoice = UpdatesChoice()
    toggles: Toggles = Toggles()
    ablations: AblationsChoice = AblationsChoice()
    donor: DonorChoice = DonorChoice()
    patching: PatchingChoice = PatchingChoice()
    probes: ProbesChoice = ProbesChoice()
    questions: QuestionsChoice = QuestionsChoice()
    experiments: ExperimentsChoice = ExperimentsChoice()
    sweeps: SweepsChoice = SweepsChoice()
    benchmark: BenchmarkChoice = BenchmarkChoice()
    print: PrintChoice = PrintChoice()

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Selection":
        """A selection by what differs from the defaults, under the names of links."""
        parts: dict[str, dict[str, Any]] = {}
        for link, value in values.items():
            parts.setdefault(LINKS[link].part, {})[LINKS[link].name] = value
        return cls(**{part.name: type(part.default)(**parts.get(part.name, {})) for part in fields(cls)})


CHOICES = {one.path: one for part in fields(Selection) for one in choices(part.name, type(part.default))}
"""All that can be chosen, by where it stands in the selection: "text.task"."""
LINKS: dict[str, SelectionField] = {one.link: one for one in CHOICES.values()}
"""The same, by the names in an address."""

DECIDED_BY = {
    "context": ("another text", ("text",)),
    "weights": ("another model", ("model.checkpoint",)),
    "donor": ("another donor", ("text", "donor")),
    "documents": ("other documents", ("probes.tasks", "probes.count", "probes.origin", "probes.seed")),
    "labels": ("other labels", ("probes.labels", "probes.targets")),
    "questions": ("other questions", ("questions.task", "questions.count")),
    "evaluation": ("another evaluation", ("benchmark.results",)),
}
"""What a link names by its digest, in words where it differs, and what chooses it here; others' files and folders may
hold something else."""
