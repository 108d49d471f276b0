"""Laws of benchmarks/: recipes that can be compared, and a script that trains each of them as `lm2 train` does."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from lm2.model.config import MemoryKind
from lm2.model.lm2 import LM2
from lm2.tasks.babi_files import write
from lm2.tasks.simulator import simulate
from lm2.training.config import TrainingConfig
from lm2.training.curriculum import Phase, Stage
from lm2.training.train import train
from lm2.weights.bundled import FOLDER
from lm2.weights.checkpoint import load

ROOT = Path(__file__).parents[3]


def test_the_recipes_differ_in_the_model_alone_and_have_as_many_parameters_within_a_hundredth() -> None:
    recipes = {path.stem: TrainingConfig.load(path) for path in (ROOT / "benchmarks" / "recipes").glob("*.json")}
    assert {name: recipe.model.memory for name, recipe in recipes.items()} == {
        "lm2": MemoryKind.GATED, "rmt": MemoryKind.TOKENS, "llama": MemoryKind.NONE
    }  # fmt: skip
    alike = {replace(recipe, model=recipes["lm2"].model, memory_from_attention=True) for recipe in recipes.values()}
    assert alike == {recipes["lm2"]}
    assert Path(recipes["lm2"].tokenizer or "").samefile(FOLDER / "babi-lm2" / "tokenizer.json")
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in LM2(recipe.model).parameters()) for recipe in recipes.values()]
    assert max(sizes) < 1.01 * min(sizes)


def test_models_that_are_trained_side_by_side_are_as_if_each_were_trained_alone(tmp_path: Path) -> None:
    write([simulate(1, seed=seed).story for seed in range(20)], tmp_path / "qa1_simulated_train.txt")
    recipe = TrainingConfig.load(ROOT / "benchmarks" / "recipes" / "lm2.json")
    small = replace(recipe.model, d_model=16, d_mlp=8, n_layers=2, slots=4, slot_dim=16, memory_layers=(0, 1))
    config = replace(
        recipe,
        model=small,
        stories=("qa1_simulated_train.txt",),
        books=(),
        tokenizer=str(recipe.tokenizer),
        batch=2,
        stages=(
            Stage(steps=4, phase=Phase.OPEN, statements=(2, 3)),
            Stage(steps=16, phase=Phase.MEMORY, statements=(2, 4)),
        ),
        cycles=(
            replace(recipe.cycles[0], steps=12, warmup_steps=3),
            replace(recipe.cycles[1], steps=8, warmup_steps=2),
        ),
    )
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(config.to_json()))
    command = [str(ROOT / "benchmarks" / "train_on_gpu.sh"), str(tmp_path / "out"), str(path)]
    environment = os.environ | {"SEEDS": "3 4", "LM2": f"{sys.executable} -m app.cli.main", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for seed in (3, 4):
        alone = train(replace(TrainingConfig.load(path), seed=seed), tmp_path / f"alone-{seed}")
        beside = load(str(tmp_path / "out" / f"toy-s{seed}" / "checkpoint"), "cpu").model.weights()
        for name, weight in alone.weights().items():
            torch.testing.assert_close(beside[name], weight, rtol=0, atol=1e-5, msg=name)


def test_a_model_that_cannot_be_trained_is_named_and_the_others_are_trained_all_the_same(tmp_path: Path) -> None:
    command = [str(ROOT / "benchmarks" / "train_on_gpu.sh"), str(tmp_path / "out"), "good.json", "bad.json"]
    trains = tmp_path / "lm2"
    trains.write_text('#!/bin/sh\n[ "$2" = good.json ] && mkdir "$6"\n')
    trains.chmod(0o755)
    done = subprocess.run(
        command, env=os.environ | {"SEEDS": "0 1", "LM2": str(trains)}, capture_output=True, text=True, check=False
    )
    out = tmp_path / "out"
    assert done.returncode == 1 and sorted(done.stderr.splitlines()) == [
        f"bad-s{seed} was not trained: see {out}/bad-s{seed}.log" for seed in (0, 1)
    ]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["good-s0", "good-s1"]
