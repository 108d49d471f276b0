"""Laws of `lm2 train` where it starts from a model: an adapter is written, and mistakes are one sentence."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from app.cli.main import main
from lm2.model.config import LM2Config
from lm2.weights.checkpoint import load, save


@pytest.fixture
def values(tmp_path: Path, build, plain_config: LM2Config) -> dict:
    """A configuration whose start is a toy Llama beside it."""
    base = build(replace(plain_config, attention_window=7), 3)
    save(tmp_path / "base", base.model, base.tokenizer, "")
    memory = {"memory": "gated", "slots": 5, "slot_dim": 12, "memory_heads": 2, "memory_layers": [1]}
    return {
        "start": "base", "train": "memory", "model": memory, "seed": 1, "batch": 2,
        "stages": [{"steps": 2, "phase": "questions", "questions": "simulated:qa1", "count": 10}],
    }  # fmt: skip


def _train(folder: Path, values: dict) -> int:
    (folder / "training.json").write_text(json.dumps(values))
    return main(["train", str(folder / "training.json"), "--out", str(folder / "run"), "--json"])


def test_an_adapter_is_written_and_told(tmp_path: Path, values: dict, capsys) -> None:
    assert _train(tmp_path, values) == 0
    document = json.loads(capsys.readouterr().out)
    assert {Path(file["path"]).name for file in document["written"]} == {
        "config.json", "adapter.safetensors", "card.md",
    }  # fmt: skip
    loaded = load(document["checkpoint"], "cpu")
    assert (document["checkpoint_digest"], document["parameters"]) == (loaded.digest, loaded.parameters)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": "nothing"}, "is neither a bundled checkpoint"),
        ({"train": "memories"}, "must be of ['all', 'lora', 'memory', 'memory+lora'], not 'memories'"),
        ({"train": "memory+lora"}, "needs lora: its rank and layers"),
        ({"train": "memory", "model": {}}, "needs a start and a model with a memory"),
        ({"lora": {"rank": 2}}, "needs rank and layers"),
        ({"stages": [{"steps": 2, "phase": "questions"}]}, "a stage has questions"),
        ({"stages": [{"steps": 2, "phase": "questions", "questions": "none.jsonl"}]}, "none.jsonl"),
        ({"stages": [{"steps": 2, "phase": "questions", "questions": "pairs:?n=2", "count": 1}]}, "of one group alone"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(tmp_path: Path, values: dict, capsys, change: dict, words: str) -> None:
    assert _train(tmp_path, values | change) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "run" / "checkpoint").exists()
