"""The selection: parts for the model, the text and the run, which all screens share, and a part for each screen."""

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from app.choices.fields import SelectionField, TextForm, choice, choices
from app.choices.long import LongChoice
from app.choices.steering import SteeringChoice
from app.choices.toggles import Toggles
from lm2.model.gates import GATES
from probes.experiments.registry import EXPERIMENTS
from probes.stats.metrics import Metric

_ON, _TASKS, _SEEDS, _SIDES = ("on", "off"), range(1, 11), range(2**31), ("read", "wrote")
_METRICS = tuple(metric.value for metric in Metric)


class TextSource(Enum):
    """Where the text comes from."""

    STORY = "story"
    SIMULATED = "simulated"
    QUESTION = "question"
    """An item of the chosen question set."""
    PASTED = "text"
    FILE = "file"


class TextKind(Enum):
    """How a story's question is asked."""

    OWN_SEGMENT = "own segment"
    SAME_TEXT = "same text"
    WHOLE_STORY = "whole story"


class Patched(Enum):
    """What is copied from another story's run."""

    BANK = "bank"
    READ = "read"
    STREAM = "stream"


class ProbeText(Enum):
    """Which tokens are run against each bank in turn."""

    QUESTION = "question"
    SEGMENT = "segment"


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """The model, and how it runs."""

    checkpoint: str = "babi-lm2-qa1"
    device: str = choice("auto", ("auto", "cpu", "cuda", "mps"))
    dtype: str = choice("float32", ("float32", "bfloat16", "float16"))
    length: int = choice(0, range(1_000_001))
    """Segment length in tokens; 0, the checkpoint's."""
    bos: str = choice("auto", ("auto", *_ON))
    """Whether texts begin with the begin-of-text token: "auto", as the tokenizer has it."""


@dataclass(frozen=True, kw_only=True)
class TextChoice:
    """The text that the model reads."""

    source: TextSource = TextSource.STORY
    task: int = choice(1, _TASKS)
    index: int = choice(0, range(10_000))
    question: int = choice(-1, range(-1, 20))
    """Index of the question; -1, the last."""
    asked: TextKind = TextKind.OWN_SEGMENT
    seed: int = choice(0, range(1_000_001))
    statements: int = choice(10, range(1, 61))
    item: int = choice(0, range(1_000_000))
    """Of the chosen question set, counted from 0."""
    pasted: str = choice("", link="text")
    uploaded: str = ""
    """The text of an uploaded file."""


@dataclass(frozen=True, kw_only=True)
class RunChoice:
    """The block, head, token and slot that are shown."""

    layer: int = -1
    """Block; -1, the last that has a memory."""
    head: str = choice("mean", TextForm(r"mean|max|[0-9]{1,4}", "mean, max and the numbers of heads"))
    """A memory head's number, "mean" or "max"."""
    token: int | None = choice(None, _SEEDS)
    slot: int | None = choice(None, _SEEDS)
    side: str = choice("read", _SIDES)
    """Whether tokens are coloured by how much they "read" or "wrote" the slot."""


@dataclass(frozen=True, kw_only=True)
class MemoryChoice:
    """How maps and text are coloured."""

    scale: str = choice("sqrt", ("linear", "sqrt"))
    coloured: str = choice("map", ("map", "slot"))
    """Upper end of the text's colours: that of the "map", or the largest weight of the "slot"."""


@dataclass(frozen=True, kw_only=True)
class GatesChoice:
    gate: str = choice("forget", tuple(GATES))


@dataclass(frozen=True, kw_only=True)
class BankChoice:
    segment: int = -1
    """-1, the last."""


@dataclass(frozen=True, kw_only=True)
class PrintChoice:
    """How figures are printed."""

    panel: str = choice("", link="printed")
    """The panel to export; empty, the screen's first."""
    venue: str = choice("icml", ("icml", "neurips", "iclr", "acl", "aaai", "cvpr", "tmlr", "ieee"))
    columns: str = choice("single", ("single", "double"))
    """Width, in columns of the venue's text."""
    across: int = choice(2, range(1, 27))
    """Panels in a row of a composed figure."""
    shared: str = choice("off", _ON)
    """Whether its maps share a colour scale."""


@dataclass(frozen=True, kw_only=True)
class AblationsChoice:
    toggling: str = choice("Memory", ("Memory", "Slots", "Heads and gates", "Statements"))
    """The group of toggles that is shown."""
    changed: str = choice(
        "Chosen token", ("Chosen token", "Most changed", "Along the text", "Runs", "Run it again"), link="ablated"
    )
    """The view of the changes."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkChoice:
    results: str = ""
    """Folder of an evaluation; empty, the bundled one."""
    metric: str = choice("official", ("official", "exact", "contains", "f1", "choice"))
    task: str = choice("mean", TextForm(r"mean|qa[0-9]{1,2}", "mean, qa1, qa2 and so on"), link="shown")
    """Of the curves; "mean" is over tasks."""
    length: str = choice("0k", TextForm(r"[0-9]{1,5}k", "lengths such as 0k and 16k"), link="at")
    """Of the table of tasks."""
    pair: str = choice("", link="rival")
    """Two models whose difference is shown, as "A - B"; empty, the first two."""


@dataclass(frozen=True, kw_only=True)
class UpdatesChoice:
    written: int = choice(24, range(1, 65))
    """Tokens that the model generates after the context."""
    writes: str = choice("on", _ON)
    """Whether the bank was updated while the shown text was generated."""
    frozen: int = -1
    """First segment that writes nothing where writes are off; -1, the context's last."""
    toggled: str = choice("off", ("off", "on"))
    """Whether the toggles of the Ablations screen hold, too."""
    step: int = choice(1, range(1, 65))
    """Which of the generated tokens is shown."""
    probe: ProbeText = ProbeText.QUESTION
    before: int = -1
    """Segments that have written to the first bank; -1, all before the context's last."""
    after: int = -1
    """Segments that have written to the second bank; -1, all."""


