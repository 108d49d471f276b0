"""Laws of lm2.training: a run is a function of its configuration, interrupted or not."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lm2.training
from lm2.babi import write
from lm2.config import LM2Config
from lm2.bundled import FOLDER, bundled_names
from lm2.checkpoint import load
from lm2.curriculum import Document, Phase
from lm2.model import LM2
from lm2.simulator import simulate
from lm2.tokens import Tokenizer
from lm2.training import Progress, Rollout, TrainingConfig, learning_rate, train


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, gated_config: LM2Config) -> TrainingConfig:
    """Six steps on simulated stories, saved after every third."""
    folder = tmp_path_factory.mktemp("training")
    stories = [simulate(1, seed=seed).story for seed in range(30)]
    write(stories, folder / "qa1_simulated_train.txt")
    lines = [line.text for story in stories for line in story.lines]
    answers = [f" {question.answer}" for story in stories for question in story.questions]
    tokenizer = Tokenizer.train([" ".join(lines), *lines, *answers], 400)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    return TrainingConfig(
        model=replace(gated_config, d_vocab=tokenizer.size, segment_length=8, attention_window=8),
        stories=(str(folder / "qa1_simulated_train.txt"),), tokenizer=str(folder / "tokenizer.json"), seed=1, steps=6, batch=2,
        segments=2, lengths=(8,), questions=1, warmup_steps=2, checkpoint_every=3,
    )  # fmt: skip


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the third step on documents have their full length, so that six steps see memory at work."""

    def hurry(config: TrainingConfig, progress: Progress) -> None:
        if progress.step >= 2:
            progress.phase, progress.segments = Phase.MEMORY, config.segments

    monkeypatch.setattr(lm2.training, "advance", hurry)


class Interrupted(Exception):
    """Somebody pulled the plug."""


def test_interrupted_and_resumed_training_gives_the_same_weights_bitwise(tiny: TrainingConfig, tmp_path: Path, hurried: None) -> None:
    whole = train(tiny, tmp_path / "whole")

    def pull_the_plug(progress: Progress, loss: float) -> None:
        if progress.step == 5:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(tiny, tmp_path / "parts", pull_the_plug)
    steps: list[int] = []
    parts = train(tiny, tmp_path / "parts", lambda progress, loss: steps.append(progress.step))
    assert steps == [4, 5, 6]  # from the last state that was saved
    for name, weight in whole.weights().items():
        assert torch.equal(weight, parts.weights()[name]), name


def test_training_changes_every_weight_and_another_seed_gives_others(tiny: TrainingConfig, tmp_path: Path, hurried: None) -> None:
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
    with caplog.at_level(logging.INFO, logger="lm2.training"):
        train(tiny, tmp_path / "run")
    assert [record.message.split()[1].rstrip(",") for record in caplog.records if "held-out" in record.message] == ["3", "6"]


def test_each_document_counts_alike_however_many_answers_it_has(gated, tiny: TrainingConfig) -> None:
    model = gated.model
    one = Document(segments=((5, 6, 7, 8, 9, 10),), answers=((0, 1, 2, 3, 4),), distance=0)
    other = Document(segments=((11, 12, 13),), answers=((1,),), distance=0)
    with torch.no_grad():
        together, right = Rollout(model)([one, other], 0.0)
        alone = [Rollout(model)([document], 0.0)[0] for document in (one, other)]
    torch.testing.assert_close(together, sum(alone) / 2)
    assert right[0][1] == 6


def test_a_document_that_has_ended_keeps_its_bank(gated) -> None:
    short = Document(segments=((5, 6, 7),), answers=((1,),), distance=0)
    long = Document(segments=((5, 6, 7), (8, 9, 10)), answers=((1,), (1,)), distance=0)
    with torch.no_grad():
        together, _ = Rollout(gated.model)([short, long], 0.0)
        alone = [Rollout(gated.model)([document], 0.0)[0] for document in (short, long)]
    torch.testing.assert_close(together, sum(alone) / 2)


def test_the_learning_rate_rises_in_a_line_and_falls_in_half_a_cosine(tiny: TrainingConfig) -> None:
    config = replace(tiny, steps=100, warmup_steps=10, learning_rate=1.0, final_learning_rate=0.1)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0 and all(a > b for a, b in zip(rates[10:], rates[11:]))
    assert rates[55] == pytest.approx(0.55) and rates[99] == pytest.approx(0.1, abs=1e-3)


def test_a_configuration_file_names_its_stories_beside_itself(tiny: TrainingConfig, tmp_path: Path) -> None:
    values = {"model": tiny.model.to_json(), "stories": ["qa1_a.txt"], "tokenizer": "tokenizer.json", "seed": 1, "steps": 6}
    path = tmp_path / "train.json"
    path.write_text(json.dumps(values))
    config = TrainingConfig.load(path)
    assert config.stories == (str(tmp_path / "qa1_a.txt"),) and config.tokenizer == str(tmp_path / "tokenizer.json")
    assert config.model == tiny.model


@pytest.mark.parametrize("change", [{"steps": 0}, {"wings": 1}, {"stories": []}, {"lengths": [2]}, {"model": {"memory": "none"}}])
def test_an_impossible_configuration_file_is_refused_with_its_path(tiny: TrainingConfig, tmp_path: Path, change: dict) -> None:
    values = {"model": tiny.model.to_json(), "stories": ["qa1_a.txt"], "tokenizer": "tokenizer.json", "seed": 1, "steps": 6}
    path = tmp_path / "train.json"
    path.write_text(json.dumps(values | change))
    with pytest.raises(ValueError, match="train.json is not a training configuration"):
        TrainingConfig.load(path)


def test_the_configuration_of_each_bundled_model_is_read() -> None:
    for name in bundled_names():
        config = TrainingConfig.load(FOLDER / name / "training.json")
        assert config.model == load(name, "cpu").config
