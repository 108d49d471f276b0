"""Laws of figures on paper: they fit the page, can be read there, and show the numbers of the view."""

import dataclasses
import io
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from colour_vision import Vision, lab, least_difference, lightness
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.text import Text
from PIL import Image

from app.export import files
from app.figures import palettes
from app.figures.palettes import MARKS, Colours
from app.figures.print import fonts, text as paper_text
from app.figures.print.figure import PrintFigure, compose, draw
from app.figures.print.page import Annotation, Grid, Page, Panel, Paper
from app.figures.print.venues import MEASURES, SMALLEST, Venue, small
from app.views.kinds import Bars, Heatmap, Line, Lines, Strip, slot_labels
from app.views.numbers import View
from app.views.pooling import Pooling, cells, pooled

ROOT = Path(__file__).parents[3]
RANDOM = np.random.default_rng(0)


def heatmap(rows: int = 16, columns: int = 66, **changes: object) -> Heatmap:
    values = RANDOM.random((rows, columns)).astype(np.float32)
    view = Heatmap(
        values=values, row_labels=slot_labels(rows), column_labels=tuple(f"{at}: ·went" for at in range(columns)),
        row_title="slot",
        column_title="token", value_title="read weight, block 0, mean over heads", low=0.0, high=1.0,
        boundaries=(0, columns // 3, columns // 2),
        segment_labels=("segment 0", "segment 1", "segment 2"),
    )  # fmt: skip
    return dataclasses.replace(view, **changes)


def effects() -> Heatmap:
    values = RANDOM.normal(size=(10, 12)) / 3
    return Heatmap(
        values=values, row_labels=("attention", "memory read", "MLP", *(f"head {at}" for at in range(7))),
        column_labels=tuple(f"block {at % 4}" for at in range(12)), row_title="part",
        column_title="block, within each segment",
        value_title="change of answer logit difference (logits)", low=-1.0, high=1.0, diverging=True,
        masked=values > 0.4,
        boundaries=(0, 4, 8), segment_labels=("2 before", "1 before", "the answer's"),
    )  # fmt: skip


def lines(count: int = 4, points: int = 8) -> Lines:
    middle = [50 + 9 * at + RANDOM.normal(size=points) for at in range(count)]
    return Lines(
        lines=tuple(
            Line(name=f"model {at}, fine-tuned", values=values, low=values - 4, high=values + 5)
            for at, values in enumerate(middle)
        ),
        ticks=tuple(f"{2**at}k" if points < 12 else f"{at}: ·the" for at in range(points)),
        x_title="length (tokens of facts and book text, plus 300)",
        y_title="accuracy (%, official), mean over tasks",
        y_range=(0, 102),
        boundaries=(0, points // 2),
    )


def strip(tokens: int = 66) -> Strip:
    pieces = tuple("." if at % 6 == 5 else " kitchen" if at % 6 == 4 else " Mary" for at in range(tokens))
    return Strip(
        pieces=pieces, segment_of=tuple(at // 12 for at in range(tokens)), weights=RANDOM.random(tokens), notes=(),
        marks=((0, 6, "supporting fact"), (tokens - 3, tokens, "question")),
        legend="how much each token read slot 4 (block 0, mean); largest is 0.684",
    )  # fmt: skip


VIEWS: dict[str, View] = {
    "map": heatmap(),
    "large map": heatmap(600, 1500),
    "masked map": heatmap(masked=np.arange(16)[:, None] > np.arange(66)[None] % 20),
    "effects": effects(),
    "lines": lines(),
    "many points": lines(2, 300),
    "many lines": lines(9),
    "bars": Bars(
        values=RANDOM.normal(size=128),
        labels=tuple(map(str, range(128))),
        x_title="slot",
        y_title="change (logits)",
        marked=17,
    ),
    "text": strip(),
}
NARROW, WIDE = (
    Paper(venue=venue, columns=columns, letter="a", title="What is read where")
    for venue, columns in (("acl", "single"), ("ieee", "double"))
)
"""The narrowest column with the larger type, and the widest figure with the smaller."""


@pytest.fixture(
    scope="module",
    params=[*((name, NARROW) for name in VIEWS), ("map", WIDE), ("lines", WIDE)],
    ids=lambda case: f"{case[0]}, {case[1].width} in",
)
def drawn(request: pytest.FixtureRequest) -> PrintFigure:
    """A view on a page, after the layout of its texts."""
    name, page = request.param
    figure = draw(VIEWS[name], page)
    figure.figure.draw_without_rendering()
    return figure


def texts(figure: PrintFigure) -> list[Text]:
    """All printed texts: an axis also has labels outside its ends, which are not printed."""
    beyond = {
        id(tick.label1)
        for axes in figure.figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval()) or not axes.axison
    }
    return [
        text
        for text in figure.figure.findobj(Text)
        if text.get_text().strip() and text.get_visible() and id(text) not in beyond
    ]


def pixels(figure: PrintFigure, form: files.FileFormat = files.FileFormat.PNG_300) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(files.render(figure, form))).convert("RGB"))


