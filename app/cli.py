"""The command line: `lm2 run`, `lm2 ablate`, `lm2 eval` and all others that `lm2 --help` lists.

A user's mistake is one line on standard error and exit code 2.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from app.cli_ablate import add_ablate, add_experiment
from app.cli_arguments import add_device, task_named
from app.cli_bench import add_bench
from app.cli_eval import add_eval, add_language
from app.cli_explain import add_explain
from app.cli_probe import add_probe
from app.cli_sweep import add_sweep
from lm2 import babi, stories
from lm2.capture import Capture, HeadMean
from lm2.sites import Site
from lm2.spec import RunSpec

# The modules that need torch are imported by the commands that use them: `lm2 --help` and `lm2 serve` answer at once.


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chosen = _parser().parse_args(arguments)
    try:
        return int(chosen.command(chosen) or 0)
    except BrokenPipeError:  # whoever reads our output has read enough; what is left must go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        print(f"lm2: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lm2", description="Look inside memory-augmented language models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("run", help="feed a text or a story; print tokens, predictions, the answer and the slots read")
    _checkpoint(one)
    source = one.add_mutually_exclusive_group(required=True)
    source.add_argument("--task", help="a bAbI story: qa1 to qa10")
    source.add_argument("--text", help="a text of your own")
    source.add_argument("--file", type=Path, help="a UTF-8 text file")
    one.add_argument("--index", type=int, default=0, help="which story of the task (default 0)")
    one.add_argument("--question", type=int, default=-1, help="which question of the story, from 0 (default: the last)")
    one.add_argument("--out", type=Path, help="save the trace, with reads, writes and gates, to this .npz")
    one.add_argument("--json", action="store_true", help="print JSON")
    one.set_defaults(command=_run)

    one = commands.add_parser("generate", help="continue a text")
    _checkpoint(one)
    one.add_argument("--text", required=True)
    one.add_argument("--tokens", type=int, default=20, help="how many to write (default 20)")
    one.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    one.add_argument("--seed", type=int, default=0, help="for sampling")
    one.set_defaults(command=_generate)

    one = commands.add_parser("train", help="train a model, or go on training it")
    one.add_argument("config", type=Path, metavar="CONFIG.json")
    one.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and of the resumable state")
    one.set_defaults(command=_train)

    one = commands.add_parser("tokenizer", help="learn a tokenizer from the bAbI stories and books of a data folder")
    one.add_argument("folder", type=Path, metavar="DATA_DIR", help="holds babi/babi-v1.2-en-train.tar.xz and books/train/*.txt.xz")
    one.add_argument("--pieces", type=int, default=2048, help="size of the vocabulary (default 2048)")
    one.add_argument("--out", type=Path, required=True, metavar="tokenizer.json")
    one.set_defaults(command=_tokenizer)

    one = commands.add_parser("graft", help="put a silent memory onto a model without one, ready to train")
    one.add_argument("checkpoint", help="folder (ours or Hugging Face's) or .gguf file")
    one.add_argument("--slots", type=int, required=True, help="rows of the bank, each as wide as the model")
    one.add_argument("--heads", type=int, required=True, help="heads that read and write them")
    one.add_argument("--layers", metavar="0,4,8", help="blocks that get a memory (default: all)")
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    one.set_defaults(command=_graft)

    one = commands.add_parser("serve", help="open the workbench in the browser")
    one.add_argument("--port", type=int, default=8501)
    one.set_defaults(command=_serve)

    one = commands.add_parser("info", help="sizes, parameters and card of a checkpoint")
    one.add_argument("checkpoint")
    one.set_defaults(command=_info)

    one = commands.add_parser("recall", help="accuracy on a bAbI file's questions, by distance in segments")
    _checkpoint(one)
    one.add_argument("--babi", type=Path, required=True, help="a .txt file, folder or archive in the official format")
    one.add_argument("--task", help="only this task of a folder or archive: qa1 ...")
    one.add_argument("--memory", choices=("on", "frozen", "reset"), default="on", help="frozen: no segment writes; reset: fresh bank at the question")
    one.add_argument("--validation", action="store_true", help="only the last tenth of the stories, which the bundled models have not seen")
    one.add_argument("--stretch", type=int, metavar="N", help="put N more statements about others between the facts and each question (qa1)")
    one.add_argument("--json", action="store_true")
    one.set_defaults(command=_recall)

    one = commands.add_parser("mmlu", help="accuracy on MMLU, five-shot, by the likelihood of the letters, by category")
    _checkpoint(one)
    one.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder or tar archive with dev/SUBJECT_dev.csv, ...")
    one.add_argument("--split", choices=("val", "test"), default="val", help="which questions (default val)")
    one.add_argument("--samples", type=int, metavar="N", help="only the first N questions of each subject (default: all)")
    one.add_argument("--json", action="store_true")
    one.set_defaults(command=_mmlu)

    add_ablate(commands)
    add_experiment(commands)
    add_sweep(commands)
    add_probe(commands)
    add_explain(commands)
    add_bench(commands)
    add_eval(commands)
    add_language(commands)

    one = commands.add_parser("parity", help="compare the RELEASE model with recorded outputs of the released code")
    one.add_argument("file", type=Path, metavar="FILE.safetensors")
    one.set_defaults(command=_parity)
    return parser


def _checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, help="bundled name, folder (ours or Hugging Face's), .gguf file, or released .pt file")
    add_device(parser)
    parser.add_argument("--segment-length", type=int, help="tokens (default: the checkpoint's own)")


def _run(chosen: argparse.Namespace) -> None:
    from lm2.checkpoint import load
    from lm2.runner import run

    prompt, origin = None, "given text"
    if chosen.task:
        picked = stories.pick(task_named(chosen.task), chosen.index)
        questions = picked.story.questions
        if not -len(questions) <= chosen.question < len(questions):
            raise ValueError(f"story {picked.story.id} has questions 0..{len(questions) - 1}, not {chosen.question}")
        prompt, origin = babi.ask(picked.story, questions[chosen.question]), picked.origin
        text = prompt.text
    else:
        text = chosen.text if chosen.file is None else chosen.file.read_text(encoding="utf-8")
    checkpoint = load(chosen.checkpoint, chosen.device, chosen.dtype)
    kept = [Site.READ_PATTERN, *([Site.WRITE_PATTERN, Site.GATE_IN, Site.GATE_FORGET, Site.GATE_OUT] if chosen.out else [])]
    captures = tuple(Capture(site, HeadMean() if site is Site.READ_PATTERN else Capture(site).reduction) for site in kept if site.layers(checkpoint.config))
    trace = run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text, segment_length=chosen.segment_length, captures=captures))
    if chosen.out:
        trace.save(chosen.out)
    report = _report(checkpoint.tokenizer, trace, prompt)
    if chosen.json:
        print(json.dumps({"origin": origin, **report}))
        return
    print(f"{origin}; {checkpoint.name} on {trace.device} in {trace.dtype}")
    for segment in trace.segments:
        print(f"segment {segment.index}: {' | '.join(repr(piece)[1:-1] for piece in trace.tokens.pieces[segment.start : segment.end])}")
    said = ", ".join(f"{token['piece']!r} {token['probability']:.3f}" for token in report["next"])
    print(f"next token: {said}")
    if prompt is not None:
        print(f"answer: {prompt.answer} (probability of its first token {report['answer_probability']:.3f})")
    for layer, slots in report["top_slots"].items():
        print(f"slots read most at the last token, block {layer}: " + ", ".join(f"{slot} ({weight:.2f})" for slot, weight in slots))


def _report(tokenizer: "Tokenizer", trace: "Trace", prompt: babi.Prompt | None) -> dict:  # noqa: F821
    """What `lm2 run` tells about the last token: next tokens, the answer's probability, slots read per block."""
    from app.views.text import chances

    probabilities = chances(trace.logits[-1])
    top = np.argsort(-probabilities)[:5]
    report: dict = {
        "segments": [list(trace.tokens.pieces[s.start : s.end]) for s in trace.segments],
        "next": [{"piece": tokenizer.piece(int(token)), "probability": float(probabilities[token])} for token in top],
        "top_slots": {},
    }
    if prompt is not None:
        first = tokenizer.encode(f" {prompt.answer}").ids[0]
        report |= {"question": prompt.question, "answer": prompt.answer, "answer_probability": float(probabilities[first])}
    for capture, place in trace.records:
        if capture.site is Site.READ_PATTERN and place.segment == trace.segments[-1].index:
            weights = trace.records[capture, place][-1]
            report["top_slots"][place.layer] = [(int(slot), float(weights[slot])) for slot in np.argsort(-weights)[:3]]
    return report


