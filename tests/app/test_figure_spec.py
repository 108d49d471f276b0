"""Laws of figures of a run: one spec drives screen, file and command line, and a sidecar makes the same bytes again."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app import sidecar as sidecars
from app.cli import main
from app.export import Form, bundle, render
from app.figure_spec import FigureSpec, Shown
from app.figures.page import Paper
from app.figures.paper import draw
from app.figures.venues import Columns, Venue
from app.views import memory
from lm2.capture import Capture
from lm2.checkpoint import Checkpoint, save
from lm2.runner import run
from lm2.sites import Site
from lm2.spec import RunSpec
from lm2.trace import Trace

SITES = (Site.READ_PATTERN, Site.WRITE_PATTERN, Site.GATE_IN, Site.GATE_FORGET, Site.GATE_OUT, Site.BANK_PRE, Site.BANK_POST)


@pytest.fixture(scope="module")
def trace(gated: Checkpoint, text: str) -> Trace:
    return run(gated, RunSpec(checkpoint=gated.name, text=text, captures=tuple(map(Capture, SITES))))


def of(trace: Trace, shown: Shown = Shown.READS, **fields: object) -> FigureSpec:
    return FigureSpec(shown=shown, run=trace.spec, **fields)


@pytest.mark.parametrize("shown", Shown)
def test_json_gives_it_back_and_every_kind_can_be_printed(shown: Shown, gated: Checkpoint, trace: Trace) -> None:
    gate = "out" if shown is Shown.GATE_TOKENS else "forget"
    spec = of(trace, shown, gate=gate, page=Paper(venue=Venue.ACL, columns=Columns.DOUBLE, title="One"), layer=2, head="1", segment=0)
    back = FigureSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert back == spec and back.digest == spec.digest
    assert render(draw(spec.view(gated, trace), spec.page), Form.SVG, spec.digest).startswith(b"<?xml")


def test_the_numbers_are_those_of_the_screens_view(gated: Checkpoint, trace: Trace) -> None:
    shown = of(trace, layer=0, head="max").view(gated, trace)
    assert np.array_equal(shown.values, memory.reads(trace, 0, "max", gated.config.memory).values)
    drawn = draw(shown, Paper(venue=Venue.ICML))
    assert drawn.views[0] is shown


def test_a_window_keeps_its_columns_and_the_segments_that_it_touches(gated: Checkpoint, trace: Trace) -> None:
    whole, part = (of(trace, window=window).view(gated, trace) for window in (None, (5, 20)))
    assert np.array_equal(part.values, whole.values[:, 5:20]) and part.column_labels == whole.column_labels[5:20]
    assert part.boundaries == (0, 2, 9) and part.segment_labels == ("segment 0", "segment 1", "segment 2")


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"layer": 1}, "no block 1; there are 0, 2"), ({"head": "7"}, "no head 7"), ({"segment": 99}, "no segment 99"), ({"window": (3, 3)}, "within 0 and"),
     ({"window": (0, 2), "shown": Shown.NORMS}, "column for each token")],
)  # fmt: skip
def test_what_is_not_there_is_refused_with_what_is(fields: dict, said: str, gated: Checkpoint, trace: Trace) -> None:
    with pytest.raises(ValueError, match=said):
        replace(of(trace), **fields).view(gated, trace)


@pytest.mark.parametrize(
    ("values", "said"),
    [({}, "needs shown and run"), ({"shown": "walls"}, "shown must be of"), ({"gate": "up"}, "gate must be of"), ({"window": [1]}, "two tokens"),
     ({"run": 3}, "run must be"), ({"size": 3}, r"no fields \['size'\]")],
)  # fmt: skip
def test_a_spec_that_makes_no_sense_is_refused_in_a_sentence(values: dict, said: str, trace: Trace) -> None:
    with pytest.raises(ValueError, match=said):
        FigureSpec.from_json(of(trace).to_json() | values if values else {})


def test_a_run_without_captures_has_no_figure(gated: Checkpoint, text: str) -> None:
    spec = RunSpec(checkpoint=gated.name, text=text)
    with pytest.raises(ValueError, match="captures nothing of a memory"):
        FigureSpec(shown=Shown.READS, run=spec).view(gated, run(gated, spec))


@pytest.fixture
def sidecar(gated: Checkpoint, trace: Trace, tmp_path: Path) -> Path:
    """That of a checkpoint that can be opened by its path."""
    save(tmp_path / "toy", gated.model, gated.tokenizer, "")
    spec = of(replace(trace, spec=replace(trace.spec, checkpoint=str(tmp_path / "toy"))))
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_json()), encoding="utf-8")
    assert main(["figure", str(tmp_path / "spec.json"), "-o", str(tmp_path / "first.zip"), "--device", "cpu"]) == 0
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "sidecar.json"


def test_a_sidecar_makes_the_same_bytes_again_and_says_that_nothing_is_otherwise(sidecar: Path, capsys) -> None:
    for ending, first in ((".pdf", "fig.pdf"), (".svg", "fig.svg"), (".png", "fig-600.png"), (".zip", "first.zip")):
        again = sidecar.with_name(f"again{ending}")
        assert main(["figure", str(sidecar), "-o", str(again), "--device", "cpu"]) == 0
        assert again.read_bytes() == sidecar.with_name(first).read_bytes()
        assert "nothing is otherwise" in capsys.readouterr().out


def test_what_is_otherwise_is_told_part_by_part(sidecar: Path, capsys) -> None:
    told = json.loads(sidecar.read_text(encoding="utf-8"))
    told |= {"numbers": "0", "checkpoint_digest": "0", "device": "cuda", "versions": told["versions"] | {"numpy": "0.1"}}
    sidecar.write_text(json.dumps(told), encoding="utf-8")
    assert main(["figure", str(sidecar), "-o", str(sidecar.with_name("again.pdf")), "--device", "cpu", "--json"]) == 0
    otherwise = json.loads(capsys.readouterr().out)["otherwise"]
    assert otherwise[:3] == ["the numbers", "the checkpoint's weights", "the device (was cuda, is cpu)"]
    assert otherwise[3].startswith("the versions of numpy (was 0.1, is ") and len(otherwise) == 4


def test_a_files_ending_that_no_figure_has_is_refused_before_anything_runs(sidecar: Path, capsys) -> None:
    assert main(["figure", str(sidecar), "-o", "fig.docx"]) == 2
    assert "a figure becomes one of .pdf" in capsys.readouterr().err


def test_the_sidecar_names_what_the_figure_was_made_with(gated: Checkpoint, trace: Trace) -> None:
    spec = of(trace)
    view = spec.view(gated, trace)
    told = sidecars.sidecar(spec, gated, view)
    assert told["figure"] == spec.to_json() and told["checkpoint_digest"] == gated.digest and told["device"] == "cpu"
    assert sidecars.differences(told, told) == [] and bundle(draw(view, spec.page), told, spec.digest)
    other = sidecars.sidecar(spec, gated, replace(view, values=view.values + 1))
    assert sidecars.differences(told, other) == ["the numbers"]
