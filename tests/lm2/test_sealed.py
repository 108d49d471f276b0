"""Laws of what is kept: nothing that was changed, cut short or put in another's place is believed, and nothing wrong
comes of two writers."""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lm2 import files
from lm2.files import create_file, replace_file, replace_folder, restore_folder
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.sealed import DamagedError, read_arrays, read_sealed, write_arrays, write_sealed
from lm2.weights.checkpoint import Checkpoint

VALUES = {"answers": ["Zoë", 1.25, -0.0, None, [1, 2]], "key": {"b": 2, "a": "1"}}


def changed(content: bytes, every: int = 1) -> Iterator[bytes]:
    """A file with one bit flipped, one digit another one, or cut short, place by place."""
    for at in range(0, len(content), every):
        yield content[:at] + bytes([content[at] ^ 1 << random.Random(at).randrange(8)]) + content[at + 1 :]
        if content[at : at + 1].isdigit():
            yield content[:at] + b"%d" % ((int(content[at : at + 1]) + 1) % 10) + content[at + 1 :]
        yield content[:at]


def test_a_sealed_file_is_believed_only_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    write_sealed(path, VALUES, "one")
    assert read_sealed(path, "one", VALUES) == VALUES
    for content in changed(path.read_bytes(), every=2):
        path.write_bytes(content)
        try:
            assert read_sealed(path, "one", VALUES) == VALUES  # a blank between two values, say
        except DamagedError as error:
            assert "one.json" in str(error)


def test_a_file_in_anothers_place_is_not_believed(tmp_path: Path) -> None:
    write_sealed(tmp_path / "one.json", VALUES, {"document": 1})
    write_arrays(tmp_path / "one.npz", VALUES, {"bank": np.eye(2)}, {"document": 1})
    with pytest.raises(DamagedError, match="written for something else"):
        read_sealed(tmp_path / "one.json", {"document": 2}, VALUES)
    with pytest.raises(DamagedError, match="written for something else"):
        read_arrays(tmp_path / "one.npz", {"document": 2})


def test_values_that_lost_their_seal_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(VALUES))
    with pytest.raises(DamagedError, match="expected an object with answers, key, sha256"):
        read_sealed(path, "one", VALUES)
    with pytest.raises(FileNotFoundError):
        read_sealed(tmp_path / "none.json", "one", VALUES)


def test_sealed_arrays_are_believed_only_as_they_were_written(tmp_path: Path) -> None:
    path, arrays = (
        tmp_path / "one.npz",
        {"bank": np.arange(12, dtype=np.float32).reshape(3, 4), "empty": np.zeros((0, 2)), "one": np.array(3)},
    )
    write_arrays(path, VALUES, arrays, "one")
    for content in (path.read_bytes(), *changed(path.read_bytes(), every=7)):
        path.write_bytes(content)
        try:
            header, found = read_arrays(path, "one")
        except DamagedError as error:
            assert "one.npz" in str(error)
        else:
            assert (
                header == VALUES
                and all(np.array_equal(found[name], values) for name, values in arrays.items())
                and len(found) == 3
            )


