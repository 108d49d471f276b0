"""Laws of lm2.training.train: a run is a function of its configuration, interrupted or not."""

import json
import logging
import os
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from lm2.model.config import LM2Config, MemoryKind
from lm2.model.lm2 import LM2
from lm2.tasks.babi_files import write
from lm2.tasks.simulator import simulate
from lm2.text.tokens import Tokenizer
from lm2.training.config import Cycle, TrainingConfig, learning_rate
from lm2.training.curriculum import Lessons, Phase, Stage, TrainingDocument, TrainingQuestion
from lm2.training.rollout import Rollout
from lm2.training.state import Progress, resume, save_state
from lm2.training.train import _optimizer, draw_documents, train
from lm2.weights.bundled import FOLDER
from lm2.weights.checkpoint import load


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, gated_config: LM2Config) -> TrainingConfig:
    """Six steps through every phase on simulated stories and a book, saved after every third."""
    folder = tmp_path_factory.mktemp("training")
    lines: list[str] = []
    for task in (1, 6):
        stories = [simulate(task, seed=seed).story for seed in range(30)]
        write(stories, folder / f"qa{task}_simulated_train.txt")
        lines += [line.text for story in stories for line in story.lines]
    answers = [f" {place}." for place in ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office", "yes", "no")]
    book = "It was a long day, and we saw the river. " * 40
    (folder / "book.txt").write_text(book)
    tokenizer = Tokenizer.train([" ".join(lines), *lines, *answers, book], 400)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    grown = {"phase": Phase.MEMORY, "tasks": (1, 6), "statements": (3, 6), "lengths": (8,)}
    return TrainingConfig(
        model=replace(gated_config, d_vocab=tokenizer.size, segment_length=8, attention_window=8),
        stories=(str(folder),), books=(str(folder / "book.txt"),), tokenizer=str(folder / "tokenizer.json"), seed=1,
        batch=2,
        stages=(
            Stage(steps=1, phase=Phase.REPEAT), Stage(steps=1, phase=Phase.OPEN, statements=(2, 4)),
            Stage(steps=2, **grown),
            Stage(steps=2, prose=(10, 30), language_weight=0.1, **grown),
        ),
        questions=2, warmup_steps=2, checkpoint_every=3,
    )  # fmt: skip


class Interrupted(Exception):
    """Somebody pulled the plug."""


@pytest.fixture(params=[False, True], ids=["as drawn", "from attention"])
def begun(request: pytest.FixtureRequest, tiny: TrainingConfig) -> TrainingConfig:
    """With the memory's weights as drawn, and as attention has them when the MEMORY phase comes."""
    alike = replace(tiny.model, slot_dim=tiny.model.d_model, memory_heads=4, n_key_value_heads=4)
    return replace(tiny, model=alike, memory_from_attention=True) if request.param else tiny


@pytest.mark.parametrize(("stop", "rest"), [(3, [3, 4, 5, 6]), (5, [5, 6])], ids=["as memory begins", "later"])
def test_interrupted_and_resumed_training_gives_the_same_weights_bitwise(
    begun: TrainingConfig, stop: int, rest: list[int], tmp_path: Path
) -> None:
    tiny = replace(begun, checkpoint_every=2)
    whole = train(tiny, tmp_path / "whole")

    def pull_the_plug(progress: Progress, loss: float) -> None:
        if progress.step == stop:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(tiny, tmp_path / "parts", pull_the_plug)
    steps: list[int] = []
    parts = train(tiny, tmp_path / "parts", lambda progress, loss: steps.append(progress.step))
    assert steps == rest  # from the last state that was saved
    for name, weight in whole.weights().items():
        assert torch.equal(weight, parts.weights()[name]), name


def test_an_associative_memory_is_trained_by_the_same_schedule_and_its_loss_falls(
    tiny: TrainingConfig, armt_config: LM2Config, tmp_path: Path
) -> None:
    model = replace(armt_config, d_vocab=tiny.model.d_vocab, segment_length=8, attention_window=8)
    losses: list[float] = []
    stages = (Stage(steps=60, phase=Phase.MEMORY, statements=(2, 3), lengths=(8,)),)
    config = replace(tiny, model=model, stages=stages, batch=8, warmup_steps=5, learning_rate=1e-2, checkpoint_every=60)
    trained = train(config, tmp_path / "model", lambda progress, loss: losses.append(loss))
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    fresh = LM2(model)
    fresh.initialise(torch.Generator().manual_seed(config.seed))
    assert not [name for name, weight in fresh.weights().items() if torch.equal(weight, trained.weights()[name])]
    assert load(str(tmp_path / "model" / "checkpoint")).config == model


def test_training_changes_every_weight_and_another_seed_gives_others(tiny: TrainingConfig, tmp_path: Path) -> None:
    one, other = train(tiny, tmp_path / "one"), train(replace(tiny, seed=2), tmp_path / "two")
    fresh = LM2(tiny.model)
    fresh.initialise(torch.Generator().manual_seed(tiny.seed))
    unchanged = [name for name, weight in fresh.weights().items() if torch.equal(weight, one.weights()[name])]
    assert unchanged == []
    assert not torch.equal(one.weights()["embed.weight"], other.weights()["embed.weight"])


def test_a_finished_run_is_not_trained_any_further(tiny: TrainingConfig, tmp_path: Path) -> None:
    done = train(tiny, tmp_path / "run")
    steps: list[int] = []
    again = train(tiny, tmp_path / "run", lambda progress, loss: steps.append(progress.step))
    assert steps == []
    assert all(torch.equal(weight, again.weights()[name]) for name, weight in done.weights().items())


def test_the_held_out_shares_are_logged_at_every_checkpoint(
    tiny: TrainingConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="lm2.training.train"):
        train(tiny, tmp_path / "run")
    logged = [record.message for record in caplog.records if "held-out" in record.message]
    assert [message.split()[1].rstrip(",") for message in logged] == ["3", "6"]
    assert all("qa1:" in message and "qa6:" in message for message in logged)


def test_documents_do_not_depend_on_the_model(tiny: TrainingConfig) -> None:
    from lm2.training.train import _stories

    known, held = _stories(tiny)
    assert {story.id for story in known}.isdisjoint(story.id for story in held) and len(held) == 6
    tokenizer = Tokenizer.load(Path(tiny.tokenizer or ""))
    plain = replace(
        tiny, model=replace(tiny.model, memory=MemoryKind.NONE, slots=0, slot_dim=0, memory_heads=0, memory_layers=())
    )
    for step in range(tiny.steps):
        drawn = [
            draw_documents(config, Lessons(known, ["It was."], tokenizer, config.model.segment_end), {}, step, 0)
            for config in (tiny, plain)
        ]
        assert drawn[0] == drawn[1]


def _document(segments: tuple[tuple[int, ...], ...], *asked: tuple[int, tuple[int, ...], int]) -> TrainingDocument:
    return TrainingDocument(
        segments=segments,
        questions=tuple(
            TrainingQuestion(after=after, ids=ids, answer=answer, label="qa1") for after, ids, answer in asked
        ),
    )


def test_each_document_counts_alike_however_many_answers_it_has(gated) -> None:
    one = _document((), (0, (5, 6, 7, 8, 9, 10), 5))
    other = _document((), (0, (11, 12, 13), 1), (0, (11, 12, 14), 1))
    with torch.no_grad():
        together, right = Rollout(gated.model)([one, other], 0.0)
        alone = [Rollout(gated.model)([document], 0.0)[0] for document in (one, other)]
    torch.testing.assert_close(together, sum(alone) / 2)
    assert right["qa1"][1] == 3


def test_documents_of_several_lengths_side_by_side_are_as_alone(checkpoint) -> None:
    if checkpoint.config.memory is MemoryKind.RELEASE:
        pytest.skip("the released arithmetic runs on full segments")
    short = _document(((5, 6, 7),), (1, (8, 9, 10), 1))
    long = _document(((5, 6, 7), (8, 9, 10, 11)), (0, (5, 9), 1), (1, (5, 6, 9, 7, 7, 3), 2), (2, (8, 9, 11), 1))
    with torch.no_grad():
        together, _ = Rollout(checkpoint.model)([short, long], 0.0)
        alone = [Rollout(checkpoint.model)([document], 0.0)[0] for document in (short, long)]
    torch.testing.assert_close(together, sum(alone) / 2)


def test_a_question_reads_the_bank_that_stands_when_it_is_asked(gated) -> None:
    model, segments = gated.model, ((5, 6, 7), (8, 9, 10, 11))
    bank = model.segment(torch.tensor([segments[0]])).bank
    with torch.no_grad():
        loss, _ = Rollout(model)([_document(segments, (1, (4, 9), 1))], 0.0)
        logits = model.segment(torch.tensor([[4, 9]]), bank).logits[0, 0]
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, torch.tensor(9)))


