"""Laws of maps with more cells than can be drawn: the extreme that matters is there, at its place, and nothing is mixed
that is unlike."""

from dataclasses import replace

import numpy as np
import pytest

from app.charts import OfRun, RunChart
from app.figures.print import heatmap
from app.figures.print.figure import draw as printed
from app.figures.print.page import Paper
from app.figures.screen import draw as screen
from app.figures.theme import LIGHT
from app.views.kinds import Heatmap
from app.views.pooling import Pooling, cells, pooled
from app.views.run import gates
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.weights.checkpoint import Checkpoint

RANDOM = np.random.default_rng(5)


def long_map(blocks: int = 4, segments: int = 500, **changes: object) -> Heatmap:
    """A gate map of a long text: each block has values of its own range, so that a mixture of two would show."""
    columns = [(segment, block) for segment in range(segments) for block in range(blocks)]
    values = np.array([[block / blocks + 0.9 / blocks * RANDOM.random() for _, block in columns] for _ in range(6)])
    view = Heatmap(
        values=values, row_labels=tuple(f"slot {at}" for at in range(6)),
        column_labels=tuple(f"segment {one}, block {two}" for one, two in columns),
        row_title="slot", column_title="block, within each segment", value_title="forget gate", low=0.0, high=1.0,
        least=True, row_noun="slot",
        column_noun="segment", boundaries=tuple(range(0, len(columns), blocks)),
        segment_labels=tuple(f"segment {one}" for one in range(segments)),
        column_kinds=tuple(block for _, block in columns), ticks=tuple(str(block) for _, block in columns),
    )  # fmt: skip
    return replace(view, **changes)


@pytest.fixture(scope="module")
def trace(gated: Checkpoint) -> Trace:
    captures = tuple(
        map(
            Capture,
            (
                Site.READ_PATTERN,
                Site.WRITE_PATTERN,
                Site.GATE_IN,
                Site.GATE_FORGET,
                Site.GATE_OUT,
                Site.BANK_PRE,
                Site.BANK_POST,
            ),
        )
    )
    return run(
        gated,
        RunSpec(checkpoint=gated.name, text="Mary moved to the garden. " * 12, segment_length=4, captures=captures),
    )


@pytest.mark.parametrize("most", [1, 7, 40, 999])
def test_a_cell_holds_neighbours_of_one_segment_and_nothing_is_left_out(most: int) -> None:
    starts = (0, 3, 4, 60, 61, 400)
    axis = cells(1000, most, starts)
    assert axis.count <= most and set(axis.owner) == set(range(axis.count)) and (np.diff(axis.owner) >= 0).all()
    held = [np.flatnonzero(axis.owner == cell) for cell in range(axis.count)]
    for places in held:
        inside = [start for start in starts if places[0] < start <= places[-1]]
        assert not inside or (axis.joined and places[0] in starts and (places[-1] + 1 in (*starts, 1000)))
    assert axis.joined == (most < len(starts))


def test_unlike_places_are_never_one_cell_whatever_the_room() -> None:
    assert cells(9, 2, kinds=tuple("abcdefghi")).whole
    axis = cells(400, 30, tuple(range(0, 400, 4)), (0, 1, 2, 3) * 100)
    assert axis.count <= 30 and all(len(set(np.flatnonzero(axis.owner == cell) % 4)) == 1 for cell in range(axis.count))


def test_every_cell_has_a_dot_near_its_place() -> None:
    axis = cells(5000, 300, tuple(range(0, 5000, 37)))
    dots = axis.dots(300)
    assert set(dots) == set(range(axis.count)) and (np.diff(dots) >= 0).all()
    middles = (axis.edges[:-1] + axis.edges[1:]) / 2 / 5000
    assert (
        max(abs(np.mean(np.flatnonzero(dots == cell) + 0.5) / 300 - middle) for cell, middle in enumerate(middles))
        < 0.01
    )