@dataclass(frozen=True, kw_only=True)
class QuestionsChoice:
    """The questions that Experiments, Sweeps and Slots ask, and of which the model may read one."""

    set: str = "babi:qa1"
    """A question set's name; of a file, with its digest."""
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
    """What replaces a unit; gates are clamped instead."""
    back: tuple[int, ...] = choice((0,), range(16))
    """Segments in which units are replaced, counted back from the answer's."""
    route: str = choice("exact", ("exact", "answer"))
    """Whether everything after a unit is recomputed ("exact"), or only the tokens that predict the answer."""
    ordered: str = choice("logit_difference", _METRICS)
    """Metric by which units are ranked."""
    screened: int = choice(0, range(1_001))
    """Units with the largest estimates, which alone are measured; 0, all are measured."""
    metric: str = choice("", ("", *_METRICS), link="effect")
    """Metric that is shown; empty, that of the ranking."""
    hidden: str = choice("on", _ON)
    """Whether cells that are not significant are hidden."""
    unit: int | None = choice(None, _SEEDS)
    """The unit whose documents are shown."""


@dataclass(frozen=True, kw_only=True)
class ProbesChoice:
    sets: str = choice("simulated:qa1", link="probe_sets")
    """Names of question sets, whose contexts are the documents, separated by line breaks."""
    count: int = choice(200, range(1, 2_001), link="probe_count")
    """Documents of each set."""
    seed: int = choice(0, _SEEDS, link="probe_draws")
    """For everything that is drawn: folds, control labels, permutations."""
    moment: str = choice("segment", ("segment", "statement", "question", "token"), link="probe_moment")
    """Which tokens of a document are rows of the probe."""
    sources: str = choice("bank:mean, bank:sketch256", link="probe_sources")
    """Separated by commas."""
    targets: str = choice("place of *", link="probe_targets")
    baselines: str = choice("tokens, embedding, position, untrained, reset", link="probe_baselines")
    family: str = choice("logistic", ("mass-mean", "LDA", "ridge", "logistic"), link="probe_family")
    folds: int = choice(5, range(2, 21), link="probe_folds")
    permutations: int = choice(999, range(100_000), link="probe_permutations")
    strengths: str = choice("0.001, 0.01, 0.1, 1", link="probe_strengths")
    labels: str = choice("", link="probe_labels")
    """A CSV file of the user's labels; empty, none."""
    target: str = choice("", link="probe_target")
    """The target that is shown; empty, the first."""
    source: str = choice("", link="probe_source")
    """The source of the open cell; empty, the first."""
    segment: int = choice(-1, link="probe_segment")
    """The segment of the open cell; -1, all together."""


@dataclass(frozen=True, kw_only=True)
class DonorChoice:
    """The story that something is copied from."""

    source: TextSource = choice(TextSource.STORY, link="donor_source")
    task: int = choice(0, range(11), link="donor_task")
    """0, the text's own."""
    index: int = choice(-1, range(-1, 1_000_001), link="donor_index")
    """Story or seed; -1, the first after the text's own with other answers."""
    question: int = choice(-1, range(-1, 20), link="donor_question")
    pasted: str = choice("", link="donor_text")


@dataclass(frozen=True, kw_only=True)
class PatchingChoice:
    part: Patched = choice(Patched.BANK, link="patched")
    slots: tuple[int, ...] = choice((), link="patched_slots")
    """Empty, all."""
    layer: int = choice(-1, link="patched_layer")
    """-1, the last that has the site."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Everything that is chosen in the workbench."""

    model: ModelChoice = ModelChoice()
    text: TextChoice = TextChoice()
    run: RunChoice = RunChoice()
    memory: MemoryChoice = MemoryChoice()
    gates: GatesChoice = GatesChoice()
    bank: BankChoice = BankChoice()
    long: LongChoice = LongChoice()
    updates: UpdatesChoice = UpdatesChoice()
    steering: SteeringChoice = SteeringChoice()
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
        """A selection by the values that differ from the defaults, under their names in links."""
        parts: dict[str, dict[str, Any]] = {}
        for link, value in values.items():
            parts.setdefault(LINKS[link].part, {})[LINKS[link].name] = value
        return cls(**{part.name: type(part.default)(**parts.get(part.name, {})) for part in fields(cls)})


CHOICES = {field.path: field for part in fields(Selection) for field in choices(part.name, type(part.default))}
"""All fields, by their places in the selection, such as "text.task"."""
LINKS: dict[str, SelectionField] = {field.link: field for field in CHOICES.values()}
"""All fields, by their names in links."""

DECIDED_BY = {
    "context": ("another text", ("text", "questions.set")),
    "weights": ("another model", ("model.checkpoint",)),
    "donor": ("another donor", ("text", "donor", "questions.set")),
    "documents": ("other documents", ("probes.sets", "probes.count", "probes.seed")),
    "labels": ("other labels", ("probes.labels", "probes.targets")),
    "questions": ("other questions", ("questions.set", "questions.count")),
    "evaluation": ("another evaluation", ("benchmark.results",)),
}
"""Content that a link names by its digest, since another server may have other files: words for a difference, and the
fields that choose the content."""