def _generate(chosen: argparse.Namespace) -> None:
    import torch

    from lm2.checkpoint import load
    from lm2.runner import generate

    checkpoint = load(chosen.checkpoint, chosen.device, chosen.dtype)
    written = generate(
        checkpoint, chosen.text, max_tokens=chosen.tokens, segment_length=chosen.segment_length,
        temperature=chosen.temperature, generator=torch.Generator().manual_seed(chosen.seed),
    )  # fmt: skip
    print(chosen.text + written.text)


def _train(chosen: argparse.Namespace) -> None:
    from lm2.training import TrainingConfig, train

    train(TrainingConfig.load(chosen.config), chosen.out)
    print(f"{chosen.out / 'checkpoint'} can be opened: lm2 info {chosen.out / 'checkpoint'}")


def _tokenizer(chosen: argparse.Namespace) -> None:
    from lm2.atomic import replace_file
    from lm2.corpus import texts
    from lm2.tokens import Tokenizer

    learnt = Tokenizer.train(texts(chosen.folder), chosen.pieces)
    with replace_file(chosen.out) as aside:
        aside.write_text(learnt.to_json(), encoding="utf-8")
    print(f"{chosen.out}: {learnt.size} pieces")


def _layers(text: str) -> tuple[int, ...]:
    if not all(layer.strip().isdecimal() for layer in text.split(",")):
        raise ValueError(f"layers are written 0,4,8, not {text!r}")
    return tuple(map(int, text.split(",")))


