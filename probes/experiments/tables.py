"""What experiments found, as tables: one function for each, from questions to named columns with units."""

from collections.abc import Sequence
from dataclasses import dataclass

from lm2.intervals import Rate
from lm2.tasks import stories
from lm2.tasks.babi import Prompt
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal import ablations, attribution as attributed
from probes.causal.observe import OnDocument, answers, check_foils, constant
from probes.erasure import experiment as erased
from probes.experiments import (
    controlled_documents,
    curves,
    decoding as decoded,
    interference as interfering,
    provenance as written,
    slot_usage as used,
)
from probes.stats.effects import Effect

Cell = str | int | float


@dataclass(frozen=True, kw_only=True)
class Findings:
    """One table of a report."""

    title: str
    columns: tuple[str, ...]
    """With units."""
    rows: tuple[tuple[Cell, ...], ...]
    note: str
    """What was pooled, and what the control says."""
    curve: tuple[str, str, str, str] | None = None
    """Columns of x, y and the ends of y's interval, where the rows make a curve."""


_SHARE = ("right (%)", "low", "high")
_EFFECT = ("change of answer logit difference", "low ", "high ", "d_z", "p")


def _share(share: Rate) -> tuple[float, float, float]:
    return (100 * share.accuracy, 100 * share.low, 100 * share.high)


def _items(encoded_prompts: Sequence[EncodedPrompt]) -> str:
    return (
        f"{len(encoded_prompts)} held-out questions of {len({one.prompt.story_id for one in encoded_prompts})} stories, 95 % intervals"
        " clustered by story"
    )


def _conditions(found: Sequence[ablations.AblationCondition]) -> tuple[tuple[Cell, ...], ...]:
    rows = []
    for one in found:
        effect = one.effect
        rows.append((one.name, *_share(one.right), effect.mean, effect.low, effect.high, effect.d_z, effect.p))
    return tuple(rows)


def policies(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], seed: int, count: OnDocument
) -> tuple[Findings, ...]:
    found = ablations.policies(checkpoint, encoded_prompts, on_document=count)
    chance = ("best constant answer (chance)", *_share(constant(encoded_prompts)), *[float("nan")] * 5)
    return (
        Findings(
            title="What the memory may do",
            columns=("condition", *_SHARE, *_EFFECT),
            rows=(*_conditions(found), chance),
            note=_items(encoded_prompts),
        ),
    )


def gates(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], seed: int, count: OnDocument
) -> tuple[Findings, ...]:
    found = ablations.gates(checkpoint, encoded_prompts, on_document=count)
    rows = _conditions([one.condition for one in found])
    note = f"{_items(encoded_prompts)}; a gate is held in all blocks, segments, slots and features"
    return (Findings(title="Gates held at a value", columns=("condition", *_SHARE, *_EFFECT), rows=rows, note=note),)


def swap(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], seed: int, count: OnDocument
) -> tuple[Findings, ...]:
    found = ablations.swap(checkpoint, encoded_prompts, seed=seed, on_document=count)
    rows: list[tuple[Cell, ...]] = [(dose.slots, *_share(dose.donor), *_share(dose.own)) for dose in found.doses]
    note = (
        f"{len(found.pairs)} pairs of stories that answer the question differently; slots drawn at random, the last row"
        " is the whole bank"
    )
    if found.agreeing is not None:
        share = found.agreeing
        note += (
            f". Control: the whole bank of a story that says the same: {share.accuracy:.1%} ({share.low:.1%} to"
            f" {share.high:.1%}) of {share.n} answer it"
        )
    columns = ("slots swapped", "donor's answer (%)", "low", "high", "own answer (%)", "low ", "high ")
    return (
        Findings(
            title="Whose answer?",
            columns=columns,
            rows=tuple(rows),
            note=note,
            curve=("slots swapped", "donor's answer (%)", "low", "high"),
        ),
    )


def permutation(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], seed: int, count: OnDocument
) -> tuple[Findings, ...]:
    found = ablations.permutation(checkpoint, encoded_prompts, seed=seed, on_document=count)
    rows = (
        ("slots in a random order", *_share(found.right), found.largest_change),
        ("another story's slots (control)", *_share(found.foreign), found.foreign_change),
    )
    note = f"{_items(encoded_prompts)}; the bank is changed as the question's segment begins"
    return (
        Findings(
            title="Slots permuted", columns=("condition", *_SHARE, "largest change of a logit"), rows=rows, note=note
        ),
    )


def provenance(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], seed: int, count: OnDocument
) -> tuple[Findings, ...]:
    found = written.provenance(checkpoint, encoded_prompts, seed=seed, on_document=count)
    rows = tuple(
        (
            one.ranking,
            "as many as facts" if one.among is None else f"first {one.among}",
            100 * one.recall,
            100 * one.low,
            100 * one.high,
        )
        for one in found.found
    )
    note = (
        f"{_items([one.encoded for one in found.traced])}; share of the supporting facts among the statements from the top"
        " of the ranking; among as many as there are facts, recall and precision are one number. Spearman correlation"
        f" of credit and loss over a question's statements, mean: {found.agreement:.2f}"
    )
    return (
        Findings(
            title="Facts found",
            columns=("statements ranked by", "statements taken", "recall (%)", "low", "high"),
            rows=rows,
            note=note,
        ),
    )