def test_arrays_exchanged_within_a_file_are_found_out(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    write_arrays(path, VALUES, {"a": np.zeros(3), "b": np.ones(3)}, "one")
    with np.load(path) as held:
        header = held["header"]
    np.savez_compressed(path, header=header, a=np.ones(3), b=np.zeros(3))
    with pytest.raises(DamagedError, match="not those that were written"):
        read_arrays(path, "one")


def test_a_trace_says_what_made_it_and_is_believed_only_as_it_was_written(gated: Checkpoint, tmp_path: Path) -> None:
    path, one = (
        tmp_path / "one.npz",
        run(gated, RunSpec(checkpoint=gated.name, text="Mary went home.", captures=(Capture(Site.GATE_IN),))),
    )
    one.save(path)
    back = Trace.load(path)
    assert (back.processor, back.threads, back.weights_digest) == (
        one.processor,
        one.threads,
        gated.weights_digest,
    ) and back.threads > 0
    with np.load(path) as held:
        arrays = dict(held)
    header = arrays["header"].tobytes()
    for before, after in (
        (b'"segment": ', b'"segmenT": '),
        (b"cpu", b"gpu"),
        (b'"format": 2', b'"format": 1'),
        (b'"sha256"', b'"sha257"'),
    ):
        np.savez_compressed(path, **arrays | {"header": np.frombuffer(header.replace(before, after), np.uint8)})
        if before in header:
            with pytest.raises(ValueError, match="one.npz is not a trace"):
                Trace.load(path)
    np.savez_compressed(path, **arrays | {"logits": arrays["logits"] + np.float32(1)})
    with pytest.raises(ValueError, match="one.npz is not a trace"):
        Trace.load(path)


def test_a_trace_of_an_earlier_version_opens_with_the_digest_of_its_weights(gated: Checkpoint, tmp_path: Path) -> None:
    path, one = tmp_path / "old.npz", run(gated, RunSpec(checkpoint=gated.name, text="Mary went home."))
    one.save(path)
    with np.load(path) as held:
        arrays = dict(held)
    header = json.loads(arrays["header"].tobytes())
    old = {name: header[name] for name in ("spec", "device", "dtype", "tokens", "segments", "records")}
    old |= {"format": 1, "checkpoint_digest": "weights"}
    np.savez_compressed(path, **arrays | {"header": np.frombuffer(json.dumps(old).encode(), np.uint8)})
    back = Trace.load(path)
    assert (back.weights_digest, back.processor, back.threads) == ("weights", "", 0) and np.array_equal(
        back.logits, one.logits
    )


def test_a_file_is_created_by_one_of_those_who_try_at_once(tmp_path: Path) -> None:
    won: list[str] = []

    def attempt(name: str) -> None:
        if create_file(tmp_path / "head", name * 1000):
            won.append(name)

    threads = [threading.Thread(target=attempt, args=(name,)) for name in "abcdefgh"]
    for one in threads:
        one.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and (tmp_path / "head").read_text() == won[0] * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["head"]


def _at_once(work: Callable[[int], None], count: int = 6) -> list[BaseException]:
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            for _ in range(20):
                work(number)
        except BaseException as error:  # noqa: BLE001 - whatever a thread met is the finding
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for one in threads:
        one.start()
    for thread in threads:
        thread.join()
    return errors


def test_many_who_write_one_file_or_folder_leave_one_of_theirs_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)

    def write_file(number: int) -> None:
        with replace_file(tmp_path / "file") as aside:
            aside.write_text(str(number) * 1000)

    def write_folder(number: int) -> None:
        with replace_folder(tmp_path / "folder") as aside:
            (aside / "a").write_text(str(number))
            (aside / "b").write_text(str(number))

    assert _at_once(write_file) == [] and _at_once(write_folder) == []
    assert len(set((tmp_path / "file").read_text())) == 1
    assert (tmp_path / "folder" / "a").read_text() == (tmp_path / "folder" / "b").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_a_folder_whose_writer_was_killed_between_two_renames_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom lm2 import files\ndef write(text):\n    with"
        " files.replace_folder(Path(sys.argv[1])) as aside:\n        (aside /"
        " 'a').write_text(text)\nwrite('first')\nrename, seen = os.rename, []\ndef dies(*paths):\n   "
        " seen.append(paths)\n    os._exit(9) if len(seen) == 2 else rename(*paths)\nos.rename ="
        " dies\nwrite('second')\n"
    )
    root = str(Path(files.__file__).parents[1])
    assert subprocess.run([sys.executable, "-c", code, str(folder)], cwd=root, check=False).returncode == 9
    assert not folder.exists()
    restore_folder(folder)
    assert (folder / "a").read_text() == "first"
    with replace_folder(folder) as aside:
        (aside / "a").write_text("third")
    assert (folder / "a").read_text() == "third" and [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_what_dead_processes_left_aside_is_removed_by_the_next_write_and_what_the_living_write_is_not(
    tmp_path: Path,
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process in (dead.pid, os.getpid()):
        (tmp_path / f".one.json.{process}.part").write_text("half")
    (tmp_path / f".folder.{dead.pid}.old").mkdir()
    with replace_file(tmp_path / "one.json") as aside:
        aside.write_text("{}")
    with replace_folder(tmp_path / "folder"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {f".one.json.{os.getpid()}.part", "one.json", "folder"}


def test_a_name_reaches_the_disk_after_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("content"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("name"), replace(*paths)))
    with replace_file(tmp_path / "one") as aside:
        aside.write_text("one")
    assert order == ["content", "name"]
    shutil.rmtree(tmp_path)