@pytest.mark.parametrize(
    ("changes", "pooling", "reduce"),
    [
        ({}, Pooling.LEAST, np.min),
        ({"least": False}, Pooling.LARGEST, np.max),
        ({"least": False, "diverging": True, "low": -1.0}, Pooling.EXTREME, np.max),
    ],
)
def test_the_extreme_that_matters_is_drawn_at_its_place_on_screen_and_paper_and_no_blocks_are_mixed(
    changes: dict, pooling: Pooling, reduce
) -> None:
    view = long_map(**changes)
    along = view.along(screen.MOST_CELLS)
    drawn = np.asarray(screen.heatmap(view, LIGHT).data[0].z)
    assert view.pooling is pooling and drawn.shape == (6, along.count) and along.count <= screen.MOST_CELLS
    for cell in range(along.count):
        own = np.flatnonzero(along.owner == cell)
        assert len({view.column_kinds[at] for at in own}) == 1
        assert np.allclose(drawn[:, cell], reduce(view.values[:, own], axis=1), atol=1e-6)
    page = printed(view, Paper(venue="icml"))
    axes = page.figure.axes[0]
    scale = heatmap.ColourScale.of([view], None)
    box = axes.get_position()
    inches = box.width * page.page.width, box.height * page.figure.get_size_inches()[1]
    on_paper = pooled(view.values, *heatmap.cells(view, *inches), view.pooling, scale.middle)
    wanted, found = (
        scale.shades(on_paper)[..., :3].reshape(-1, 3),
        np.asarray(axes.images[0].get_array())[..., :3].reshape(-1, 3),
    )
    assert {tuple(one) for one in wanted} == {tuple(one) for one in found}
    assert reduce(on_paper) == reduce(view.values)


def test_a_map_says_what_was_pooled_on_screen_on_paper_and_in_its_caption() -> None:
    view = long_map()
    assert "each cell the least of up to 4 segments" in screen.heatmap(view, LIGHT).layout.xaxis.title.text
    page = printed(view, Paper(venue="icml", x_title="my own title"))
    title = page.figure.axes[0].get_xlabel().replace("\n", " ")
    assert title.startswith("my own title (each cell the least of")
    assert any(title.removeprefix("my own title (each cell the ").removesuffix(")") in note for note in page.notes[0])
    assert "least at" in view.alt
    short = long_map(segments=5)
    assert (
        "least of"
        not in screen.heatmap(short, LIGHT).layout.xaxis.title.text
        + printed(short, Paper(venue="icml")).figure.axes[0].get_xlabel()
    )


def test_a_tick_below_gathered_columns_names_the_block_of_its_cell() -> None:
    view = long_map()
    page = printed(view, Paper(venue="icml"))
    axes, high = page.figure.axes[0], page.figure.get_size_inches()[1]
    box = axes.get_position()
    _, along = heatmap.cells(view, box.width * page.page.width, box.height * high)
    on_paper = zip(axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()])
    on_screen = screen.heatmap(view, LIGHT).layout.xaxis
    for drawn, ticks in (
        (along, on_paper),
        (view.along(screen.MOST_CELLS), zip(on_screen.tickvals, on_screen.ticktext)),
    ):
        for place, label in ticks:
            cell = np.searchsorted(drawn.edges, place + 0.5, side="right") - 1
            assert {view.ticks[at] for at in np.flatnonzero(drawn.owner == cell)} == {label}


def test_maps_of_a_trace_pool_neither_blocks_nor_segments_nor_the_first_bank_with_later_ones(
    gated: Checkpoint, trace: Trace
) -> None:
    for shown in (
        OfRun.GATE_SLOTS,
        OfRun.GATE_TOKENS,
        OfRun.READS,
        OfRun.WRITES,
        OfRun.NORMS,
        OfRun.CHANGES,
        OfRun.SIMILARITY,
    ):
        view = RunChart(spec=trace.spec, shown=shown).computed(gated, trace).view
        down, along = view.down(3), view.along(len(trace.segments) * 2)
        labels = along.labels(view.column_labels)
        if shown is OfRun.GATE_SLOTS:
            assert all(len({name.rpartition("block ")[2] for name in label.split(" to ")}) == 1 for label in labels)
        if shown is OfRun.GATE_TOKENS:
            assert down.whole  # rows are blocks
        if shown is OfRun.NORMS:
            assert labels[0] == "start" == view.along(3).labels(view.column_labels)[0]
        if view.column_title == "token":
            edges = set(view.boundaries)
            assert edges <= set(along.edges.tolist())


def test_a_forget_map_shows_what_is_lost_and_an_input_map_what_is_admitted(gated: Checkpoint, trace: Trace) -> None:
    layers = tuple(sorted(gated.config.memory_layers))
    assert gates.per_slot(trace, "forget", layers).pooling is Pooling.LEAST
    assert gates.per_slot(trace, "in", layers).pooling is Pooling.LARGEST
    for gate in ("in", "forget"):
        view = gates.per_slot(trace, gate, layers)
        few = pooled(view.values, view.down(4), view.along(6), view.pooling, view.middle)
        assert (few.min() == view.values.min()) if gate == "forget" else (few.max() == view.values.max())