def axes_pixels(figure: PrintFigure, form: files.FileFormat = files.FileFormat.PNG_300) -> np.ndarray:
    image, box = pixels(figure, form), figure.figure.axes[0].get_position()
    high, wide, _ = image.shape
    return image[round((1 - box.y1) * high) : round((1 - box.y0) * high), round(box.x0 * wide) : round(box.x1 * wide)]


def as_numbers(colours: np.ndarray) -> np.ndarray:
    return colours[..., :3].astype(int) @ (1, 256, 65536)


def test_no_text_is_smaller_than_seven_points(drawn) -> None:
    assert SMALLEST == 7
    assert len(texts(drawn)) > 3
    assert {text.get_text(): text.get_fontsize() for text in texts(drawn) if text.get_fontsize() < SMALLEST} == {}


def test_no_text_is_cut_off_at_the_edge_of_the_page(drawn) -> None:
    page = drawn.figure.bbox
    for text in texts(drawn):
        box = text.get_window_extent()
        assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1 and box.y0 >= page.y0 - 1 and box.y1 <= page.y1 + 1, (
            text.get_text()
        )


def test_no_label_of_an_axis_stands_over_another(drawn) -> None:
    printed = texts(drawn)
    for axes in drawn.figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            boxes = [label.get_window_extent() for label in axis.get_ticklabels() if label in printed]
            assert not any(box.overlaps(other) for box, other in pairwise(boxes))


def test_a_figure_is_as_wide_as_its_venue_wants_it(drawn) -> None:
    assert drawn.figure.get_figwidth() == MEASURES[drawn.page.venue].width(drawn.page.columns)


def test_a_venues_measures_stay_so_that_figures_made_again_keep_their_size() -> None:
    assert {
        venue: (sizes.single, sizes.double, sizes.size, small(sizes.size)) for venue, sizes in MEASURES.items()
    } == {
        Venue.ICML: (3.25, 6.75, 8, 7),
        Venue.NEURIPS: (5.5, None, 9, 7),
        Venue.ICLR: (5.5, None, 9, 7),
        Venue.ACL: (3.03, 6.3, 9, 7),
        Venue.AAAI: (3.3, 6.975, 9, 7),
        Venue.CVPR: (3.25, 6.875, 8, 7),
        Venue.TMLR: (6.5, None, 9, 7),
        Venue.IEEE: (3.5, 7.16, 8, 7),
    }


def test_the_font_is_the_one_that_comes_with_matplotlib() -> None:
    assert Path(findfont(FontProperties(family=fonts.FONT))).is_relative_to(matplotlib.get_data_path())


def test_characters_that_the_font_lacks_are_told_by_their_code() -> None:
    assert paper_text.printable("a·⏎ 漢🙂\a") == "a·⏎ U+6F22U+1F642U+0007"


def test_a_word_is_broken_into_letters_where_there_is_no_room_at_all() -> None:
    assert paper_text.wrapped("how it", 7, -20) == "h\no\nw\ni\nt"


def test_dollars_and_backslashes_are_printed_as_they_are() -> None:
    figure = draw(heatmap(), Paper(venue="icml", title=r"$5 and \alpha for $6"))
    assert any(text.get_text() == r"$5 and \alpha for $6" for text in texts(figure))
    assert files.render(figure, files.FileFormat.PDF)


@pytest.mark.parametrize("vision", Vision)
def test_lines_can_be_told_apart_by_colour_alone_whoever_looks(vision: Vision) -> None:
    colours = palettes.rgb([mark.colour for mark in MARKS])
    if vision is Vision.GREY:
        steps = np.diff(np.sort(lightness(colours, vision)))
        assert steps.min() > 8
    else:
        assert least_difference(colours, vision) > 30
    assert palettes.contrast(colours, palettes.rgb(["#ffffff"])).min() >= 3


