"""Laws of bands: what a browser is sent of a map of any length hides nothing."""

from dataclasses import replace

import numpy as np
import pytest
from planted_store import GROUND, PlantedStore

from app.server.bands import COLUMNS, Pooled, StoreMap, encoded

TOKENS, SLOTS = 4_001, 190


@pytest.fixture
def config(gated_config):
    return replace(gated_config, slots=SLOTS, slot_dim=SLOTS + 2)


@pytest.fixture
def peaks() -> dict[tuple[int, int], float]:
    draw = np.random.default_rng(3)
    cells = {(0, 0), (TOKENS - 1, SLOTS - 1)}
    while len(cells) < 100:
        cells.add((int(draw.integers(TOKENS)), int(draw.integers(SLOTS))))
    return {cell: float(draw.uniform(0.02, 1)) for cell in cells}


def _map(store: PlantedStore, how: Pooled = Pooled.MAX, minus: PlantedStore | None = None) -> StoreMap:
    return StoreMap(store=store, minus=minus, what="reads", block=0, head=1, how=how)


def _bytes(shown: StoreMap, level: int, fold: int) -> np.ndarray:
    bands = range(-(-shown.columns(level) // COLUMNS))
    return np.concatenate([shown.band(level, fold, number) for number in bands], 1)


def test_every_cell_that_stands_out_is_seen_at_every_zoom(config, peaks) -> None:
    shown = _map(PlantedStore(config=config, count=TOKENS, peaks=peaks))
    ground = encoded(np.array([[GROUND]]), shown.high, signed=False)[0, 0]
    for level in range(13):
        for fold in range(9):
            seen = _bytes(shown, level, fold)
            assert seen.shape == (-(-SLOTS // 2**fold), -(-TOKENS // 2**level))
            places = {(slot >> fold, token >> level) for token, slot in peaks}
            assert all(seen[place] > ground for place in places)
            assert (seen > ground).sum() == len(places), "and nothing else stands out"


@pytest.mark.parametrize("how", Pooled)
def test_the_bytes_say_the_values_to_a_hundredth_of_their_square_root(config, peaks, how: Pooled) -> None:
    shown = _map(PlantedStore(config=config, count=TOKENS, peaks=peaks), how)
    (values,) = shown.parts(5, 3, slice(0, shown.columns(5)))
    places = (_bytes(shown, 5, 3).astype(float) - 1) / 254
    assert np.abs(places - np.sqrt(values / shown.high)).max() < 0.01


def test_a_mean_is_over_all_tokens_and_slots_of_a_cell_and_no_more(config) -> None:
    shown = _map(PlantedStore(config=config, count=TOKENS, peaks={(TOKENS - 1, SLOTS - 1): 0.85}), Pooled.MEAN)
    (values,) = shown.parts(6, 4, slice(62, 63))
    tokens, slots = TOKENS - 62 * 64, SLOTS - 11 * 16
    assert values[11, 0] == pytest.approx(GROUND + (0.85 - GROUND) / (tokens * slots), rel=1e-5)
    assert values[10, 0] == pytest.approx(GROUND)


def test_a_difference_is_on_one_scale_and_128_where_there_is_none(config) -> None:
    one = PlantedStore(config=config, count=TOKENS, peaks={(5, 7): 1.0, (9, 9): 0.3})
    other = PlantedStore(config=config, count=TOKENS, peaks={(9, 9): 0.3, (900, 3): 0.5})
    bytes_ = _bytes(_map(one, minus=other), 0, 0)
    assert (bytes_[7, 5], bytes_[9, 9], bytes_[0, 0]) == (254, 128, 128)
    assert bytes_[3, 900] < 50
    assert (256 - _bytes(_map(other, minus=one), 0, 0).astype(int) == bytes_).all()


def test_a_cell_without_a_value_is_0_and_no_value_is() -> None:
    assert encoded(np.array([[np.nan, 0.0, 2.0]]), 2.0, signed=False).tolist() == [[0, 1, 255]]
    assert encoded(np.array([[-3.0, 0.0, 2.0]]), 2.0, signed=True).tolist() == [[1, 128, 255]]


def test_there_is_no_band_beyond_the_text(config) -> None:
    shown = _map(PlantedStore(config=config, count=TOKENS, peaks={}))
    with pytest.raises(IndexError, match="no band 1 at level 4"):
        shown.band(4, 0, 1)
