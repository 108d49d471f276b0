"""Laws of training that starts from a checkpoint: what is not trained stays, what is trained is an adapter of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lm2.training.frozen
from lm2.model.block import Block
from lm2.model.config import LM2Config, MemoryKind
from lm2.model.lora import LoRA, is_lora
from lm2.model.weights import in_memory
from lm2.training.config import TrainingConfig
from lm2.training.curriculum import Phase, Stage
from lm2.training.question_lessons import QuestionLessons
from lm2.training.start import Start, Trained
from lm2.training.state import Progress
from lm2.training.train import _optimizer, train
from lm2.weights.checkpoint import CheckpointError, load, save

PLACES = ("bathroom", "hallway", "garden", "office", "kitchen", "bedroom")
PEOPLE = ("Mary", "John", "Daniel", "Sandra")


@pytest.fixture
def graft(tmp_path: Path, build, plain_config: LM2Config) -> TrainingConfig:
    """A toy Llama in a folder, which is to learn a memory and LoRA on a file of questions."""
    base = build(plain_config, 3)
    save(tmp_path / "base", base.model, base.tokenizer, "A toy.")
    rows = [
        {"context": f"{person} went to the {place}.", "question": f"Where is {person}?", "answer": place}
        for person in PEOPLE
        for place in PLACES
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = replace(
        plain_config, memory=MemoryKind.GATED, slots=5, slot_dim=16, memory_heads=4, memory_layers=(1, 2),
        attention_window=7,
    )  # fmt: skip
    return TrainingConfig(
        model=model, start=str(tmp_path / "base"), train=Trained.MEMORY_AND_LORA, lora=LoRA(rank=2, layers=(1, 2)),
        seed=1, stages=(Stage(steps=20, phase=Phase.QUESTIONS, questions=str(tmp_path / "mine.jsonl")),), batch=8,
        learning_rate=3e-2, warmup_steps=2, checkpoint_every=7,
    )  # fmt: skip


def test_the_loss_falls_and_the_base_stays_bit_for_bit(graft: TrainingConfig, tmp_path: Path) -> None:
    losses: list[float] = []
    longer = replace(graft, stages=(replace(graft.stages[0], steps=60),), checkpoint_every=60)
    trained = train(longer, tmp_path / "run", lambda progress, loss: losses.append(loss))
    assert sum(losses[-10:]) / 10 < 0.75 * sum(losses[:3]) / 3
    base = load(tmp_path / "base", "cpu").model.weights()
    others = {name: weight for name, weight in trained.weights().items() if not in_memory(name) and not is_lora(name)}
    assert set(others) == set(base) and all(torch.equal(weight, base[name]) for name, weight in others.items())
    assert not any(weight.requires_grad for name, weight in trained.named_parameters() if name in base)
    optimized = sum(weight.numel() for group in _optimizer(graft, trained).param_groups for weight in group["params"])
    assert optimized == sum(weight.numel() for name, weight in trained.weights().items() if name not in base)


@pytest.mark.parametrize("part", [Trained.MEMORY, Trained.MEMORY_AND_LORA])
def test_the_saved_adapter_computes_what_was_trained(graft: TrainingConfig, tmp_path: Path, ids, part: Trained) -> None:
    config = replace(graft, train=part, lora=graft.lora if part is Trained.MEMORY_AND_LORA else None)
    trained = train(config, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoint"
    assert {path.name for path in folder.iterdir()} == {"config.json", "adapter.safetensors", "card.md"}
    loaded = load(folder, "cpu")
    assert loaded.config == config.model and "A toy." in loaded.card and "mine.jsonl" in loaded.card
    with torch.no_grad():
        for weight in trained.parameters():
            if weight.requires_grad:
                weight.copy_(weight.bfloat16())
        bank, again = (model.segment(ids(2, 7)).bank for model in (trained, loaded.model))
        torch.testing.assert_close(
            trained.segment(ids(2, 7, 1), bank).logits, loaded.model.segment(ids(2, 7, 1), again).logits
        )
    if config.lora is None:
        assert all(torch.equal(weight, loaded.model.weights()[name]) for name, weight in trained.weights().items())


def test_before_training_a_fresh_memory_and_lora_change_no_logit(graft: TrainingConfig, tmp_path: Path, ids) -> None:
    none = replace(graft, learning_rate=0.0, final_learning_rate=0.0)
    trained = train(none, tmp_path / "run")
    base = load(tmp_path / "base", "cpu").model
    assert torch.equal(trained(ids(2, 7)), base(ids(2, 7)))


def test_blocks_below_the_first_trained_one_run_once_a_segment_and_change_no_loss_beyond_rounding(
    graft: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[float] = []
    computed = list[int]()
    forward = Block.forward

    def counted(block: Block, *rest: object) -> object:
        computed.append(id(block))
        return forward(block, *rest)

    monkeypatch.setattr(Block, "forward", counted)
    trained = train(graft, tmp_path / "kept", lambda progress, loss: kept.append(loss))
    pairs = len(PEOPLE) * len(PLACES)
    assert computed.count(id(trained.blocks[0])) <= 2 * pairs  # statements, and questions with their answers
    assert computed.count(id(trained.blocks[1])) > graft.stages[0].steps
    every: list[float] = []
    monkeypatch.setattr(lm2.training.frozen, "_before_first_trained", lambda model: 0)
    train(graft, tmp_path / "every", lambda progress, loss: every.append(loss))
    assert kept == pytest.approx(every, rel=1e-4)


def test_questions_of_one_group_share_a_document_and_those_without_a_context_do_not_for_that(
    build, plain_config: LM2Config, tmp_path: Path
) -> None:
    def rows(context: str, groups: int) -> list[dict[str, str]]:
        return [
            {"context": context, "question": f"Where is {person}?", "answer": "garden", "group": str(group)}
            for group in range(groups)
            for person in PEOPLE
        ]

    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, [*rows("", 3), *rows("Mary went back.", 1)])))
    lessons = QuestionLessons.of(str(tmp_path / "mine.jsonl"), None, build(plain_config, 3))
    assert [len(document.questions) for document in lessons.training + lessons.held_out] == [4, 4, 4, 4]


class Interrupted(Exception):
    """Somebody pulled the plug."""


def test_interrupted_and_resumed_training_of_a_part_gives_the_same_weights(
    graft: TrainingConfig, tmp_path: Path
) -> None:
    def pull_the_plug(progress: Progress, loss: float) -> None:
        if progress.step == 11:
            raise Interrupted

    whole = train(graft, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(graft, tmp_path / "parts", pull_the_plug)
    steps: list[int] = []
    parts = train(graft, tmp_path / "parts", lambda progress, loss: steps.append(progress.step))
    assert steps[0] == 8 and all(torch.equal(weight, parts.weights()[name]) for name, weight in whole.weights().items())
    with pytest.raises(ValueError, match="another configuration: train"):
        train(replace(graft, train=Trained.MEMORY), tmp_path / "parts")


def test_an_adapter_is_trained_further_and_stays_an_adapter_of_the_same_base(
    graft: TrainingConfig, tmp_path: Path
) -> None:
    train(graft, tmp_path / "first")
    adapter = str(tmp_path / "first" / "checkpoint")
    further = replace(graft, start=adapter, train=Trained.MEMORY)
    trained, before = train(further, tmp_path / "second"), Start.read(adapter)
    assert all(
        torch.equal(weight, before.weights[name].float()) != in_memory(name)
        for name, weight in trained.weights().items()
    )
    assert load(tmp_path / "second" / "checkpoint", "cpu").config == graft.model
    whole = train(replace(further, train=Trained.ALL, lora=None, stages=graft.stages), tmp_path / "third")
    assert set(whole.weights()) == set(load(adapter, "cpu").model.weights())
    assert (tmp_path / "third" / "checkpoint" / "model.safetensors").exists()


def test_a_base_learns_by_lora_alone_and_then_has_a_memory_that_begins_as_its_attention(
    graft: TrainingConfig, plain_config: LM2Config, tmp_path: Path
) -> None:
    alone = replace(plain_config, attention_window=7)
    first = train(replace(graft, train=Trained.LORA, model=alone, stages=graft.stages), tmp_path / "first")
    adapter = str(tmp_path / "first" / "checkpoint")
    assert load(adapter, "cpu").config == alone and not any(map(in_memory, first.weights()))
    none = replace(graft, start=adapter, learning_rate=0.0, final_learning_rate=0.0, memory_from_attention=True)
    second = train(none, tmp_path / "second")
    assert torch.equal(second.blocks[1].mem.o.weight, second.blocks[1].attn.o.weight)
    kept = {name: weight for name, weight in first.weights().items() if is_lora(name)}
    assert kept and all(torch.equal(second.weights()[name], weight.bfloat16().float()) for name, weight in kept.items())


def test_an_adapter_says_which_base_is_missing_or_another(
    graft: TrainingConfig, tmp_path: Path, build, plain_config: LM2Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(graft, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoint"
    digest = load(folder, "cpu").digest
    moved = (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="the base 'base' of .* is missing: put it at .* set LM2_BASE"):
        load(folder, "cpu")
    monkeypatch.setenv("LM2_BASE", str(moved))
    assert load(folder, "cpu").digest == digest
    other = build(plain_config, 4)
    save(tmp_path / "other", other.model, other.tokenizer, "")
    monkeypatch.setenv("LM2_BASE", str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="trained on another base than .*other, whose digest is"):
        load(folder, "cpu")
    monkeypatch.setenv("LM2_BASE", str(tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match="LM2_BASE is .*nothing', where no model is"):
        load(folder, "cpu")
    monkeypatch.setenv("LM2_BASE", str(folder))
    with pytest.raises(CheckpointError, match="is an adapter itself"):
        load(folder, "cpu")


def test_a_configuration_file_says_only_in_what_the_model_differs_from_its_start(
    graft: TrainingConfig, tmp_path: Path
) -> None:
    values = {
        "start": "base",
        "train": "memory+lora",
        "lora": {"rank": 2, "layers": [1, 2]},
        "model": {
            "memory": "gated", "slots": 5, "slot_dim": 16, "memory_heads": 4, "memory_layers": [1, 2],
            "attention_window": 7,
        },
        "seed": 1,
        "stages": [{"steps": 20, "phase": "questions", "questions": "mine.jsonl"}],
        "batch": 8, "learning_rate": 3e-2, "warmup_steps": 2, "checkpoint_every": 7,
    }  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(values))
    assert TrainingConfig.load(tmp_path / "train.json") == graft
    train(graft, tmp_path / "run")
    further = {name: values[name] for name in ("train", "seed", "stages")} | {"start": "run/checkpoint"}
    (tmp_path / "further.json").write_text(json.dumps(further))
    config = TrainingConfig.load(tmp_path / "further.json")
    assert (config.model, config.lora) == (graft.model, graft.lora)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": None, "tokenizer": "t.json"}, "train 'memory.lora' needs a start"),
        ({"lora": None}, "needs lora: its rank and layers"),
        ({"train": Trained.ALL}, "lora is for train 'lora' and 'memory.lora', not 'all'"),
        ({"lora": LoRA(rank=2, layers=(1, 3))}, "the model has 0 to 2"),
        ({"tokenizer": "t.json"}, "needs either a tokenizer or a start"),
        ({"stages": (Stage(steps=1, phase=Phase.OPEN),)}, "needs stories"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(graft: TrainingConfig, change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(graft, **change)


def test_a_model_that_does_not_fit_its_start_is_refused(graft: TrainingConfig, tmp_path: Path) -> None:
    wider = replace(graft, model=replace(graft.model, rope_theta=500.0))
    with pytest.raises(ValueError, match=r"start '.*base' has rope_theta 10000.0, and the model .* 500.0"):
        train(wider, tmp_path / "run")
    with pytest.raises(ValueError, match="its attention_window must be its segment_length 7, not None"):
        replace(graft, model=replace(graft.model, attention_window=None))
    train(graft, tmp_path / "run")
    other = replace(graft, start=str(tmp_path / "run" / "checkpoint"), lora=LoRA(rank=3, layers=(1,)))
    with pytest.raises(ValueError, match="lora is .*, and that of the start .* is"):
        train(other, tmp_path / "other")