def test_lines_can_be_told_apart_without_their_colours() -> None:
    assert len({mark.dash for mark in MARKS}) == len({mark.marker for mark in MARKS}) == len(MARKS)
    marks = [palettes.mark(number) for number in range(len(MARKS) ** 2)]
    assert all(mark != other for mark, other in combinations(marks, 2))


@pytest.mark.parametrize("vision", Vision)
@pytest.mark.parametrize("colours", [colour for colour in Colours if not colour.diverging])
def test_lightness_goes_one_way_along_a_sequential_map_whoever_looks(colours: Colours, vision: Vision) -> None:
    steps = np.diff(lightness(palettes.colour_map(colours)(np.linspace(0, 1, 256))[:, :3], vision))
    assert (steps > 0).all() or (steps < 0).all()
    assert abs(steps.sum()) > 70


@pytest.mark.parametrize("vision", [vision for vision in Vision if vision is not Vision.GREY])
def test_values_of_unlike_sign_differ_in_colour_whoever_looks(vision: Vision) -> None:
    shades = palettes.colour_map(Colours.BLUE_ORANGE)(np.linspace(0, 1, 21))[:, :3]
    for at in range(8):
        assert least_difference(shades[[at, 20 - at]], vision) > 30
    for half in (shades[:11], shades[10:]):
        steps = np.diff(lightness(half, vision))
        assert (steps > 0).all() or (steps < 0).all()


def test_grey_stays_grey_in_every_simulation() -> None:
    greys = np.linspace(0, 1, 5)[:, None].repeat(3, 1)
    for vision in Vision:
        assert np.allclose(lab(greys, vision), lab(greys, Vision.NORMAL), atol=0.02)


def test_in_greyscale_dots_tell_what_is_below_the_middle() -> None:
    view = effects()
    figure = draw(view, Paper(venue="icml"))
    (dots,) = figure.figure.axes[0].collections
    expected = np.argwhere((view.values < -0.01) & ~view.masked)
    assert sorted(map(tuple, dots.get_offsets()[:, ::-1])) == sorted(map(tuple, expected))
    assert "Dots: below 0." in figure.notes[0]
    assert not draw(view, Paper(venue="icml", colours="cividis")).figure.axes[0].collections


def test_cells_have_the_colours_of_their_values_and_nothing_between() -> None:
    view = heatmap(20, 90, boundaries=(), segment_labels=())
    figure = draw(view, Paper(venue="icml"))
    expected = palettes.colour_map(Colours.VIRIDIS)(view.values.astype(float), bytes=True)[..., :3]
    for form in (files.FileFormat.PNG_300, files.FileFormat.PNG_600):
        assert np.isin(
            as_numbers(axes_pixels(figure, form)[1:-1, 1:-1]), as_numbers(expected)
        ).all()  # ticks touch the edge


def test_every_single_peak_of_a_large_map_is_printed() -> None:
    values = np.zeros((1000, 2000), np.float32)
    peaks = np.stack([np.arange(50) * 20, np.arange(50)[::-1] * 40 + 39], axis=1)
    values[tuple(peaks.T)] = 1
    view = heatmap(1000, 2000, values=values, boundaries=(), segment_labels=())
    figure = draw(view, Paper(venue="icml"))
    dots = axes_pixels(figure)
    bright = (dots == np.array([253, 231, 36])).all(-1)
    for row, column in peaks:
        at_row, at_column = (
            int(place / size * have) for place, size, have in zip((row, column), values.shape, bright.shape)
        )
        assert bright[max(0, at_row - 2) : at_row + 3, max(0, at_column - 2) : at_column + 3].any(), (row, column)
    assert any("is the largest of" in note for note in figure.notes[0])


def test_pooling_keeps_extremes_of_either_sign_and_forgets_what_is_masked() -> None:
    values = np.zeros((4, 6))
    values[1, 2], values[3, 5], values[0, 0] = -0.9, 0.8, np.nan
    values[2:, :2] = np.nan
    down, along = cells(4, 2), cells(6, 3)
    assert (down.sizes.tolist(), along.sizes.tolist()) == ([2, 2], [2, 2, 2])
    assert np.array_equal(
        pooled(values, down, along, Pooling.EXTREME, 0.0), [[0, -0.9, 0], [np.nan, 0, 0.8]], equal_nan=True
    )


