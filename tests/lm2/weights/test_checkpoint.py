"""Laws of lm2.weights.checkpoint: what is saved comes back, what is broken is refused in one sentence that names the
file."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import lm2.weights.checkpoint
from lm2.model.config import BankStart, LM2Config
from lm2.model.lm2 import LM2
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.weights.bundled import bundled_names
from lm2.weights.checkpoint import Checkpoint, CheckpointError, choose_device, load, save
from lm2.weights.folder import ModelFiles


@pytest.fixture
def folder(gated: Checkpoint, tmp_path: Path) -> Path:
    """A saved checkpoint that a test may break."""
    path = tmp_path / "mine"
    save(path, gated.model, gated.tokenizer, "# A toy")
    return path


def refused(path: Path | str, **arguments: str) -> str:
    """The one sentence with which loading fails."""
    with pytest.raises(CheckpointError) as caught:
        load(path, **{"device": "cpu"} | arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


def test_saving_and_loading_gives_every_weight_back_bitwise(checkpoint: Checkpoint, tmp_path: Path, text: str) -> None:
    save(tmp_path / "one", checkpoint.model, checkpoint.tokenizer, "# Card\n\nÄ 🙂")
    back = load(tmp_path / "one", "cpu")
    weights = checkpoint.model.weights()
    assert back.config == checkpoint.config
    assert back.model.weights().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in back.model.weights().items())
    assert (back.card, back.name, back.device, back.dtype) == (
        "# Card\n\nÄ 🙂",
        str(tmp_path / "one"),
        "cpu",
        "float32",
    )
    one, other = (run(c, RunSpec(checkpoint=c.name, text=text)) for c in (checkpoint, back))
    assert np.array_equal(one.logits, other.logits)


def test_tied_and_learned_weights_come_back(
    build: Callable[..., Checkpoint], gated_config: LM2Config, tmp_path: Path, ids
) -> None:
    own = build(replace(gated_config, tied_embeddings=True, bank_start=BankStart.LEARNED), 5)
    save(tmp_path / "one", own.model, own.tokenizer, "")
    back = load(tmp_path / "one", "cpu").model
    assert back.unembed.weight is back.embed.weight
    assert torch.equal(back(ids(1, 7)), own.model(ids(1, 7)))


def test_the_digest_is_stable_and_belongs_to_the_weights(
    gated: Checkpoint, build, gated_config: LM2Config, tmp_path: Path
) -> None:
    other = build(gated_config, 77)
    for name, one in (("a", gated), ("b", gated), ("c", other)):
        save(tmp_path / name, one.model, one.tokenizer, name)
    a, b, c = (load(tmp_path / name, "cpu").digest for name in "abc")
    assert a == b != c and len(a) == 64


def test_a_bfloat16_checkpoint_is_the_rounded_one(gated: Checkpoint, folder: Path) -> None:
    back = load(folder, "cpu", "bfloat16")
    assert back.dtype == "bfloat16"
    for name, value in back.model.weights().items():
        assert torch.equal(value, gated.model.weights()[name].to(torch.bfloat16))


def test_parameters_are_counted_once_and_by_what_they_serve(gated: Checkpoint, plain: Checkpoint) -> None:
    assert plain.memory_parameters == 0
    mine = sum(p.numel() for layer in (0, 2) for p in gated.model.blocks[layer].mem.parameters())
    assert gated.memory_parameters == mine
    assert gated.parameters == sum(p.numel() for p in gated.model.parameters())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{folder / name} is missing" in refused(folder)


def test_a_missing_card_is_an_empty_card(folder: Path) -> None:
    (folder / "card.md").unlink()
    assert load(folder, "cpu").card == ""


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused_with_their_size(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert f"{path} is broken" in refused(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"3", b'{"model_type": "llama"}',
        b'{"format": "lm2-workbench", "version": 2, "model": {}}',
     b'{"format": "lm2-workbench", "version": 1, "model": []}',
     b'{"format": "lm2-workbench", "version": 1, "model": {}}'],
)  # fmt: skip
def test_a_foreign_config_is_refused_with_its_path(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    assert str(folder / "config.json") in refused(folder)


@pytest.mark.parametrize(
    "change",
    [{"d_model": "16"}, {"memory": "huge"}, {"n_heads": 5}, {"memory_layers": 3}, {"memory_layers": None},
        {"rope_scaling": {"factor": 2}},
     {"attention_window": "long"}, {"rope_theta": None}],
)  # fmt: skip
def test_a_config_of_impossible_values_is_refused_with_its_path(folder: Path, change: dict) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["model"] |= change
    path.write_text(json.dumps(values))
    assert str(path) in refused(folder)


@pytest.mark.parametrize("version", ["true", "1.0", '"1"'])
def test_a_version_that_only_looks_like_ours_is_none(folder: Path, version: str) -> None:
    _edited(folder / "config.json", '"version": 1', f'"version": {version}')
    assert f"{folder / 'config.json'} is neither ours" in refused(folder)


def test_weights_of_another_shape_or_name_are_refused_with_the_path(folder: Path) -> None:
    path = folder / "model.safetensors"
    good = load_file(path)
    for bad, said in (
        (good | {"ln_final.w": torch.zeros(3)}, "ln_final.w must be of shape (16,), not (3,)"),
        ({name: value for name, value in good.items() if name != "embed.weight"}, "lack 1 names ['embed.weight']"),
        (good | {"extra": torch.zeros(1)}, "1 unknown ones ['extra']"),
    ):
        save_file(bad, path)
        message = refused(folder)
        assert str(path) in message and said in message


def test_a_tokenizer_that_is_none_or_too_large_is_refused_with_its_path(folder: Path, gated_config: LM2Config) -> None:
    path = folder / "tokenizer.json"
    good = path.read_text()
    path.write_text("{}")
    assert str(path) in refused(folder)
    path.write_text(good)
    config = json.loads((folder / "config.json").read_text())
    config["model"]["d_vocab"] = 100
    (folder / "config.json").write_text(json.dumps(config))
    message = refused(folder)
    assert str(path) in message and f"{gated_config.d_vocab} tokens, more than the model's 100" in message


NUMBERS = "expected float16, bfloat16 or float32, or float64, which is rounded"


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.ones(16, dtype=torch.int64), f"ln_final.w is torch.int64; {NUMBERS}"),
        (torch.ones(16, dtype=torch.bool), "ln_final.w is torch.bool"),
        (torch.ones(16).to(torch.float8_e4m3fn), "ln_final.w is torch.float8_e4m3fn"),
        (torch.ones(16, dtype=torch.complex64), "ln_final.w is torch.complex64"),
        (torch.full((16,), float("nan")), "ln_final.w holds 16 entries of 16 that are NaN or infinite"),
        (torch.full((16,), 1e39, dtype=torch.float64), "ln_final.w holds 16 entries of 16 that are NaN or infinite"),
    ],
)  # fmt: skip
def test_what_is_no_finite_floating_point_number_is_no_weight(folder: Path, weight: torch.Tensor, said: str) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | {"ln_final.w": weight}, path)
    message = refused(folder)
    assert f"{path}: " in message and said in message


def test_weights_that_the_format_asked_for_cannot_hold_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | {"ln_final.w": torch.full((16,), 3.4e38)}, path)
    assert load(folder, "cpu").dtype == "float32"
    assert f"{path}: ln_final.w holds 16 entries of 16 that are NaN or infinite as bfloat16" in refused(
        folder, dtype="bfloat16"
    )


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_stored_in_other_floats_are_rounded_to_the_format_asked_for(folder: Path, stored: torch.dtype) -> None:
    path = folder / "model.safetensors"
    weights = {name: weight.to(stored) for name, weight in load_file(path).items()}
    save_file(weights, path)
    assert all(
        torch.equal(weight, weights[name].float()) for name, weight in load(folder, "cpu").model.weights().items()
    )


def _with_header(path: Path, change: Callable[[str], str]) -> None:
    """Write a file of weights again with another header in front of the same bytes."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + length].decode()).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda header: header.replace('"ln_final.w"', '"blocks.0.ln1.w"'),
            "its header is not JSON: a table has the name 'blocks.0.ln1.w' twice",
        ),
        (lambda header: header.replace("[16]", "[-16]", 1), "its header says no shape and place of"),
        (lambda header: header.replace('"data_offsets":[0,', '"data_offsets":[64,'), "of its data, expected 0"),
        (lambda header: "[]", "its header is no table of tensors"),
        (lambda header: header[:-9], "its header is not JSON"),
        (lambda header: "[" * 100_000, "its header is nested too deeply"),
        (lambda header: header.replace('"F32"', '"F1024"', 1), "F1024"),
    ],
)
def test_a_header_that_lies_is_refused_with_what_is_wrong_with_it(
    folder: Path, change: Callable[[str], str], said: str
) -> None:
    path = folder / "model.safetensors"
    _with_header(path, change)
    message = refused(folder)
    assert f"{path} is broken or no safetensors file" in message and said in message


