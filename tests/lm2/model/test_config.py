"""Laws of lm2.model.config: sizes that cannot be built are refused with their numbers."""

import json
from dataclasses import replace

import pytest

from lm2.model.config import BankStart, GatePooling, LM2Config, MemoryKind
from lm2.model.rope import Llama3Rope

ROPE = {"factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"d_vocab": 0}, "d_vocab must be at least 1, not 0"),
        ({"n_heads": 3}, "d_model 16 does not divide among n_heads 3"),
        ({"n_key_value_heads": 3}, "n_heads 4 does not divide among n_key_value_heads 3"),
        ({"n_heads": 16, "n_key_value_heads": 1}, "= 1"),
        ({"attention_window": 6}, "attention_window 6 is shorter than segment_length 7"),
        ({"slots": 0}, "slots of at least 1, not 0"),
        ({"memory_layers": ()}, r"0..2, not \(\)"),
        ({"memory_layers": (1, 3)}, r"0..2, not \(1, 3\)"),
        ({"memory_layers": (-1,)}, r"0..2, not \(-1,\)"),
        ({"memory_layers": (1, 1)}, "distinct"),
        ({"memory_heads": 3}, "d_model 16 does not divide among memory_heads 3"),
        ({"memory_heads": 8}, "slot_dim 12 does not divide among memory_heads 8"),
        ({"slots": 13}, "13 > 12"),
        ({"read_top_k": 6}, r"1..5 \(slots\), not 6"),
        ({"start_keeps": 1.0}, "start_keeps must be between 0 and 1, not 1.0"),
        ({"start_keeps": 0.9, "forget_bias": 6.0}, "0.9 decides .*forget_bias 6.0 must be left out"),
        ({"start_keeps": 0.9, "memory": MemoryKind.TOKENS}, "only a gated memory .*not memory tokens"),
        ({"memory": MemoryKind.RELEASE}, "not 7, 5, 12, 16"),
        ({"memory": MemoryKind.NONE}, "0 slots and no memory_layers, not 5"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused_with_their_numbers(
    gated_config: LM2Config, change: dict, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        replace(gated_config, **change)


def test_a_learned_bank_may_have_more_slots_than_columns(gated_config: LM2Config) -> None:
    assert replace(gated_config, slots=13, bank_start=BankStart.LEARNED).slots == 13


def test_a_config_without_start_keeps_has_the_json_of_earlier_versions(gated_config: LM2Config) -> None:
    assert "start_keeps" not in gated_config.to_json()
    keeping = replace(gated_config, start_keeps=0.99)
    assert LM2Config.from_json(keeping.to_json()) == keeping and keeping.digest != gated_config.digest


def test_json_gives_the_config_back(gated_config: LM2Config) -> None:
    scaling = Llama3Rope(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
    config = replace(
        gated_config, rope_scaling=scaling, bank_start=BankStart.LEARNED, gate_pooling=GatePooling.PREFIX, read_top_k=2
    )
    assert LM2Config.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"wings": 2}, "unknown fields.*wings"),
        ({"memory": "great"}, "memory must be of .*gated.*not 'great'"),
        ({"bank_start": "warm"}, "bank_start must be of"),
        ({"d_model": "16"}, "d_model must be a whole number, not '16'"),
        ({"rope_theta": None}, "rope_theta must be a finite number, not None"),
        ({"slots": True}, "slots must be a whole number, not True"),
        ({"d_model": 10**30}, "d_model must be at most"),
        ({"n_layers": 10**400}, "n_layers must be at most"),
        ({"d_vocab": 2**28 + 1}, "d_vocab must be at most 268,435,456"),
        ({"d_mlp": 24.0}, "d_mlp must be a whole number, not 24.0"),
        ({"slots": -1}, "slots must be at least 0"),
        ({"rope_theta": -1.0}, "rope_theta must be within 1..1e30, not -1.0"),
        ({"rope_theta": float("inf")}, "rope_theta must be a finite number, not inf"),
        ({"rms_norm_eps": 0}, "rms_norm_eps must be between 0 and 1, not 0.0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a finite number, not nan"),
        ({"embedding_std": -1}, "embedding_std must not be negative"),
        ({"tied_embeddings": "false"}, "tied_embeddings must be true or false, not 'false'"),
        ({"attention_window": "7"}, "attention_window must be a whole number, not '7'"),
        ({"memory_layers": 3}, "memory_layers must be a sequence, not 3"),
        ({"memory_layers": "02"}, "memory_layers must be a sequence, not '02'"),
        ({"memory_layers": [0, 1.5]}, "memory_layers must be a whole number, not 1.5"),
        ({"memory_layers": list(range(10**5))}, r"distinct blocks of 0..2, not \(0, 1, 2, 3, 4, 5, \.\.\.\)"),
        ({"rope_scaling": 8}, "RopeScaling is an object with fields, not 8"),
        ({"rope_scaling": {"factor": 2}}, "Llama3Rope cannot be made from"),
        ({"rope_scaling": ROPE | {"factor": "2"}}, "factor must be a finite number, not '2'"),
        ({"rope_scaling": ROPE | {"factor": 0.5}}, "factor must be within 1..268,435,456, not 0.5"),
        ({"rope_scaling": ROPE | {"high_freq_factor": 1.0}}, "needs 0 < low_freq_factor < high_freq_factor"),
    ],
)
def test_json_with_foreign_values_is_refused_by_name(gated_config: LM2Config, change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LM2Config.from_json(gated_config.to_json() | change)


def test_json_that_lacks_a_field_is_refused_by_name(gated_config: LM2Config) -> None:
    with pytest.raises(ValueError, match="lacks.*d_mlp"):
        LM2Config.from_json({name: value for name, value in gated_config.to_json().items() if name != "d_mlp"})


def test_lookback_is_the_window_without_the_own_segment(gated_config: LM2Config, plain_config: LM2Config) -> None:
    assert (gated_config.lookback, replace(gated_config, attention_window=14).lookback, plain_config.lookback) == (
        0,
        7,
        None,
    )


def test_sizes_beyond_any_model_are_refused_at_once_for_every_kind_of_memory(tokens_config: LM2Config) -> None:
    with pytest.raises(ValueError, match="memory tokens need memory_layers = 0..99999999, every block in order"):
        replace(tokens_config, n_layers=10**8)
    for name in ("d_vocab", "n_layers", "segment_length", "slots"):
        with pytest.raises(ValueError, match=f"{name} must be at most") as caught:
            LM2Config.from_json(tokens_config.to_json() | {name: 10**400})
        assert len(str(caught.value)) < 200


def test_json_that_is_no_table_is_refused() -> None:
    for values in (None, [], "config", 3):
        with pytest.raises(ValueError, match="LM2Config is an object with fields"):
            LM2Config.from_json(values)