def test_masked_cells_are_hatched_and_not_coloured() -> None:
    view = VIEWS["masked map"]
    figure = draw(view, Paper(venue="icml"))
    axes = figure.figure.axes[0]
    assert axes.patch.get_hatch() and "Values of hatched cells are not shown." in figure.notes[0]
    shades = axes.images[0].get_array()
    assert np.mean(shades[..., 3] == 0) == pytest.approx(view.masked.mean(), abs=0.02)


def test_counts_are_written_in_their_cells_or_it_is_said_that_they_are_not() -> None:
    counts = np.array([[12.0, 0.0], [3.0, 150.0]])
    view = heatmap(2, 2, values=counts, high=150.0, counts=True, boundaries=(), segment_labels=())
    figure = draw(view, Paper(venue="icml"))
    numbers = {text.get_position(): text.get_text() for text in figure.figure.axes[0].texts}
    assert numbers == {(0, 0): "12", (1, 0): "0", (0, 1): "3", (1, 1): "150"}
    many = draw(heatmap(60, 60, counts=True), Paper(venue="icml"))
    assert "Cells are too small for their numbers." in many.notes[0]


def test_segments_begin_and_are_named_where_the_view_says() -> None:
    axes = draw(heatmap(), Paper(venue="icml")).figure.axes[0]
    assert list(axes.lines[0].get_xdata()) == [21.5, 32.5]
    assert [text.get_text() for text in axes.texts] == ["segment", "0", "1", "2"]


def test_the_lines_on_paper_are_the_lines_of_the_view() -> None:
    view = lines()
    axes = draw(view, Paper(venue="acl")).figure.axes[0]
    drawn = [line for line in axes.lines if line.get_linewidth() == 1.2]
    for line, curve, label in zip(view.lines, drawn, axes.get_legend().get_texts(), strict=True):
        assert np.array_equal(curve.get_ydata(), line.values)
        assert np.abs(curve.get_xdata() - np.arange(8)).max() < 0.1
        assert label.get_text().replace("\n", " ") == line.name
    ends = {
        tuple(end)
        for bars in axes.collections
        for segment in bars.get_segments()
        for end in np.round(segment, 6)[:, 1:]
    }
    assert {round(float(value), 6) for line in view.lines for value in (*line.low, *line.high)} <= {
        end for (end,) in ends
    }


def test_a_text_on_paper_has_every_token_in_order() -> None:
    view = strip()
    words = [text.get_text() for text in draw(view, Paper(venue="icml")).figure.axes[0].texts]
    assert "".join("".join(words).split()).find("".join("".join(view.pieces[:12]).split())) >= 0
    with pytest.raises(ValueError, match="in of height, and a page has 9"):
        draw(strip(5000), Paper(venue="icml"))
    with pytest.raises(ValueError, match="more height than the"):
        draw(view, Paper(venue="icml", height=0.8))


def test_titles_of_a_paper_stand_for_those_of_the_view() -> None:
    axes = draw(heatmap(), Paper(venue="icml", x_title="words", y_title="memory")).figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("words", "memory")
    with pytest.raises(ValueError, match="no axes for 'words'"):
        draw(strip(), Paper(venue="icml", x_title="words"))


def test_annotations_stand_at_their_place_and_nowhere_else() -> None:
    note = Annotation(x=12, y=3, text="here")
    axes = draw(heatmap(), Paper(venue="icml", annotations=(note,))).figure.axes[0]
    assert [text.xy for text in axes.texts if text.get_text() == "here"] == [(12, 3)]
    with pytest.raises(ValueError, match=r"\(66, 3\) is outside the axes, which go from -0.5 to 65.5"):
        draw(heatmap(), Paper(venue="icml", annotations=(Annotation(x=66, y=3, text="there"),)))


def test_a_shared_scale_gives_equal_values_equal_colours() -> None:
    base, other = (
        heatmap(4, 6, value_title="read weight, block 0, mean"),
        heatmap(4, 6, high=2.0, value_title="read weight, block 1, mean"),
    )
    both = dataclasses.replace(other, values=base.values)
    figure = compose(
        (base, both), Grid(venue="icml", columns="double", across=2, panels=(Panel(), Panel()), shared_scale=True)
    )
    assert len(figure.figure.axes) == 3 and figure.figure.axes[2].get_ylabel() == "read weight, mean"
    assert {"block 0", "block 1"} <= {text.get_text() for text in texts(figure)}
    first, second = (axes.images[0].get_array() for axes in figure.figure.axes[:2])
    assert np.array_equal(first[:, :50], second[:, :50])
    with pytest.raises(ValueError, match="1 of 2 are diverging"):
        compose((base, effects()), Grid(venue="icml", across=1, panels=(Panel(), Panel()), shared_scale=True))


