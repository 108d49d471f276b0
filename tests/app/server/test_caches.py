"""Laws of the caches: what is remembered of files is remembered of these files, and not of their names."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from app.server import cache
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.tasks import stories
from lm2.tasks.babi_files import write
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import Checkpoint, load, save


def test_other_weights_or_another_configuration_in_a_folder_are_opened_anew(
    gated: Checkpoint, build, gated_config, folder: Callable[[Checkpoint], str]
) -> None:
    place = folder(gated)
    first = cache.checkpoint(place, "cpu", "float32")
    assert cache.checkpoint(place, "cpu", "float32") is first
    save(Path(place), build(gated_config, 99).model, gated.tokenizer, "")
    second = cache.checkpoint(place, "cpu", "float32")
    assert second.digest == load(place, "cpu").digest != first.digest
    spec = RunSpec(checkpoint=place, text="Mary went home.")
    assert not np.allclose(run(first, spec).logits, run(second, spec).logits)
    config = Path(place) / "config.json"
    config.write_text(config.read_text().replace('"rope_theta": 10000.0', '"rope_theta": 20000.0'))
    third = cache.checkpoint(place, "cpu", "float32")
    assert third.config.rope_theta == 20000.0 and third.digest != second.digest


def test_weights_put_in_place_within_a_moment_and_of_one_size_are_opened_anew(
    gated: Checkpoint, build, gated_config, folder: Callable[[Checkpoint], str]
) -> None:
    place = folder(gated)
    weights = Path(place) / "model.safetensors"
    first, then = cache.checkpoint(place, "cpu", "float32"), weights.stat()
    save(Path(place), build(gated_config, 99).model, gated.tokenizer, "")
    os.utime(weights, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert weights.stat().st_size == then.st_size
    assert cache.checkpoint(place, "cpu", "float32").digest != first.digest


def test_other_stories_in_the_data_folder_are_read_anew(tmp_path: Path, gated: Checkpoint, monkeypatch) -> None:
    monkeypatch.setenv("LM2_DATA_DIR", str(tmp_path))

    def put(first: int) -> None:
        write([simulate(1, seed=seed).story for seed in range(first, first + 20)], tmp_path / "qa1_train.txt")
        (tmp_path / "babi").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / "babi" / "babi-v1.2-en-train.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "qa1_train.txt", "en/qa1_train.txt")

    put(0)
    before, origin = stories.real_stories(1), stories.origin()
    put(50)
    after = stories.real_stories(1)
    assert (
        before
        and after
        and [story.lines for story in before] != [story.lines for story in after]
        and origin != stories.origin()
    )