def test_the_learning_rate_rises_in_a_line_and_falls_in_half_a_cosine(tiny: TrainingConfig) -> None:
    config = replace(
        tiny,
        stages=(Stage(steps=100, phase=Phase.REPEAT),),
        warmup_steps=10,
        learning_rate=1.0,
        final_learning_rate=0.1,
    )
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0 and all(a > b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.55) and rates[99] == pytest.approx(0.1, abs=1e-3)


def test_one_cycle_is_the_schedule_without_cycles_bitwise(tiny: TrainingConfig) -> None:
    cycle = Cycle(steps=6, peak=tiny.learning_rate, final=tiny.final_learning_rate, warmup_steps=2)
    cycled = replace(tiny, cycles=(cycle,))
    assert [learning_rate(cycled, step) for step in range(6)] == [learning_rate(tiny, step) for step in range(6)]
    assert "cycles" not in tiny.to_json() and TrainingConfig.from_json(cycled.to_json()) == cycled


def test_each_cycle_rises_to_its_peak_and_falls_towards_its_end(tiny: TrainingConfig) -> None:
    cycles = (Cycle(steps=60, peak=1.0, final=0.1, warmup_steps=10), Cycle(steps=40, peak=0.5, final=0.0))
    config = replace(tiny, stages=(Stage(steps=100, phase=Phase.REPEAT),), cycles=cycles)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0 and all(a > b for a, b in pairwise(rates[10:60])) and rates[59] > 0.1
    assert rates[60] == 0.5 and rates[80] == pytest.approx(0.25) and all(a > b for a, b in pairwise(rates[60:]))