def test_a_header_longer_than_its_file_and_data_beyond_the_header_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes((2**63).to_bytes(8, "little") + whole[8:])
    assert "its header would take 9,223,372,036,854,775,808 bytes" in refused(folder)
    path.write_bytes(whole + b"more")
    assert "bytes of data, and" in refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"n_layers": 10_000},
        {"n_layers": 10**8},
        {"d_model": 2**28, "memory_heads": 1, "n_heads": 4},
        {"d_mlp": 2**28},
        {"d_vocab": 2**28},
    ],
)
def test_sizes_that_the_weights_do_not_have_are_refused_before_anything_is_built(
    folder: Path, change: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*arguments: object) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr(LM2, "empty", built)
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["model"] |= change
    path.write_text(json.dumps(values))
    message = refused(folder)
    assert str(path) in message and ("blocks cannot be in" in message or "must be of shape" in message)


def test_a_tokenizer_that_the_library_panics_at_is_refused_with_its_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):  # what the library raises is no Exception
        pass

    class Panicking:
        @staticmethod
        def from_str(text: str) -> None:
            raise PanicException("index out of bounds\nnote: run with RUST_BACKTRACE=1")

    monkeypatch.setattr("tokenizers.Tokenizer", Panicking)
    assert (
        f"{folder / 'tokenizer.json'} is not a tokenizer in Hugging Face's JSON format: index out of bounds note"
        in refused(folder)
    )


