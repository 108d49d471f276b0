"""Laws of lm2.weights.adapter: a memory and a LoRA with their base are one model, and what does not fit is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lm2.model.config import LM2Config
from lm2.model.lora import LoRA, add_lora, is_lora
from lm2.weights import bundled
from lm2.weights.adapter import save_adapter
from lm2.weights.checkpoint import CheckpointError, load, read_files, save
from lm2.weights.graft import graft


@pytest.fixture
def adapter(tmp_path: Path, build, plain_config: LM2Config) -> Path:
    """An adapter, and its base beside it."""
    base = build(plain_config, 3)
    save(tmp_path / "base", base.model, base.tokenizer, "")
    model = graft(
        base, slots=5, slot_dim=12, memory_heads=2, memory_layers=(0, 2), generator=torch.Generator().manual_seed(0)
    ).model
    lora, drawn = LoRA(rank=2, layers=(0, 1), matrices=("attn.q", "mlp.out")), torch.Generator().manual_seed(1)
    add_lora(model, lora, drawn)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if is_lora(name) or name.endswith(".mem.o.weight"):
                weight.copy_(torch.randn(weight.shape, generator=drawn).bfloat16())
    save_adapter(tmp_path / "adapter", model, lora, read_files(str(tmp_path / "base")), tmp_path / "base", "Trained.")
    return tmp_path / "adapter"


def test_a_lora_is_added_to_its_matrix_and_to_no_other(adapter: Path) -> None:
    learned = load_file(adapter / "adapter.safetensors")
    base, loaded = (load(path, "cpu").model.weights() for path in (adapter.parent / "base", adapter))
    name = "blocks.1.mlp.out"
    product = learned[f"{name}.lora_out"].float() @ learned[f"{name}.lora_in"].float()
    torch.testing.assert_close(loaded[f"{name}.weight"], base[f"{name}.weight"] + product)
    changed = {name for name, weight in base.items() if not torch.equal(weight, loaded[name])}
    assert changed == {f"blocks.{layer}.{matrix}.weight" for layer in (0, 1) for matrix in ("attn.q", "mlp.out")}
    assert {weight.dtype for weight in learned.values()} == {torch.bfloat16}


def test_its_digest_is_of_base_and_adapter_and_its_files_are_those_of_both(adapter: Path) -> None:
    digest = load(adapter, "cpu").digest
    assert set(bundled.files_of(str(adapter))) == {adapter, adapter / "../base"}
    learned = load_file(adapter / "adapter.safetensors")
    save_file({name: 2 * weight for name, weight in learned.items()}, adapter / "adapter.safetensors")
    assert load(adapter, "cpu").digest != digest


def test_an_adapter_of_a_bundled_model_names_it_without_a_path(
    adapter: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    base = read_files(str(tmp_path / "base"))
    save_adapter(tmp_path / "deep" / "own", load(adapter, "cpu").model, None, base, tmp_path / "base", "")
    assert json.loads((tmp_path / "deep" / "own" / "config.json").read_text())["base"]["path"] == "base"
    assert load(tmp_path / "deep" / "own", "cpu").config == load(adapter, "cpu").config


def test_the_file_of_an_installed_package_is_found_without_importing_it(
    adapter: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "brings_a_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setattr(bundled, "_PACKAGES", {"base": "brings_a_model"})
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "base").rename(package / "base")
    assert load(adapter, "cpu").config.memory_layers == (0, 2)
    (package / "base").rename(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="is missing: .* install the package brings-a-model, or set LM2_BASE"):
        load(adapter, "cpu")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values | {"version": 2}, "an adapter has format, version, base, model, lora"),
        (lambda values: values | {"wings": 2}, "an adapter has format, version, base, model, lora"),
        (lambda values: values | {"base": None}, "base must have name, path and digest, not None"),
        (lambda values: values | {"base": values["base"] | {"name": "../base"}}, "a name without folders"),
        (lambda values: values | {"base": values["base"] | {"digest": 3}}, "base.digest must be a text, not 3"),
        (lambda values: values | {"base": values["base"] | {"digest": "0" * 64}}, "of digest 000000000000"),
        (lambda values: values | {"lora": {"rank": 2, "layers": [7]}}, "the model has 0 to 2"),
        (lambda values: values | {"lora": None}, "unknown ones"),
        (lambda values: values | {"model": values["model"] | {"slot_dim": 16}}, "must be of shape"),
        (lambda values: values | {"model": values["model"] | {"n_heads": 2}}, "has n_heads 4, and the model .* 2"),
        (lambda values: values | {"model": {}}, "lacks"),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_a_damaged_adapter_is_refused_in_a_sentence(
    adapter: Path, change: Callable[[dict], dict], words: str, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named:
        monkeypatch.setenv("LM2_BASE", str(adapter.parent / "base"))
    path = adapter / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(CheckpointError, match=words):
        load(adapter, "cpu")


def test_an_adapter_without_its_weights_is_refused(adapter: Path) -> None:
    (adapter / "adapter.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="adapter.safetensors is broken"):
        load(adapter, "cpu")
    (adapter / "adapter.safetensors").unlink()
    with pytest.raises(CheckpointError, match="adapter.safetensors is broken or no safetensors file"):
        load(adapter, "cpu")


@pytest.mark.parametrize("change", [{"rank": 0}, {"layers": ()}, {"layers": (1, 1)}, {"matrices": ("attn.q", "wings")}])
def test_a_lora_that_cannot_be_is_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="rank must be|names a place twice|lora needs blocks"):
        replace(LoRA(rank=2, layers=(0,)), **change)