def test_panels_of_a_grid_have_letters_in_order() -> None:
    page = Grid(venue="neurips", across=2, panels=(Panel(title="Reads"), Panel(letter="x"), Panel()))
    figure = compose((heatmap(), lines(), strip()), page)
    for letter in ("(a)", "(x)", "(c)"):
        assert any(text.get_text().startswith(letter) for text in texts(figure))
    with pytest.raises(ValueError, match="3 panels takes as many views, not 1"):
        compose((heatmap(),), page)


@pytest.mark.parametrize(
    "page",
    [
        Paper(venue="icml"),
        Paper(venue="acl", columns="double", height=2.5, title="t", x_title="x", y_title="y", letter="b",
            colours="cividis",
              annotations=(Annotation(x=1, y=2.5, text="here"),)),
        Grid(venue="tmlr", aspect=0.5, across=2, shared_scale=True,
             panels=(Panel(title="one"), Panel(annotations=(Annotation(x=0, y=0, text="o"),)))),
    ],
)  # fmt: skip
def test_a_page_is_the_same_after_a_way_through_json(page: Page) -> None:
    import json

    assert Page.from_json(json.loads(json.dumps(page.to_json()))) == page


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "Paper", "venue": "icml", "colour": "red"}, r"has no fields \['colour'\]"),
        ({"kind": "Poster", "venue": "icml"}, "no page is called 'Poster'"),
        ({"kind": "Paper"}, "venue"),
        ({"kind": "Paper", "venue": "nature"}, "venue must be of .*not 'nature'"),
        ({"kind": "Paper", "venue": "neurips", "columns": "double"}, "NeurIPS sets its text in one column of 5.5 in"),
        ({"kind": "Paper", "venue": "icml", "height": 2, "aspect": 1}, "a height or an aspect, not both"),
        ({"kind": "Paper", "venue": "icml", "height": 12}, "0.5 to 9 in high, not 12"),
        ({"kind": "Paper", "venue": "icml", "aspect": 0.01}, "0.5 to 9 in high, not 0.0325"),
        ({"kind": "Paper", "venue": "icml", "height": "2"}, "height must be a finite number"),
        ({"kind": "Paper", "venue": "icml", "title": 3}, "title must be a text, not 3"),
        ({"kind": "Paper", "venue": "icml", "colours": "jet"}, "colours must be of .*not 'jet'"),
        ({"kind": "Paper", "venue": "icml", "annotations": [{"kind": "Annotation", "x": 0, "y": 0, "text": ""}]},
            "text must be a text"),
        ({"kind": "Grid", "venue": "icml", "across": 2, "panels": []}, "1 to 26 panels"),
        ({"kind": "Grid", "venue": "icml", "across": 3, "panels": [{"kind": "Panel"}]}, "not 1 with 3"),
        ({"kind": "Grid", "venue": "icml", "across": 1, "panels": [{"kind": "Panel"}], "shared_scale": "no"},
            "shared_scale must be"),
    ],
)  # fmt: skip
def test_a_page_that_makes_no_sense_is_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Page.from_json(values)


def test_colours_with_a_middle_are_refused_for_a_map_that_has_none() -> None:
    with pytest.raises(ValueError, match="blue-orange has a middle"):
        draw(heatmap(), Paper(venue="icml", colours="blue-orange"))


def test_nobody_imports_pyplot_and_values_do_not_import_matplotlib() -> None:
    code = (
        "import sys, app.figures.print.page; before = 'matplotlib' in sys.modules; import app.export.files; "
        "sys.exit(before or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_single_seeds_are_drawn_thinner_than_their_mean_and_explained() -> None:
    view = lines(2)
    seeds = tuple(Line(name=f"seed {at}", values=view.lines[0].values + at) for at in (-1, 1))
    with_seeds = dataclasses.replace(view, lines=(dataclasses.replace(view.lines[0], seeds=seeds), view.lines[1]))
    before, after = draw(view, Paper(venue="icml")), draw(with_seeds, Paper(venue="icml"))
    assert len(after.figure.axes[0].lines) == len(before.figure.axes[0].lines) + 2
    assert any("single seeds" in note for note in after.notes[0]) and not before.notes[0]