def _graft(chosen: argparse.Namespace) -> None:
    import torch

    from lm2.checkpoint import load, save
    from lm2.grafting import graft

    if chosen.out.exists():
        raise ValueError(f"{chosen.out} is there already; --out is a folder that is to be made")
    plain = load(chosen.checkpoint, "cpu")
    layers = tuple(range(plain.config.n_layers)) if chosen.layers is None else _layers(chosen.layers)
    grafted = graft(
        plain, slots=chosen.slots, slot_dim=plain.config.d_model, memory_heads=chosen.heads, memory_layers=layers,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    save(chosen.out, grafted.model, grafted.tokenizer, grafted.card)
    print(f"{chosen.out}: {grafted.memory_parameters:,} parameters of memory added to {plain.parameters:,}; lm2 info {chosen.out}")


def _serve(chosen: argparse.Namespace) -> int:
    """Streamlit, which listens on this machine alone and sends no statistics."""
    options = {
        "server.address": "127.0.0.1", "server.port": chosen.port, "server.maxUploadSize": 200, "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal", "server.fileWatcherType": "none",
    }  # fmt: skip
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "streamlit", "run", str(Path(__file__).parent / "main.py"), *flags]
    if os.name == "posix":  # in this process's place: a server of its own would outlive it when it is told to end
        os.execv(sys.executable, command)
    return subprocess.call(command)


def _info(chosen: argparse.Namespace) -> None:
    from lm2.checkpoint import load

    checkpoint = load(chosen.checkpoint, "cpu")
    print(f"{checkpoint.name}: {checkpoint.parameters:,} parameters, {checkpoint.memory_parameters:,} of them in the memory; sha256 {checkpoint.digest}")
    for name, value in checkpoint.config.to_json().items():
        print(f"  {name}: {value}")
    print(checkpoint.card)


def _recall(chosen: argparse.Namespace) -> None:
    from tqdm import tqdm

    from lm2.checkpoint import load
    from lm2.recall import Memory, recall

    found = babi.read(chosen.babi, task=task_named(chosen.task) if chosen.task else None)
    if chosen.validation:
        found = babi.split(found)[1]
    if chosen.stretch is not None:
        found = babi.stretch_all(found, statements=chosen.stretch)
    prompts = list(babi.prompts(found))
    checkpoint = load(chosen.checkpoint, chosen.device, chosen.dtype)
    with tqdm(total=len(prompts), unit="question", disable=None) as bar:
        report = recall(
            checkpoint, prompts, Memory(chosen.memory), segment_length=chosen.segment_length, on_question=lambda _: bar.update()
        )
    rows = [{"distance": distance, **asdict(rate)} for distance, rate in report.by_distance.items()]
    if chosen.json:
        print(json.dumps({**asdict(report.overall), "by_distance": rows, "memory": chosen.memory, "segment_length": report.segment_length}))
        return
    print(f"{checkpoint.name}, memory {chosen.memory}, segments of {report.segment_length} tokens, each question in a segment of its own")
    print("distance  questions  stories  accuracy  95 % interval")
    for name, rate in [("all", report.overall), *report.by_distance.items()]:
        print(f"{name!s:>8}  {rate.n:>9}  {rate.groups:>7}  {rate.accuracy:>8.1%}  {rate.low:.1%} to {rate.high:.1%}")


def _mmlu(chosen: argparse.Namespace) -> None:
    from tqdm import tqdm

    from lm2 import mmlu
    from lm2.checkpoint import load

    if chosen.samples is not None and chosen.samples < 1:
        raise ValueError(f"--samples must be at least 1 question a subject, not {chosen.samples}")
    subjects = [
        replace(subject, questions=subject.questions[: chosen.samples]) for subject in mmlu.read(chosen.data, mmlu.Split(chosen.split))
    ]
    checkpoint = load(chosen.checkpoint, chosen.device, chosen.dtype)
    with tqdm(total=sum(len(subject.questions) for subject in subjects), unit="question", disable=None) as bar:
        report = mmlu.examine(checkpoint, subjects, segment_length=chosen.segment_length, on_question=lambda _: bar.update())
    rows = [("all", report.overall), *((category.value, found) for category, found in report.by_category.items())]
    if chosen.json:
        print(json.dumps({name: {**asdict(found.rate), "always": found.constants} for name, found in rows}))
        return
    print(f"{checkpoint.name}, MMLU {chosen.split}, {mmlu.SHOTS}-shot")
    print("category           questions  accuracy  95 % interval     always D  best letter")
    for name, found in rows:
        rate, best, always = found.rate, found.best_constant, found.constants
        interval = f"{rate.low:.1%} to {rate.high:.1%}"
        print(f"{name:<17}  {rate.n:>9}  {rate.accuracy:>8.1%}  {interval:<16}  {always['D']:>8.1%}  {best} {always[best]:.1%}")


def _parity(chosen: argparse.Namespace) -> int:
    from lm2.released import parity

    found = parity(chosen.file)
    print(f"largest differences over {found.segments} segments: logits {found.logits:.2e}, gates {found.gates:.2e}, bank {found.bank:.2e}")
    return 0 if found.worst <= 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
