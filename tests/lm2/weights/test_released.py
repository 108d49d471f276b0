"""Laws of lm2.weights.released: checkpoints of the released LM2 code open, and give that code's numbers."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import tokenizers
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lm2.model.lm2 import LM2
from lm2.text.tokens import Tokenizer
from lm2.weights.checkpoint import Checkpoint, CheckpointError, load, save
from lm2.weights.released import _config_of, _table, our_weights, parity


def theirs(model: LM2) -> dict[str, torch.Tensor]:
    """A state_dict as the released code writes it: their names, every shared tensor under each of its names, the
    bank."""
    names, twins = _table(model.config.n_layers)
    weights = {their: model.weights()[our].clone() for our, their in names.items()}
    weights |= {twin: weights[first].clone() for twin, first in twins.items()}
    return weights | {"memory_bank": torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))}


@pytest.fixture
def beside(release: Checkpoint, tmp_path: Path) -> Path:
    """A folder with config.json and tokenizer.json, where a .pt may be put."""
    save(tmp_path / "made", release.model, release.tokenizer, "")
    (tmp_path / "made" / "model.safetensors").unlink()
    return tmp_path / "made"


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path, "cpu")
    assert "\n" not in str(caught.value) and str(path.parent) in str(caught.value)
    return str(caught.value)


def test_ours_agrees_with_the_recorded_outputs_of_the_released_code(oracle: Path) -> None:
    found = parity(oracle)
    assert found.segments >= 2
    assert found.logits <= 1e-5 and found.gates <= 1e-5 and found.bank <= 1e-5
    assert found.worst == max(found.logits, found.gates, found.bank)


def test_changed_weights_do_not_agree_with_the_recorded_outputs(oracle: Path, tmp_path: Path) -> None:
    with safe_open(oracle, "pt") as file:
        sizes = file.metadata()
    recorded = load_file(oracle)
    name = next(name for name in recorded if name.endswith("memory_module.forget_bias"))
    recorded[name] = recorded[name] + 0.5
    save_file(recorded, tmp_path / "changed.safetensors", metadata=sizes)
    assert parity(tmp_path / "changed.safetensors").worst > 1e-3


def test_the_recorded_weights_load_as_a_pt_and_give_the_recorded_logits(oracle: Path, tmp_path: Path) -> None:
    with safe_open(oracle, "pt") as file:
        config = _config_of(file.metadata())
    recorded = load_file(oracle)
    weights = {name.removeprefix("weights/"): value for name, value in recorded.items() if name.startswith("weights/")}
    torch.save(weights, tmp_path / "theirs.pt")
    (tmp_path / "config.json").write_text(
        json.dumps({"format": "lm2-workbench", "version": 1, "model": config.to_json()})
    )
    small = Tokenizer(tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a")))
    (tmp_path / "tokenizer.json").write_text(small.to_json())
    model = load(tmp_path / "theirs.pt", "cpu").model
    with torch.inference_mode():
        logits = model(recorded["segment0/input_ids"])
    torch.testing.assert_close(logits, recorded["segment0/logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("metadata", [None, {"hidden_size": "16"}, {"hidden_size": "many", "layers": "2"}])
def test_parity_with_any_other_file_is_one_clear_error(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weights/a": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(ValueError, match="other.safetensors does not hold recorded outputs of the released LM2 code"):
        parity(path)


@pytest.mark.parametrize("content", [None, b"", b"no safetensors at all"])
def test_parity_with_a_broken_or_missing_file_is_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="broken.safetensors does not hold recorded outputs"):
        parity(path)


@pytest.mark.parametrize("wrap", [None, "model", "state_dict", "model_state_dict"])
def test_a_pt_of_the_released_code_loads_with_every_weight(
    release: Checkpoint, beside: Path, wrap: str | None, ids
) -> None:
    weights = theirs(release.model)
    torch.save(weights if wrap is None else {wrap: weights, "step": 3}, beside / "theirs.pt")
    back = load(beside / "theirs.pt", "cpu")
    assert all(torch.equal(value, release.model.weights()[name]) for name, value in back.model.weights().items())
    assert torch.equal(back.model(ids(2, 16)), release.model(ids(2, 16)))


def test_the_stored_bank_is_left_behind(release: Checkpoint) -> None:
    assert our_weights(theirs(release.model), 2).keys() == release.model.weights().keys()


def test_missing_and_unknown_names_are_refused_with_some_of_them(release: Checkpoint, beside: Path) -> None:
    weights = theirs(release.model)
    del weights["model.norm.weight"]
    torch.save(weights | {"wings": torch.zeros(1)}, beside / "theirs.pt")
    message = refused(beside / "theirs.pt")
    assert "1 are missing ['model.norm.weight'] and 1 are unknown ['wings']" in message


def test_twins_that_differ_are_refused(release: Checkpoint, beside: Path) -> None:
    weights = theirs(release.model)
    twin = "model.layers.1.mem_attn.memory_module.attention_mlp.1.weight"
    weights[twin] = weights[twin] + 1
    torch.save(weights, beside / "theirs.pt")
    assert (
        f"{twin} and " in (message := refused(beside / "theirs.pt"))
        and "one tensor in the released code, but differ" in message
    )


class Bomb:
    """A pickle that would make a folder when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pt_is_refused_and_does_not_run(beside: Path, tmp_path: Path, zipped: bool) -> None:
    path = beside / "bomb.pt"
    if zipped:
        torch.save({"model": Bomb(tmp_path / "exploded")}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert "holds more than weights" in refused(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"model": {"a": "b"}}, torch.zeros(2)])