def test_a_tokenizer_nested_beyond_reason_or_a_card_that_is_no_text_is_refused_with_its_path(folder: Path) -> None:
    card, tokenizer = folder / "card.md", folder / "tokenizer.json"
    card.write_bytes(b"# Caf\xe9")
    assert f"{card} is not readable as text: byte 5 is not UTF-8" in refused(folder)
    tokenizer.write_text('{"a":' * 100_000)
    assert str(tokenizer) in refused(folder)


@pytest.mark.parametrize("number", [2**24 + 1, 2**31])
def test_a_token_of_an_id_beyond_any_vocabulary_is_refused_at_once(folder: Path, number: int) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"]["vocab"]["P"] = number
    path.write_text(json.dumps(values))
    assert f"it has a token of id {number:,}, expected at most 16,777,216" in refused(folder)


def test_a_file_that_says_a_name_twice_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"d_mlp"', '"d_model": 32, "d_mlp"', 1))
    assert f"{path} is not JSON: a table has the name 'd_model' twice" in refused(folder)


@pytest.mark.parametrize(
    "device", ["", "cpu:1", "cpu:x", "cpu:", "cuda:99", "cpu:-1", "cuda:", " cpu", "cpu:0:0", "cpu:" + "9" * 5000]
)
def test_a_device_that_is_not_there_is_refused_with_those_that_are(folder: Path, device: str) -> None:
    message = refused(folder, device=device)
    assert message.startswith("device ") and "is not on this machine; it has" in message and "cpu" in message


def test_the_first_processor_can_be_named_by_its_number() -> None:
    assert choose_device("cpu:0") == torch.device("cpu", 0)


def test_an_unknown_dtype_device_or_name_is_refused(folder: Path) -> None:
    assert "['float32', 'bfloat16', 'float16'], not 'float8'" in refused(folder, dtype="float8")
    assert "device 'tpu' is not on this machine; it has" in refused(folder, device="tpu")
    assert "'no-such-model' is neither a bundled checkpoint" in refused("no-such-model")
    for name in bundled_names()[:1]:
        assert f"did you mean {name!r}" in refused(name + "x")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_is_refused_where_there_is_none_and_auto_takes_what_is_there() -> None:
    with pytest.raises(CheckpointError, match="'cuda:0' is not on this machine; it has.* cpu"):
        choose_device("cuda:0")
    assert choose_device("auto").type in ("cpu", "mps")
    assert choose_device("cpu") == torch.device("cpu")


