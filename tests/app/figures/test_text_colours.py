"""Laws of a text's colours: they are those of the map beside it, on the screen and on paper."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from streamlit.testing.v1 import AppTest

from app.charts import Chart, OfRun, RunChart
from app.components.heatmap import HeatmapCell
from app.figures import palettes, theme
from app.figures.palettes import Colours, Stretch, text_shades
from app.figures.print.figure import draw as printed
from app.figures.print.page import Paper
from app.figures.screen.html import interactive
from app.ui import panels
from app.views.kinds import Strip
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.weights.checkpoint import Checkpoint

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def trace(gated: Checkpoint) -> Trace:
    captures = (Capture(Site.READ_PATTERN), Capture(Site.WRITE_PATTERN))
    return run(gated, RunSpec(checkpoint=gated.name, text="Mary moved to the garden. " * 3, captures=captures))


def _text(gated: Checkpoint, trace: Trace, side: str, **fields: object) -> Strip:
    return RunChart(spec=trace.spec, shown=OfRun.TEXT, slot=2, side=side, **fields).computed(gated, trace).view


@pytest.mark.parametrize(("side", "shown"), [("read", OfRun.READS), ("wrote", OfRun.WRITES)])
def test_the_text_has_the_scale_of_its_map(side: str, shown: OfRun, gated: Checkpoint, trace: Trace) -> None:
    whole = RunChart(spec=trace.spec, shown=shown).computed(gated, trace).view
    view = _text(gated, trace, side)
    assert (view.low, view.high) == (whole.low, whole.high) and np.array_equal(view.weights, whole.values[2])
    assert whole.value_title in view.legend and "as in the map" in view.legend


def test_colours_relative_to_a_slot_say_so(gated: Checkpoint, trace: Trace) -> None:
    view = _text(gated, trace, "read", relative=True)
    assert view.high == pytest.approx(view.weights.max()) and "relative to this slot's largest" in view.legend


def test_a_choice_that_earlier_figures_do_not_have_is_written_only_where_it_is_made(trace: Trace) -> None:
    plain = RunChart(spec=trace.spec, shown=OfRun.TEXT, slot=2)
    chosen = RunChart(spec=trace.spec, shown=OfRun.TEXT, slot=2, relative=True)
    assert "relative" not in plain.to_json() and chosen.to_json()["relative"] is True
    assert [Chart.from_json(chart.to_json()) for chart in (plain, chosen)] == [plain, chosen]
    assert plain.digest != chosen.digest


@pytest.mark.parametrize("stretch", list(Stretch))
def test_a_printed_text_has_the_screens_colours_and_the_numbers_at_the_ends_of_its_scale(stretch: Stretch) -> None:
    view = Strip(
        pieces=("Mary", " went", " home"), segment_of=(0, 0, 0), weights=np.array([0.007, 0.3, np.nan]), notes=(),
        marks=(), legend="read weight", high=0.6,
    )  # fmt: skip
    drawn = printed(view, Paper(venue="icml", stretch=stretch.value))
    grounds = [patch.get_facecolor()[:3] for patch in drawn.figure.axes[0].patches if isinstance(patch, Rectangle)]
    places = stretch.place(np.array([0.007, 0.3]) / 0.6, diverging=False)
    assert np.allclose(grounds, text_shades(places, None))
    words = [text.get_text() for text in drawn.figure.axes[0].texts]
    assert {"0", "0.6"} <= set(words) and ("sqrt colours" in words[-1]) == (stretch is Stretch.SQRT)
    page = interactive(drawn)
    assert (
        all("#" + "".join(f"{round(255 * part):02x}" for part in ground) in page for ground in grounds)
        and "0.6" in page
    )


def test_what_is_faint_on_the_screen_is_faint_on_paper() -> None:
    script = (ROOT / "app" / "components" / "token_strip.js").read_text("utf-8")
    assert "1.6 * Math.sqrt(place) * Math.min(1, 0.25 + 1.5 * place)" in script  # the formula of text_shades
    white, full = text_shades(np.array([0.0, 1.0]), None)
    assert np.allclose(white, 1) and np.allclose(full, palettes.colour_map(Colours.VIRIDIS)(1.0)[:3])


def test_screen_and_paper_have_one_list_of_colours() -> None:
    script = (ROOT / "app" / "components" / "common.js").read_text("utf-8")
    lists = {
        name: tuple(re.findall(r"#\w{6}", colours)) for name, colours in re.findall(r"const (\w+) = (\[.*?\]);", script)
    }
    assert (lists["DIVERGING"], lists["DIVERGING_DARK"]) == (theme.LIGHT.diverging, theme.DARK.diverging)
    for at, colour in enumerate(lists["SEGMENTS"]):
        assert np.allclose(palettes.segment_shades([at])[0], 64 / 255 * palettes.rgb([colour])[0] + 1 - 64 / 255)
    anchors = palettes.rgb(lists["SEQUENTIAL"])
    assert np.abs(palettes.colour_map(Colours.VIRIDIS)(np.linspace(0, 1, len(anchors)))[:, :3] - anchors).max() < 0.01


@pytest.mark.parametrize(("clicked", "before", "side"), [("writes", "read", "wrote"), ("reads", "wrote", "read")])
def test_a_click_on_a_map_colours_and_lists_by_that_map(
    clicked: str, before: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicks, shown = [HeatmapCell(3, 7)], []
    monkeypatch.setattr(
        panels, "clickable_map", lambda view, key, *rest: clicks.pop() if key == clicked and clicks else None
    )
    monkeypatch.setattr(panels, "strip", lambda view, *rest: shown.append(view))
    app = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    app.query_params["source"], app.query_params["side"] = "simulated", before
    app.run()
    assert not app.exception and app.session_state["selection"].run.side == side
    assert shown[-1].legend.startswith(f"how much each token {side} slot 3")
