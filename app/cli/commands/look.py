"""`lm2 serve`, `lm2 info`, `lm2 run` and `lm2 generate`: look at a model, and at what it does with a text."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.shell.arguments import (
    CHECKPOINT,
    MOST,
    add_checkpoint,
    add_seed,
    add_segment_length,
    add_text,
    check_file,
    given_text,
    task_named,
    whole,
)
from app.cli.shell.output import Output, opened, specified, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import progress
from app.export import workspace
from app.server import owner
from lm2.files import read_text

if TYPE_CHECKING:
    from lm2.runs.trace import Trace
    from lm2.tasks.babi import Prompt
    from lm2.text.tokens import Tokenizer
    from lm2.weights.checkpoint import Checkpoint


_VISITORS = (
    "The server listens on this machine only. Everyone who opens the page is a visitor: files open"
    " where --folders allows it, and a language model is used if one is named here. If LM2_LLM_KEY is"
    " set, it is sent to that model as a bearer token."
)


MOST_TOKENS = 1_000_000
"""That are written at once."""


def add_serve(commands: Commands) -> None:
    one = commands.add("serve", "open the workbench in the browser", _serve, _VISITORS)
    one.add_argument("--port", type=whole(1, 65_535), default=8501, metavar="N", help="port of the page")
    one.add_argument(
        "--workspace", type=Path, default=Path(workspace.DEFAULT), metavar="DIR", help="folder of saved figures"
    )
    one.add_argument(
        "--folders",
        type=Path,
        nargs="*",
        metavar="DIR",
        help="folders whose checkpoints, evaluations and labels visitors may open by path; with no folder"
        " given, no path opens (default: the current folder)",
    )
    one.add_argument(
        "--model-url",
        metavar="URL",
        help="OpenAI-compatible address of the language model that describes slots (default: none)",
    )
    one.add_argument("--model", metavar="NAME", help="name of the language model at that address")
    one.add_argument(
        "--transcripts",
        type=Path,
        metavar="DIR",
        help="folder that stores its replies; without an address, they are replayed",
    )


def add_info(commands: Commands) -> None:
    one = commands.add("info", "sizes, parameters and card of a checkpoint", _info)
    one.add_argument("checkpoint", metavar="MODEL", help=CHECKPOINT)


def add_run(commands: Commands) -> None:
    one = commands.add("run", "run a text or a story: predictions, answer, slots read", _run)
    add_checkpoint(one)
    add_segment_length(one)
    source = one.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--task",
        metavar="qaN",
        help="a story of a bAbI task, qa1 to qa10: held out if LM2_DATA_DIR is set, else simulated",
    )
    add_text(source, "a text of your own")
    source.add_argument("--file", type=Path, metavar="FILE", help="a UTF-8 text file")
    one.add_argument("--index", type=whole(0, MOST), default=0, metavar="N", help="story of the task, from 0")
    one.add_argument(
        "--question",
        type=whole(-MOST, MOST),
        default=-1,
        metavar="N",
        help="question of the story, from 0 (default %(default)s: the last)",
    )
    one.add_argument(
        "--out", type=Path, metavar="FILE.npz", help="save the trace, with reads, writes and gates (default: not saved)"
    )


def add_generate(commands: Commands) -> None:
    one = commands.add("generate", "continue a text", _generate)
    add_checkpoint(one)
    add_segment_length(one)
    add_text(one.add_mutually_exclusive_group(required=True), "the text to continue")
    one.add_argument("--tokens", type=whole(1, MOST_TOKENS), default=20, metavar="N", help="how many tokens to write")
    one.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 takes the most likely token")
    add_seed(one, "of sampling")


def _serve(chosen: argparse.Namespace) -> None:
    """Streamlit, which listens on this machine alone, sends no statistics, and shows visitors no traceback."""
    options = {
        "server.address": "127.0.0.1",
        "server.port": chosen.port,
        "server.maxUploadSize": 200,
        "server.enableCORS": "true",
        "server.enableXsrfProtection": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "streamlit", "run", str(Path(__file__).parents[2] / "main.py"), *flags]
    os.environ[workspace.VARIABLE] = str(chosen.workspace.absolute())
    os.environ |= owner.settings(
        [Path()] if chosen.folders is None else chosen.folders, chosen.model_url, chosen.model, chosen.transcripts
    )
    owner.describer(seed=0)  # an address that is none is told here, and not to visitors
    Output(found={"address": f"http://127.0.0.1:{chosen.port}"}).tell(as_json=chosen.json)
    if chosen.json:  # what Streamlit says of itself is a note
        os.dup2(2, 1)
    if os.name == "posix":  # in this process's place: a server of its own would outlive it when it is told to end
        os.execv(sys.executable, command)
    raise SystemExit(subprocess.call(command))


def _info(chosen: argparse.Namespace) -> Output:
    from lm2.weights.checkpoint import load

    checkpoint = load(chosen.checkpoint, "cpu")
    found = {
        "checkpoint": checkpoint.name,
        "checkpoint_digest": checkpoint.digest,
        "parameters": checkpoint.parameters,
        "memory_parameters": checkpoint.memory_parameters,
        "config": checkpoint.config.to_json(),
        "card": checkpoint.card,
    }
    return Output(found=found, words=_sizes(found))


def _sizes(found: dict[str, Any]) -> Iterator[str]:
    memory = f"{found['memory_parameters']:,} of them in the memory"
    yield f"{found['checkpoint']}: {found['parameters']:,} parameters, {memory}; sha256 {found['checkpoint_digest']}"
    yield from (f"  {name}: {value}" for name, value in found["config"].items())
    yield found["card"]


def _run(chosen: argparse.Namespace) -> Output:
    from lm2.model.sites import Site
    from lm2.runs.capture import Capture, HeadMean
    from lm2.runs.runner import run
    from lm2.runs.spec import RunSpec
    from lm2.weights.checkpoint import load

    check_file(chosen.out)
    text, prompt, origin = _text(chosen)
    checkpoint = load(chosen.checkpoint, chosen.device, chosen.dtype)
    wanted = [Capture(Site.READ_PATTERN, HeadMean())]
    if chosen.out:
        gates = (gate.site for gate in checkpoint.config.memory.design.gates.values())
        wanted += [Capture(site) for site in (Site.WRITE_PATTERN, *gates)]
    captures = tuple(capture for capture in wanted if capture.site.layers(checkpoint.config))
    spec = RunSpec(checkpoint=checkpoint.name, text=text, segment_length=chosen.segment_length, captures=captures)
    with progress("segment") as told:
        trace = run(checkpoint, spec, on_segment=told)
    found = {"origin": origin, **_last_token(checkpoint.tokenizer, trace, prompt), **specified(spec, checkpoint)}
    if chosen.out:
        trace.save(chosen.out)
        found |= written(chosen.out)
    return Output(found=found, words=_ran(checkpoint, found))


def _text(chosen: argparse.Namespace) -> tuple[str, "Prompt | None", str]:
    """The text to feed, the question in it where it is a story, and where it is from."""
    from lm2.tasks import babi, stories

    if not chosen.task:
        return given_text(chosen) if chosen.file is None else read_text(chosen.file), None, "given text"
    picked = stories.pick(task_named(chosen.task), chosen.index)
    questions = picked.story.questions
    if not -len(questions) <= chosen.question < len(questions):
        raise ValueError(f"story {picked.story.id} has questions 0..{len(questions) - 1}, not {chosen.question}")
    prompt = babi.ask(picked.story, questions[chosen.question])
    return prompt.text, prompt, picked.origin


def _last_token(tokenizer: "Tokenizer", trace: "Trace", prompt: "Prompt | None") -> dict[str, Any]:
    """What `lm2 run` tells about the last token: next tokens, the answer's probability, slots read per block."""
    import numpy as np

    from app.views.run.text import chances
    from lm2.model.sites import Site

    probabilities = chances(trace.logits[-1])
    top = np.argsort(-probabilities)[:5]
    found: dict = {
        "segments": [list(trace.tokens.shown[s.start : s.end]) for s in trace.segments],
        "next": [{"piece": tokenizer.shown(int(token)), "probability": float(probabilities[token])} for token in top],
        "top_slots": {},
    }
    if prompt is not None:
        try:
            row, first = tokenizer.answer_at(trace.tokens, prompt.question_span[1], prompt.answer)
            probability = float(chances(trace.logits[row])[first])
        except ValueError:  # the tokenizer has no token for it
            probability = None
        found |= {"question": prompt.question, "answer": prompt.answer, "answer_probability": probability}
    for capture, place in trace.records:
        if capture.site is Site.READ_PATTERN and place.segment == trace.segments[-1].index:
            weights = trace.records[capture, place][-1]
            found["top_slots"][place.layer] = [(int(slot), float(weights[slot])) for slot in np.argsort(-weights)[:3]]
    return found


