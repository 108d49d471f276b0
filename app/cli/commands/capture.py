"""`lm2 capture`: run a text of any length into a store on disk."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shell.arguments import (
    MOST,
    add_bos,
    add_checkpoint,
    add_segment_length,
    add_text,
    errors_name,
    load_model,
    question_set,
    read_text_argument,
    whole_number,
)
from app.cli.shell.output import Output, provenance
from app.cli.shell.parser import Commands
from app.cli.shell.progress import note, progress
from app.views.sizes import size_in_words
from lm2.files import read_json, read_text

if TYPE_CHECKING:
    from lm2.runs.spec import RunSpec
    from lm2.stores.prediction import StoreCost
    from lm2.stores.store import Store
    from lm2.weights.checkpoint import Checkpoint

_LEVELS = {2**level: level for level in range(3, 9)}
"""Levels by the tokens that their rows pool."""

_GOES_ON = (
    "A command that was stopped goes on from the last whole segment when it is given again. lm2.open_store(DIR) reads"
    " any window of a store, at any level of detail, also while it grows."
)


def add_capture(commands: Commands) -> None:
    parser = commands.add("capture", "run a text of any length into a store on disk", _capture, _GOES_ON)
    add_checkpoint(parser)
    add_segment_length(parser)
    add_bos(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    words = "a question of a set such as babi:qa1, babilong:qa1@128k or a file, with its answer"
    source.add_argument("--questions", type=question_set, metavar="SET", help=words)
    add_text(source, "a text of your own")
    source.add_argument("--file", type=Path, metavar="FILE", help="a UTF-8 text file")
    words = "which question of the set, from 0"
    parser.add_argument("--item", type=whole_number(0, MOST), default=0, metavar="N", help=words)
    words = "a JSON list of interventions that hold during the run, or a run's spec, as exported by a screen"
    parser.add_argument("--interventions", type=Path, metavar="FILE.json", help=words)
    words = "tokens in a row of the finest pooled map: 8, 16, ... 256"
    parser.add_argument("--pool", type=int, choices=tuple(_LEVELS), default=8, metavar="N", help=words)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the store")
    parser.add_argument("--predict", action="store_true", help="print what it would take, and run nothing")
    parser.add_argument("--check", action="store_true", help="at the end, read every byte of the store")


def _capture(chosen: argparse.Namespace) -> Output:
    from lm2.stores.capture import capture
    from lm2.stores.layout import is_store
    from lm2.stores.prediction import check_room, predict

    checkpoint = load_model(chosen, chosen.checkpoint)
    spec, level = _spec(chosen, checkpoint), _LEVELS[chosen.pool]
    prediction = predict(checkpoint, spec, level)
    predicted = {"predicted": prediction.to_json()}
    if chosen.predict:
        return Output(document=predicted | provenance(spec, checkpoint), lines=_prediction_lines(prediction))
    if not is_store(chosen.out):
        check_room(chosen.out, prediction.bytes)
    for line in _prediction_lines(prediction):
        note(line)
    with progress("segment") as on_segment:
        store = capture(checkpoint, spec, chosen.out, first_level=level, on_segment=on_segment)
    if chosen.check:
        store.check()
    written = sum(file.stat().st_size for file in chosen.out.rglob("*") if file.is_file())
    document = {
        "store": str(chosen.out),
        "tokens": len(store.tokens),
        "segments": len(store.segments),
        "whole": store.whole,
        "bytes": written,
        "checked": chosen.check,
        **predicted,
        **provenance(spec, checkpoint),
    }
    return Output(document=document, lines=_store_lines(store, chosen, written))


def _spec(chosen: argparse.Namespace, checkpoint: "Checkpoint") -> "RunSpec":
    from dataclasses import replace

    from lm2.runs.spec import RunSpec, read_interventions
    from lm2.tasks.encoded_prompt import encode_prompt
    from lm2.tasks.sets.question_set import questions

    if chosen.questions is None:
        text = read_text_argument(chosen) if chosen.file is None else read_text(chosen.file)
        spec = RunSpec(checkpoint=checkpoint.name, text=text, segment_length=chosen.segment_length, bos=chosen.bos)
    else:
        prompt = questions(chosen.questions, chosen.item + 1).prompts[chosen.item]
        spec = replace(encode_prompt(checkpoint, prompt, chosen.segment_length).spec, bos=chosen.bos)
    if chosen.interventions is None:
        return spec
    with errors_name(chosen.interventions):
        return replace(spec, interventions=read_interventions(read_json(chosen.interventions)))


def _prediction_lines(prediction: "StoreCost") -> Iterator[str]:
    yield (
        f"{prediction.tokens:,} tokens in {prediction.segments:,} segments: about {size_in_words(prediction.bytes)} and"
        f" {_time(prediction.seconds)}"
    )
    for part, size in sorted(prediction.parts.items(), key=lambda item: -item[1]):
        yield f"  {part}: {size_in_words(size)}"
    sizes = {tokens: size_in_words(prediction.coarser[level]) for tokens, level in _LEVELS.items()}
    coarser = ", ".join(f"--pool {tokens}: {size}" for tokens, size in sizes.items())
    yield f"  in all, by the tokens in a row of the finest pooled map: {coarser}"


def _store_lines(store: "Store", chosen: argparse.Namespace, written: int) -> Iterator[str]:
    yield (
        f"{chosen.out}: {len(store.tokens):,} tokens in {len(store.segments):,} segments, {size_in_words(written)}"
        + (", every byte as it was written" if chosen.check else "")
    )


def _time(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(1, round(seconds))} s"