def decoding(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], seed: int, count: OnDocument
) -> tuple[Findings, ...]:
    found = []
    for one in decoded.decode(checkpoint, encoded_prompts, seed=seed, on_document=count):
        baselines = {
            "a slot drawn from the same bank (control)": one.random_slot,
            "the most-read slot of another story (control)": one.other_story,
            "a random direction of a slot's norm (control)": one.random_direction,
        }  # fmt: skip
        rows = [("the most-read slot", *_share(one.most_read), *[float("nan")] * 3)]
        rows += [(name, *_share(first.rate), *_points(first.behind)) for name, first in baselines.items()]
        note = (
            f"{_items(encoded_prompts)}; how often the slot's read-out puts the true answer first of {one.candidates} candidates;"
            f" the answer's median rank among all {checkpoint.config.d_vocab:,} tokens in the most-read slot is"
            f" {one.vocabulary_rank:.0f}"
        )
        columns = ("slot", "answer first (%)", "low", "high", "most-read slot ahead by (points)", "low ", "high ")
        found.append(
            Findings(title=f"Slots read through block {one.layer}", columns=columns, rows=tuple(rows), note=note)
        )
    return tuple(found)


def _points(effect: Effect) -> tuple[float, float, float]:
    return (100 * effect.mean, 100 * effect.low, 100 * effect.high)


def attribution(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], seed: int, count: OnDocument
) -> tuple[Findings, ...]:
    check_foils(encoded_prompts)
    found = []
    for one, answer in zip(encoded_prompts, answers(encoded_prompts)):
        found.append(attributed.attribute(checkpoint, one.spec, one.rows[0], token=answer.ids[0], foils=answer.foils))
        count()
    mean = attributed.average(found, [one.prompt.story_id for one in encoded_prompts], seed=seed)
    rows = [(name, effect.mean, effect.low, effect.high, effect.p) for name, effect in zip(mean.labels, mean.effects)]
    rows += [
        ("sum of the parts", sum(effect.mean for effect in mean.effects), *[float("nan")] * 3),
        ("answer logit difference", mean.logit, *[float("nan")] * 3),
    ]
    note = (
        f"{_items(encoded_prompts)}; what each part adds directly, with the final norm's scale as it was; what works by way of"
        " later blocks shows little here"
    )
    columns = ("part", "answer logit difference (logits)", "low", "high", "p")
    return (Findings(title="Parts of the answer's logit difference", columns=columns, rows=tuple(rows), note=note),)


def forgetting(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], seed: int, count: OnDocument
) -> tuple[Findings, ...]:
    if encoded_prompts[0].prompt.task == 1:  # such stories can be stretched: every question at several distances
        length = encoded_prompts[0].spec.segment_length
        each = max(
            8, len(encoded_prompts) // 20
        )  # five questions a story, at four lengths; what is told between comes from the other stories
        encoded_prompts = [
            encode_prompt(checkpoint, prompt, length)
            for prompt in controlled_documents.stretched(stories.held_out(1, each), (0, 6, 13, 26))
        ]
    found = curves.forgetting(checkpoint, encoded_prompts, seed=seed, on_document=count)
    life = found.half_life
    fall = (
        f"no half-life: {life.reason}"
        if life.segments is None
        else f"half-life {life.segments:.1f} segments ({life.low:.1f} to {life.high:.1f})"
    )
    return (_curve("Forgetting", found.curve, fall),)


def capacity(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], seed: int, count: OnDocument
) -> tuple[Findings, ...]:
    asked = _designed(
        checkpoint, encoded_prompts, controlled_documents.memory_load(each=len(encoded_prompts), seed=seed)
    )
    note = (
        "documents made to measure, in qa1's sentences: length, distance and what is told of the person asked for are"
        " held"
    )
    return (_curve("Capacity", curves.capacity(checkpoint, asked, seed=seed, on_document=count), note),)


def overwrites(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], seed: int, count: OnDocument
) -> tuple[Findings, ...]:
    asked = _designed(
        checkpoint, encoded_prompts, controlled_documents.overwritten(each=len(encoded_prompts), seed=seed)
    )
    note = "documents made to measure, in qa1's sentences: length, distance and the number of people are held"
    return (_curve("Overwriting", curves.overwrites(checkpoint, asked, seed=seed, on_document=count), note),)


def _designed(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], prompts: Sequence[Prompt]
) -> list[EncodedPrompt]:
    return [encode_prompt(checkpoint, prompt, encoded_prompts[0].spec.segment_length) for prompt in prompts]