def test_a_pt_that_is_no_table_of_weights_is_refused(beside: Path, content: object) -> None:
    torch.save(content, beside / "theirs.pt")
    assert "no table of weights" in refused(beside / "theirs.pt")


def test_a_pt_that_says_more_than_it_holds_is_refused_before_a_model_is_built(
    release: Checkpoint, beside: Path
) -> None:
    weights, path = theirs(release.model), beside / "theirs.pt"
    torch.save(weights | {"model.norm.weight": torch.ones(1).expand(10**12)}, path)
    message = refused(path)
    assert "model.norm.weight of shape (1000000000000,) would take more" in message and "bytes, and" in message
    torch.save(weights | {"model.norm.weight": torch.ones(3)}, path)
    assert "ln_final.w must be of shape (16,), not (3,)" in refused(path)
    torch.save(weights, path)
    values = json.loads((beside / "config.json").read_text())
    values["model"] |= {"n_layers": 10**8}
    (beside / "config.json").write_text(json.dumps(values))
    assert "100,000,000 blocks cannot be in" in refused(path)


@pytest.mark.parametrize(
    ("weight", "said"),
    [(torch.ones(16, dtype=torch.int32), "is torch.int32"),
        (torch.full((16,), float("inf")), "holds 16 entries of 16 that are NaN or infinite"),
     (torch.ones(16).to_sparse(), "in layout torch.sparse_coo"), (torch.ones(16, device="meta"), "without numbers")],
)  # fmt: skip
def test_what_is_no_weight_in_a_pt_is_named_as_the_file_names_it(
    release: Checkpoint, beside: Path, weight: torch.Tensor, said: str
) -> None:
    torch.save(theirs(release.model) | {"model.norm.weight": weight}, beside / "theirs.pt")
    message = refused(beside / "theirs.pt")
    assert f"{beside / 'theirs.pt'}: model.norm.weight" in message and said in message


def test_parity_with_outputs_that_are_no_numbers_is_no_parity(oracle: Path, tmp_path: Path) -> None:
    with safe_open(oracle, "pt") as file:
        sizes = file.metadata()
    recorded, path = load_file(oracle), tmp_path / "changed.safetensors"
    save_file(recorded | {"segment0/logits": recorded["segment0/logits"] * float("nan")}, path, metadata=sizes)
    with pytest.raises(ValueError, match="segment0/logits holds NaN or infinity"):
        parity(path)
    for change in ({"segments": "0"}, {"layers": "1000000000"}):
        save_file(recorded, path, metadata=sizes | change)
        with pytest.raises(ValueError, match="changed.safetensors does not hold recorded outputs.* it says"):
            parity(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_pt_is_refused(release: Checkpoint, beside: Path, share: float) -> None:
    path = beside / "theirs.pt"
    torch.save(theirs(release.model), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert str(path) in refused(path)


def test_a_zip_that_is_no_pt_is_refused(beside: Path) -> None:
    with zipfile.ZipFile(beside / "theirs.pt", "w") as file:
        file.writestr("hello.txt", "hello")
    refused(beside / "theirs.pt")


def test_without_a_config_only_the_released_size_opens(release: Checkpoint, beside: Path) -> None:
    (beside / "config.json").unlink()
    torch.save(theirs(release.model), beside / "theirs.pt")
    assert "needs config.json beside it" in refused(beside / "theirs.pt")


def test_a_config_of_another_kind_beside_a_pt_is_refused(release: Checkpoint, gated: Checkpoint, beside: Path) -> None:
    torch.save(theirs(release.model), beside / "theirs.pt")
    values = {"format": "lm2-workbench", "version": 1, "model": gated.config.to_json()}
    (beside / "config.json").write_text(json.dumps(values))
    assert "says memory 'gated'" in refused(beside / "theirs.pt")