@pytest.mark.parametrize(
    ("cycles", "said"),
    [
        ([{"steps": 5, "peak": 1.0, "final": 0.1}], "must span the stages' 6 steps, not 5"),
        ([{"steps": 0, "peak": 1.0, "final": 0.1}], "steps must be at least 1, not 0"),
        ([{"steps": 6, "peak": 1.0, "final": 0.1, "warmup_steps": 7}], "warmup_steps must be at most 6, not 7"),
        ([{"steps": 6, "peak": 1.0, "final": -0.1}], "must not be negative, as peak 1 or final -0.1 is"),
        ([{"steps": 6}], "Cycle cannot be made from .*needs steps and peak and final"),
    ],
)
def test_cycles_that_cannot_be_are_refused_in_a_sentence(tiny: TrainingConfig, cycles: list[dict], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainingConfig.from_json(tiny.to_json() | {"cycles": cycles})


def test_a_state_without_cycles_is_continued_without_them_and_not_with_them(
    tiny: TrainingConfig, tmp_path: Path
) -> None:
    _kept(tiny, tmp_path / "training")
    assert "cycles" not in json.loads((tmp_path / "training" / "progress.json").read_text())["config"]  # as in 0.1
    assert _resumed(tiny, tmp_path / "training")[0].step == 3
    cycled = replace(tiny, cycles=(Cycle(steps=6, peak=1e-3, final=1e-4),))
    with pytest.raises(ValueError, match=r"another configuration: cycles \(None there"):
        _resumed(cycled, tmp_path / "training")
    _kept(cycled, tmp_path / "cycled")
    assert _resumed(cycled, tmp_path / "cycled")[0].step == 3


def test_a_configuration_file_names_its_stories_beside_itself(tiny: TrainingConfig, tmp_path: Path) -> None:
    values = {
        "model": tiny.model.to_json(),
        "stories": ["qa1_a.txt"],
        "tokenizer": "tokenizer.json",
        "seed": 1,
        "stages": [{"steps": 6, "phase": "open", "tasks": [1]}],
    }
    path = tmp_path / "train.json"
    path.write_text(json.dumps(values))
    config = TrainingConfig.load(path)
    assert config.stories == (str(tmp_path / "qa1_a.txt"),) and config.tokenizer == str(tmp_path / "tokenizer.json")
    assert config.model == tiny.model


@pytest.mark.parametrize(
    "change",
    [
        {"stages": []},
        {"stages": [{"steps": 0, "phase": "open"}]},
        {"stages": [{"steps": 1, "phase": "x"}]},
        {"wings": 1},
        {"stories": []},
        {"model": {"memory": "none"}},
    ],
)
def test_an_impossible_configuration_file_is_refused_with_its_path(
    tiny: TrainingConfig, tmp_path: Path, change: dict
) -> None:
    values = {
        "model": tiny.model.to_json(),
        "stories": ["qa1_a.txt"],
        "tokenizer": "tokenizer.json",
        "seed": 1,
        "stages": [{"steps": 6, "phase": "open", "tasks": [1]}],
    }
    path = tmp_path / "train.json"
    path.write_text(json.dumps(values | change))
    with pytest.raises(ValueError, match="train.json is not a training configuration"):
        TrainingConfig.load(path)


def test_what_earlier_versions_did_not_have_is_not_in_the_json_of_what_they_had(tiny: TrainingConfig) -> None:
    values = tiny.to_json()
    assert {"start", "train", "lora", "cycles"}.isdisjoint(values) and TrainingConfig.from_json(values) == tiny
    assert all({"questions", "count"}.isdisjoint(stage) for stage in values["stages"])


def _without_places(config: TrainingConfig) -> TrainingConfig:
    """Files by their names alone: where there is no data folder, each configuration looks for them beside itself."""
    return replace(
        config,
        stories=tuple(Path(story).name for story in config.stories),
        books=tuple(Path(book).name for book in config.books),
    )


def test_the_configuration_of_each_bundled_model_is_read() -> None:
    found = sorted(path.parent.name for path in FOLDER.glob("*/training.json"))
    assert found == ["babi-llama", "babi-lm2", "babi-rmt"]
    configs = {name: TrainingConfig.load(FOLDER / name / "training.json") for name in found}
    assert all(config.model == load(name, "cpu").config for name, config in configs.items())
    same = {
        _without_places(replace(config, model=configs[found[0]].model, tokenizer="", memory_from_attention=False))
        for config in configs.values()
    }
    assert len(same) == 1, "models that are compared saw the same batches"


def test_a_loss_that_is_no_number_stops_training_with_its_step_and_leaves_the_last_good_state(
    tiny: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, right = replace(tiny, checkpoint_every=2), Rollout.forward

    def from_step_5(self: Rollout, documents: list[TrainingDocument], weight: float) -> tuple[torch.Tensor, dict]:
        loss, hits = right(self, documents, weight)
        return (loss * float("nan") if weight else loss), hits  # only the last stage learns language

    with monkeypatch.context() as patch:
        patch.setattr(Rollout, "forward", from_step_5)
        with pytest.raises(ValueError, match="stops at step 5, .* the loss is nan.*training holds the last good state"):
            train(config, tmp_path / "run")
    steps: list[int] = []
    train(config, tmp_path / "run", lambda progress, loss: steps.append(progress.step))
    assert steps == [5, 6]


def test_weights_that_no_longer_compute_numbers_are_not_kept(tiny: TrainingConfig, tmp_path: Path) -> None:
    config = replace(tiny, checkpoint_every=1, learning_rate=1e30, final_learning_rate=1e30, warmup_steps=0)
    with pytest.raises(ValueError, match="stops at step 1, .*NaN or infinity: first at .*no state was kept yet"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _kept(tiny: TrainingConfig, folder: Path, step: int = 3) -> tuple[LM2, torch.optim.Optimizer]:
    model = LM2(tiny.model)
    model.initialise(torch.Generator().manual_seed(step))
    optimizer = _optimizer(tiny, model)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    save_state(folder, tiny, model, optimizer, Progress(step=step, seconds=1.5))
    return model, optimizer


def _resumed(tiny: TrainingConfig, folder: Path) -> tuple[Progress, LM2]:
    model = LM2(tiny.model)
    return resume(folder, tiny, model, _optimizer(tiny, model)), model


def test_training_goes_on_as_the_configuration_that_it_was_and_as_no_other(
    tiny: TrainingConfig, tmp_path: Path
) -> None:
    model, _ = _kept(tiny, tmp_path / "training")
    progress, back = _resumed(replace(tiny, checkpoint_every=1), tmp_path / "training")
    assert (progress.step, progress.seconds) == (3, 1.5)
    assert all(torch.equal(weight, back.weights()[name]) for name, weight in model.weights().items())
    others = {
        r"seed \(1 there, 2 here\)": replace(tiny, seed=2), r"batch \(": replace(tiny, batch=tiny.batch + 1),
        r"model.rope_theta \(": replace(tiny, model=replace(tiny.model, rope_theta=20000.0)),
    }  # fmt: skip
    for words, other in others.items():
        with pytest.raises(ValueError, match=f"another configuration: {words}.*folder of its own"):
            train(other, tmp_path)


def test_training_does_not_go_on_with_other_stories(tiny: TrainingConfig, tmp_path: Path) -> None:
    _kept(tiny, tmp_path / "training")
    there = Path(tiny.stories[0])
    moved = replace(tiny, stories=(str(shutil.copytree(there, tmp_path / there.name)),))
    assert _resumed(moved, tmp_path / "training")[0].step == 3
    story = tmp_path / there.name / "qa1_simulated_train.txt"
    story.write_text(story.read_text().replace("Mary", "Anna"))
    with pytest.raises(ValueError, match="another configuration: stories"):
        _resumed(moved, tmp_path / "training")


def test_a_damaged_state_of_training_is_refused_in_a_sentence(tiny: TrainingConfig, tmp_path: Path) -> None:
    folder = tmp_path / "training"
    _kept(tiny, folder)
    for path in folder.iterdir():
        whole = path.read_bytes()
        places = range(0, len(whole), max(1, len(whole) // 8))
        for content in (*(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in places), whole[:-9], b""):
            path.write_bytes(content)
            with pytest.raises(ValueError, match="cannot be continued.*remove that folder"):
                _resumed(tiny, folder)
        path.write_bytes(whole)
    assert _resumed(tiny, folder)[0].step == 3
    next(folder.glob("state*")).unlink()
    with pytest.raises(ValueError, match="cannot be continued"):
        _resumed(tiny, folder)


def test_whenever_a_write_is_cut_short_the_state_before_is_there(
    tiny: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, renamed, rename = tmp_path / "training", [], os.replace
    _kept(tiny, folder)

    def cut(*paths: Path) -> None:
        renamed.append(paths)
        if len(renamed) == stop:
            raise Interrupted
        rename(*paths)

    for stop in (1, 2):  # noqa: B007 - `cut` reads it
        renamed.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", cut)
            with pytest.raises(Interrupted):
                _kept(tiny, folder, step=4)
        assert _resumed(tiny, folder)[0].step == 3
    _kept(tiny, folder, step=4)
    assert _resumed(tiny, folder)[0].step == 4 and len(list(folder.iterdir())) == 2


def test_a_state_of_an_earlier_version_is_continued_and_a_log_says_that_it_is_not_checked(
    tiny: TrainingConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _kept(tiny, tmp_path)
    (tmp_path / "state-3.safetensors").rename(tmp_path / "state.safetensors")
    (tmp_path / "progress.json").write_text('{"step": 3, "seconds": 1.5}')
    assert _resumed(tiny, tmp_path)[0].step == 3 and "is not checked" in caplog.text