def _curve(title: str, found: curves.Curve, note: str) -> Findings:
    along = found.along.value
    rows = tuple(
        (
            point.at,
            *_share(point.right),
            *_share(point.control),
            100 * point.chance,
            point.right.n,
            point.log_probability,
        )
        for point in found.points
    )
    reach = (
        "at the first place already not above chance"
        if found.horizon is None
        else f"above chance up to {found.horizon}"
    )
    columns = (
        along, "right (%)", "low", "high", "bank reset (%)", "low ", "high ", "chance (%)", "questions",
        "answer log-probability (nats)",
    )  # fmt: skip
    pooled = (
        f"{len(found.asked)} questions of {found.groups} stories, 95 % intervals clustered by story; {reach}; {note}"
    )
    return Findings(title=title, columns=columns, rows=rows, note=pooled, curve=(along, "right (%)", "low", "high"))


def interference(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], seed: int, count: OnDocument
) -> tuple[Findings, ...]:
    documents = controlled_documents.rivals(max(2, len(encoded_prompts) // 4), seed=seed)
    found = interfering.interference(
        checkpoint, documents, segment_length=encoded_prompts[0].spec.segment_length, seed=seed, on_document=count
    )
    rows = [
        (name, one.mean, one.low, one.high, one.p)
        for name, one in (
            ("a fact about someone else", found.written),
            ("an old statement told once more (control)", found.control),
        )
    ]
    links = [
        (name, one.r, one.low, one.high)
        for name, one in (
            ("the fact's slots", found.correlation),
            ("another document's fact's slots (control)", found.elsewhere),
        )
    ]
    pairs = f"{len(found.pairs)} pairs in {len(documents)} documents, 95 % intervals clustered by document"
    note = (
        f"{pairs}; {found.right.accuracy:.1%} of the facts are answered with a rival told behind them,"
        f" {found.alone.accuracy:.1%} without"
    )
    return (
        Findings(title="What one more statement does to a fact",
            columns=("statement told behind the fact", _EFFECT[0], "low", "high", "p"), rows=tuple(rows), note=note),
        Findings(
            title="Is it the shared slots?", columns=("overlap of what the rival wrote with",
                "Spearman correlation with the change", "low", "high"),
            rows=tuple(links), note=f"{pairs}; overlap is the cosine of how far each statement moved each slot",
        ),
    )  # fmt: skip


def slots(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], seed: int, count: OnDocument
) -> tuple[Findings, ...]:
    found = used.usage(
        checkpoint,
        [one.spec for one in encoded_prompts],
        [one.prompt.story_id for one in encoded_prompts],
        seed=seed,
        on_document=count,
    )
    nothing = float("nan")
    rows = (
        ("effective slots of reading", found.read.mean, found.read.low, found.read.high),
        (
            "the same with a memory that writes nothing (control)",
            found.fresh_read.mean,
            found.fresh_read.low,
            found.fresh_read.high,
        ),
        ("effective slots of writing", found.write.mean, found.write.low, found.write.high),
        ("effective rank of the bank at the end", found.rank.mean, found.rank.low, found.rank.high),
        ("effective rank of the fresh bank (control)", found.fresh_rank, nothing, nothing),
    )
    dead = ", ".join(map(str, found.dead)) or "none"
    note = (
        f"{_items(encoded_prompts)}; participation ratios, of {checkpoint.config.slots} slots. Dead slots, read and changed less"
        f" than a hundredth of an even share in every document: {dead}"
    )
    each = tuple(
        (slot, 100 * found.read_share[slot].item(), 100 * found.write_share[slot].item(), found.change[slot].item(),
         nothing if found.forget is None else found.forget[slot].item(),
         "unread " * (slot in found.unread) + "unchanged" * (slot in found.unchanged))
        for slot in range(checkpoint.config.slots)
    )  # fmt: skip
    columns = (
        "slot",
        "share of reading (%)",
        "share of writing (%)",
        "change a segment (norm)",
        "forget gate, mean",
        "in every document",
    )
    return (
        Findings(title="Effective slots", columns=("measure", "mean", "low", "high"), rows=rows, note=note),
        Findings(
            title="Slot by slot", columns=columns, rows=each, note=f"{_items(encoded_prompts)}; means over documents"
        ),
    )


def erasure(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], seed: int, count: OnDocument
) -> tuple[Findings, ...]:
    found = erased.erasure(checkpoint, encoded_prompts, seed=seed, on_document=count)
    nothing = float("nan")
    rows = [
        (one.name, one.rank, 100 * one.moved, *(100 * value for value in (one.decodable.value, one.decodable.low,
            one.decodable.high)), *_share(one.right), one.effect.mean)
        for one in found.conditions
    ]  # fmt: skip
    rows.append(("best constant answer (chance)", 0, *[nothing] * 4, *_share(found.chance), nothing))
    note = (
        f"{found.verdict}. {_items(encoded_prompts)}; {', '.join(map(str, found.targets))}, erased from every slot as the"
        " question's segment begins. Decodable: balanced accuracy, pooled over these, of fresh linear probes of all"
        f" slots side by side; {found.documents} simulated stories, a tenth of them for fresh probes"
    )
    columns = (
        "erased",
        "dimensions a slot",
        "variance taken (%)",
        "decodable (%)",
        "low",
        "high",
        "right (%)",
        "low ",
        "high ",
        "change of answer logit difference",
    )
    return (Findings(title="Decodable, and used?", columns=columns, rows=tuple(rows), note=note),)