def test_a_failed_load_writes_nothing(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")}
    refused(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")} == before


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one_whole(
    folder: Path, build, gated_config: LM2Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(folder, "cpu")
    other = build(gated_config, 99)

    def disk_full(*arguments: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(lm2.weights.checkpoint, "save_file", disk_full)
        with pytest.raises(OSError, match="no space left"):
            save(folder, other.model, other.tokenizer, "new")
        with pytest.raises(OSError, match="no space left"):
            save(folder.parent / "second", other.model, other.tokenizer, "new")
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]
    after = load(folder, "cpu")
    assert (after.digest, after.card) == (before.digest, before.card)


def test_saving_replaces_the_whole_folder(folder: Path, build, gated_config: LM2Config) -> None:
    (folder / "stale.txt").write_text("old")
    old = load(folder, "cpu").digest
    other = build(gated_config, 99)
    save(folder, other.model, other.tokenizer, "new")
    assert load(folder, "cpu").digest != old
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def test_a_checkpoint_can_be_moved(folder: Path) -> None:
    shutil.move(folder, folder.with_name("moved"))
    assert load(folder.with_name("moved"), "cpu").card == "# A toy"


def test_an_id_beyond_the_models_is_refused_as_the_checkpoint_opens_however_few_tokens_there_are(
    folder: Path, gated_config: LM2Config
) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    beyond = gated_config.d_vocab + 140
    few = {"a": 0, "b": 1, "garden": beyond}
    path.write_text(
        json.dumps(values | {"model": {"type": "WordLevel", "vocab": few, "unk_token": "a"}, "added_tokens": []})
    )
    assert f"{path} needs {beyond + 1} tokens" in refused(folder) and f"its largest id is {beyond}" in refused(folder)
    added = {
        "id": beyond,
        "content": "<mask>",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    model = {"type": "WordLevel", "vocab": {"a": 0, "<mask>": beyond}, "unk_token": "a"}
    path.write_text(json.dumps(values | {"model": model, "added_tokens": [added]}))
    assert f"its largest id is {beyond}" in refused(folder)
    path.write_text(
        json.dumps(
            values
            | {
                "model": {"type": "WordLevel", "vocab": {"a": 0, "b": gated_config.d_vocab - 1}, "unk_token": "a"},
                "added_tokens": [],
            }
        )
    )
    assert load(folder, "cpu").tokenizer.size == gated_config.d_vocab


def test_an_added_token_that_the_library_would_number_anew_is_refused(folder: Path, gated_config: LM2Config) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    added = {
        "id": 9,
        "content": "<mask>",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
    for number in (9, gated_config.d_vocab + 140):
        path.write_text(json.dumps(values | {"model": model, "added_tokens": [added | {"id": number}]}))
        message = refused(folder)
        assert str(path) in message and f"'<mask>' is of id {number}, and the library numbers it 2" in message
    path.write_text(json.dumps(values | {"model": model, "added_tokens": [added | {"id": 2}]}))
    assert load(folder, "cpu").tokenizer.encode("<mask>").ids == (2,)


def _edited(path: Path, before: str, after: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert before in content
    path.write_text(content.replace(before, after, 1), encoding="utf-8")


def test_the_digest_covers_configuration_tokenizer_and_weights_and_nothing_else(
    folder: Path, build, gated_config: LM2Config
) -> None:
    first = load(folder, "cpu")
    assert load(folder, "cpu", "bfloat16").digest == first.digest and load(str(folder), "cpu").digest == first.digest
    (folder / "card.md").write_text("another card")
    assert load(folder, "cpu").digest == first.digest
    _edited(folder / "config.json", '"rope_theta": 10000.0', '"rope_theta": 20000.0')
    other = load(folder, "cpu")
    assert (
        other.digest != first.digest
        and other.setup_digest != first.setup_digest
        and other.weights_digest == first.weights_digest
    )
    _edited(folder / "config.json", '"rope_theta": 20000.0', '"rope_theta": 10000.0')
    assert load(folder, "cpu").digest == first.digest
    _edited(folder / "tokenizer.json", '"add_prefix_space":false', '"add_prefix_space":true')
    assert load(folder, "cpu").digest != first.digest and load(folder, "cpu").weights_digest == first.weights_digest
    save(folder, build(gated_config, 99).model, first.tokenizer, "")
    other = load(folder, "cpu")
    assert (
        other.digest != first.digest
        and other.setup_digest == first.setup_digest
        and other.weights_digest != first.weights_digest
    )


def test_files_that_change_while_they_are_read_are_refused(
    folder: Path, build, gated_config: LM2Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, read = build(gated_config, 99), lm2.weights.checkpoint.read_own

    def replaced(path: Path) -> ModelFiles:
        files = read(path)
        save(folder, other.model, other.tokenizer, "")
        return files

    with monkeypatch.context() as patch:
        patch.setattr(lm2.weights.checkpoint, "read_own", replaced)
        with pytest.raises(CheckpointError, match="changed while they were read"):
            load(folder, "cpu")
    assert load(folder, "cpu").weights_digest
