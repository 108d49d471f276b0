"""Laws of what sweeps, probes and transcripts keep: a damaged or foreign piece is computed again or refused, and never
believed."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lm2 import origin
from lm2.weights.checkpoint import Checkpoint
from probes import claims
from probes.claims import claim
from probes.explain.llm import Chat, digest
from probes.features import source_names
from probes.probing.result import Reading
from probes.probing.store import ProbeStore
from probes.store import SweepStore

KEY = {
    "spec": {"kind": "toy", "values": [1.5]},
    "spec_digest": "a",
    "checkpoint_digest": "weights and more",
    "dtype": "float32",
}
UNITS = {"baseline": [0.5, -1.25], "units": [[1.0, 2.0], [3.0, float("inf")]], "joints": []}
READING = [{"log_probabilities": (4, 2), "control": (4,), "direction": (3, 2)}]
FORM = {"baseline": (2,), "units": (2, 2), "joints": (0,)}


@pytest.fixture
def model(gated: Checkpoint) -> Checkpoint:
    return replace(gated, digest=KEY["checkpoint_digest"], weights_digest="weights")


def flipped(content: bytes, i: int) -> bytes:
    return content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :]


def damaged(
    path: Path, every: int, read: Callable[[], Any], right: Callable[[Any], bool], caplog: pytest.LogCaptureFixture
) -> None:
    """Flip bits, raise digits, cut, empty: what is read is nothing, which is told, or what was written."""
    whole = path.read_bytes()
    places = range(0, len(whole), every)
    digits = [whole[:i] + b"%d" % ((whole[i] - 47) % 10) + whole[i + 1 :] for i in places if whole[i : i + 1].isdigit()]
    for content in (*(flipped(whole, i) for i in places), *digits, whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        caplog.clear()
        restored = read()
        assert right(restored) if restored is not None else path.name.split(".")[0] in caplog.text
    path.write_bytes(whole)
    assert right(read())


def as_written(restored: Any) -> bool:
    return all(np.array_equal(np.array(restored[name], float), np.array(UNITS[name], float)) for name in UNITS)


def test_a_damaged_document_of_a_sweep_is_computed_again(
    model: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SweepStore(tmp_path, KEY, model)
    store.put("units-00000", UNITS)
    damaged(tmp_path / "documents" / "units-00000.json", 3, lambda: store.get("units-00000", FORM), as_written, caplog)


def test_one_documents_file_in_anothers_place_or_from_another_sweep_is_not_believed(
    model: Checkpoint, tmp_path: Path
) -> None:
    one, other = (
        SweepStore(tmp_path / "one", KEY, model),
        SweepStore(tmp_path / "other", KEY | {"spec_digest": "b"}, model),
    )
    for store in (one, other):
        store.put("units-00000", UNITS)
    documents = tmp_path / "one" / "documents"
    (documents / "units-00001.json").write_bytes((documents / "units-00000.json").read_bytes())
    assert one.get("units-00001", FORM) is None
    (documents / "units-00000.json").write_bytes((tmp_path / "other" / "documents" / "units-00000.json").read_bytes())
    assert one.get("units-00000", FORM) is None
    (documents / "units-00000.json").write_text(json.dumps(UNITS | {"units": []}))
    assert one.get("units-00000", FORM) is None, "without a seal"


def _reading(seed: int) -> Reading:
    draw = np.random.default_rng(seed)
    return Reading(
        log_probabilities=draw.standard_normal((4, 2)).astype(np.float32), control=draw.integers(0, 2, 4),
        direction=draw.standard_normal((3, 2)).astype(np.float32), fits=(), code=None, permuted=None,
    )  # fmt: skip


def test_a_damaged_reading_of_a_probe_is_computed_again_and_anothers_too(
    model: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, mean, tokens = (
        ProbeStore(tmp_path, KEY, model),
        source_names.parse("bank:mean"),
        source_names.parse("tokens"),
    )
    reading = _reading(0)
    store.put(mean, (reading,))
    (path,) = (tmp_path / "readings").iterdir()

    def right(restored: tuple[Reading, ...]) -> bool:
        return len(restored) == 1 and all(
            np.array_equal(getattr(restored[0], name), getattr(reading, name))
            for name in ("log_probabilities", "control", "direction")
        )

    damaged(path, 5, lambda: store.get(mean, READING), right, caplog)
    store.put(tokens, (_reading(1),))
    (path.parent / f"{tokens.stem}.npz").write_bytes(path.read_bytes())
    assert store.get(tokens, READING) is None and right(store.get(mean, READING))


def test_a_damaged_head_is_refused_in_a_sentence(model: Checkpoint, tmp_path: Path) -> None:
    SweepStore(tmp_path, KEY, model)
    head = tmp_path / "sweep.json"
    whole = head.read_bytes()
    for i in range(0, len(whole), 5):
        head.write_bytes(flipped(whole, i))
        try:
            SweepStore(tmp_path, KEY, model)
        except ValueError as error:
            assert str(tmp_path) in str(error) and "folder of its own" in str(error)
        else:
            assert json.loads(head.read_bytes()) == json.loads(whole)


def test_of_many_who_claim_a_folder_at_once_with_other_specs_one_has_it(model: Checkpoint, tmp_path: Path) -> None:
    for attempt in range(10):
        won, refused = [], []

        def attempt_claim(number: int, head: Path = tmp_path / str(attempt) / "sweep.json") -> None:
            try:
                won.append(claim(head, KEY | {"spec_digest": str(number)}, "sweep", model))
            except ValueError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=attempt_claim, args=(number,)) for number in range(4)]
        for one in threads:
            one.start()
        for thread in threads:
            thread.join()
        assert (
            len(won) == 1
            and len(refused) == 3
            and all("another sweep: its spec_digest differ" in words for words in refused)
        )


def test_results_of_another_code_or_device_are_read_and_told_but_not_gone_on_with(
    model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    SweepStore(tmp_path, KEY, model).put("units-00000", UNITS)
    made = origin.made_by("cpu", "float32")
    for change, words in (
        ({"code": "0"}, "the code"),
        ({"device": "cuda"}, "the device"),
        ({"versions": {}}, "the libraries"),
    ):
        monkeypatch.setattr(claims, "made_by", lambda device, dtype, change=change: made | change)
        caplog.clear()
        store = SweepStore(tmp_path, KEY, model)
        assert as_written(store.get("units-00000", FORM)) and f"was begun where {words} differed" in caplog.text
        with pytest.raises(ValueError, match=f"begun where {words} differed.*folder of its own"):
            store.get("units-00001", FORM)
    monkeypatch.setattr(claims, "made_by", lambda device, dtype: made | {"threads": 99, "processor": "another"})
    assert SweepStore(tmp_path, KEY, model).get("units-00001", FORM) is None, "other last bits alone"


def test_a_folder_of_an_earlier_version_is_read_and_not_gone_on_with(
    model: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "sweep.json").write_text(json.dumps(KEY | {"checkpoint_digest": "weights"}))
    (tmp_path / "documents" / "units-00000.json").write_text(json.dumps(UNITS | {"units": [[1.0, 2.0], [4.0, 5.0]]}))
    store = SweepStore(tmp_path, KEY, model)
    assert store.get("units-00000", FORM)["units"] == [[1.0, 2.0], [4.0, 5.0]] and "an earlier version" in caplog.text
    with pytest.raises(ValueError, match="earlier version.*folder of its own"):
        store.get("units-00001", FORM)
    with pytest.raises(ValueError, match="its checkpoint_digest differ"):
        SweepStore(tmp_path, KEY, replace(model, weights_digest="others"))


@pytest.mark.parametrize(
    "values",
    [
        None,
        3,
        [1.0, 2.0],
        {},
        UNITS | {"units": {}},
        UNITS | {"units": [[1.0, 2.0]]},
        UNITS | {"baseline": ["a", "b"]},
        UNITS | {"more": []},
    ],
)
def test_a_document_of_an_earlier_version_with_others_values_is_refused(
    values: Any, model: Checkpoint, tmp_path: Path
) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "sweep.json").write_text(json.dumps(KEY | {"checkpoint_digest": "weights"}))
    (tmp_path / "documents" / "units-00000.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="begun by an earlier version.*folder of its own"):
        SweepStore(tmp_path, KEY, model).get("units-00000", FORM)


def test_a_reading_of_an_earlier_version_with_others_arrays_is_refused(model: Checkpoint, tmp_path: Path) -> None:
    header, arrays = _reading(0).pack()
    whole, source = [header | {"arrays": sorted(arrays)}], source_names.parse("bank:mean")
    (tmp_path / "readings").mkdir()
    (tmp_path / "probe.json").write_text(json.dumps(KEY | {"checkpoint_digest": "weights"}))

    def read(headers: Any, forms: list[dict[str, tuple[int, ...]]]) -> Any:
        encoded = np.frombuffer(json.dumps(headers).encode(), np.uint8)
        np.savez(
            tmp_path / "readings" / f"{source.stem}.npz",
            header=encoded,
            **{f"0.{name}": array for name, array in arrays.items()},
        )
        return ProbeStore(tmp_path, KEY, model).get(source, forms)

    assert np.array_equal(read(whole, READING)[0].direction, arrays["direction"])
    wider = [READING[0] | {"direction": (4, 2)}]
    for headers, forms in (
        (None, READING),
        (3, READING),
        ([], READING),
        ([{}], READING),
        (whole * 2, READING),
        ("text", READING),
        (whole, wider),
    ):
        with pytest.raises(ValueError, match="begun by an earlier version.*folder of its own"):
            read(headers, forms)


def test_a_damaged_transcript_is_asked_again_and_one_of_another_request_too(
    speaking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = speaking(lambda system, user: f"{system}: 12345 {user}")
    chat = Chat("echo", url=server.url, folder=tmp_path)
    assert chat.ask("a", "b") == "a: 12345 b"
    (path,) = tmp_path.iterdir()
    damaged(
        path,
        3,
        lambda: chat._get(path.stem),
        lambda restored: restored["response"]["choices"][0]["message"]["content"] == "a: 12345 b",
        caplog,
    )
    chat.ask("a", "c")
    (other,) = set(tmp_path.iterdir()) - {path}
    other.write_bytes(path.read_bytes())
    assert chat.ask("a", "c") == "a: 12345 c" and len(server.requests) == 3


def test_a_transcript_of_an_earlier_version_is_replayed_where_it_is_of_the_request(speaking, tmp_path: Path) -> None:
    server = speaking(lambda system, user: "said")
    Chat("echo", url=server.url, folder=tmp_path).ask("a", "b")
    (path,) = tmp_path.iterdir()
    kept = {name: value for name, value in json.loads(path.read_text()).items() if name != "sha256"}
    path.write_text(json.dumps(kept))
    replay = Chat("echo", url=None, folder=tmp_path)
    assert replay.ask("a", "b") == "said" and digest(kept["request"]) == path.stem
    path.write_text(json.dumps(kept | {"request": kept["request"] | {"seed": 1}}))
    with pytest.raises(ValueError, match="holds no transcript"):
        replay.ask("a", "b")