def _ran(checkpoint: "Checkpoint", found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['origin']}; {checkpoint.name} on {checkpoint.device} in {checkpoint.dtype}"
    for at, pieces in enumerate(found["segments"]):
        yield f"segment {at}: {' | '.join(repr(piece)[1:-1] for piece in pieces)}"
    yield "next token: " + ", ".join(f"{token['piece']!r} {token['probability']:.3f}" for token in found["next"])
    if "answer" in found:
        probability = found["answer_probability"]
        told = (
            "the tokenizer has no token for it"
            if probability is None
            else f"probability of its first token {probability:.3f}"
        )
        yield f"answer: {found['answer']} ({told})"
    for layer, slots in found["top_slots"].items():
        yield f"slots read most at the last token, block {layer}: " + ", ".join(
            f"{slot} ({weight:.2f})" for slot, weight in slots
        )


def _generate(chosen: argparse.Namespace) -> Output:
    import torch

    from lm2.runs.generation import generate
    from lm2.weights.checkpoint import load

    text = given_text(chosen)
    checkpoint = load(chosen.checkpoint, chosen.device, chosen.dtype)
    made = generate(
        checkpoint,
        text,
        max_tokens=chosen.tokens,
        segment_length=chosen.segment_length,
        temperature=chosen.temperature,
        generator=torch.Generator().manual_seed(chosen.seed),
    )
    found = {
        "checkpoint": checkpoint.name,
        **opened(checkpoint),
        "prompt": text,
        "text": made.text,
        "pieces": checkpoint.tokenizer.followed(made.prompt, made.ids).shown[len(made.prompt) :],
        "temperature": chosen.temperature,
        "seed": chosen.seed,
    }
    return Output(found=found, words=[text + made.text])
