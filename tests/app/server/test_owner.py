"""Laws of who decides: what a visitor names is opened only where the server's owner allows it."""

import contextlib
import json
import os
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.charts import BenchmarkChart, OfBenchmark, OfProbe, ProbeChart, SlotChart
from app.cli.main import main
from app.cli.shell.errors import Exit
from app.export import workspace
from app.export.figure_spec import FigureSpec
from app.server import cache, owner
from app.server.jobs import Job
from app.ui import say
from probes.explain.spec import ExplainSpec
from probes.probing.spec import ProbeSpec

OUTSIDE = ["/dev/zero", "/etc/passwd", "/", "..", "../../etc/passwd", "~root/.ssh", "a\0b", "\ud800", "x" * 9_000]


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the owner opens, beside one that he does not."""
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    monkeypatch.setenv(owner.FOLDERS, str(tmp_path / "open"))
    return tmp_path / "open"


@pytest.mark.parametrize("named", OUTSIDE)
def test_what_lies_outside_the_owners_folders_is_refused(named: str, inside: Path) -> None:
    with pytest.raises(ValueError, match="is no path|is not in a folder"):
        owner.allowed_path(named)


def test_what_lies_inside_is_opened_and_no_way_leads_out(inside: Path) -> None:
    assert owner.allowed_path(str(inside / "a")) == inside / "a"
    (inside / "link").symlink_to(inside.parent / "closed")
    (inside / "circle").symlink_to(inside / "circle")
    for way in (inside / "link", inside / "link" / "x", inside / ".." / "closed", inside.parent / "opened"):
        with pytest.raises(ValueError, match="is not in a folder"):
            owner.allowed_path(str(way))


def test_without_a_word_of_the_owner_it_is_the_folder_that_the_server_was_started_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(owner.FOLDERS)
    monkeypatch.chdir(tmp_path)
    assert owner.allowed_path("mine") == Path("mine")
    with pytest.raises(ValueError, match="is not in a folder"):
        owner.allowed_path("../mine")
    monkeypatch.setenv(owner.FOLDERS, "")
    with pytest.raises(ValueError, match="is not in a folder"):
        owner.allowed_path("mine")


def _page(screen: str, **link: str) -> AppTest:
    def script(screen: str) -> None:
        from app.navigation import SCREENS

        SCREENS[screen].render()

    test = AppTest.from_function(script, kwargs={"screen": screen}, default_timeout=60)
    for name, value in link.items():
        test.query_params[name] = value
    return test.run()


@pytest.mark.parametrize("link", [
    {"screen": "run", "checkpoint": "/etc"}, {"screen": "benchmark", "results": "/etc"},
    {"screen": "probes", "probe_labels": "/dev/zero"},
    {"screen": "probes", "probe_targets": "place of *, labels /dev/zero"},
], ids=str)  # fmt: skip
def test_no_field_of_a_link_opens_a_path_outside(link: dict[str, str], inside: Path) -> None:
    test = _page(**link)
    assert not test.exception and any("owner opens to visitors" in info.value for info in test.info)


@pytest.mark.parametrize("chart", [
    SlotChart(spec=ExplainSpec(checkpoint="babi-lm2-qa1", file="/dev/zero"), slot=0),
    BenchmarkChart(spec="/etc", shown=OfBenchmark.CURVES),
    ProbeChart(spec=ProbeSpec(checkpoint="babi-lm2-qa1", labels="/dev/zero"), shown=OfProbe.MAP),
    ProbeChart(spec=ProbeSpec(checkpoint="babi-lm2-qa1", targets=("labels /dev/zero",)), shown=OfProbe.MAP),
], ids=str)  # fmt: skip
def test_a_saved_figure_that_names_a_file_outside_is_not_opened(
    chart, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(workspace.VARIABLE, str(inside))
    workspace.save("mine", {"figure": json.loads(json.dumps(FigureSpec(charts=(chart,)).to_json()))})
    test = _page("figure")
    test.selectbox(key="figure_saved").set_value("mine").run()
    next(button for button in test.button if button.label == "Open").click().run()
    assert not test.exception and any("owner opens to visitors" in info.value for info in test.info)


def test_an_uploaded_checkpoint_is_known_by_a_name_that_tells_no_path(
    gated, folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(folder(gated))
    monkeypatch.setattr(cache.uploads(), "path", lambda name: path)
    monkeypatch.setenv(owner.FOLDERS, "")
    loaded = cache.checkpoint("upload:0123456789abcdef", "cpu", "float32")
    assert loaded.name == "upload:0123456789abcdef"
    (path / "model.safetensors").write_bytes(b"x")
    test = _page("run", checkpoint="upload:fedcba9876543210")
    assert any("model.safetensors" in info.value and str(path) not in info.value for info in test.info)


def test_of_a_path_in_a_sentence_visitors_see_the_last_part_alone() -> None:
    assert owner.without_folders(
        "/tmp/a b/c.json is missing; '/tmp/x/y.csv' too"
    ) == "/tmp/a b/c.json is missing; '.../y.csv' too".replace("/tmp/a b/c", ".../a b/c")
    same = "http://127.0.0.1:8000/v1 is read/write, 1/2, models/mine/config.json"
    assert owner.without_folders(same) == same


def test_an_error_in_words_and_why_a_job_failed_show_no_folder_of_this_machine() -> None:
    error = OSError(28, "No space left on device", "/var/lib/lm2/trace.npz")
    assert (
        say.words("It failed: {}.", ValueError("/var/lib/lm2/a.json is damaged."))
        == "It failed: .../a.json is damaged."
    )

    def fail(error: Exception) -> str:
        def work(job: Job) -> None:
            raise error

        job = Job(work)
        with contextlib.suppress(KeyError):
            job.run()
        return job.sentence

    assert fail(error) == "[Errno 28] No space left on device: '.../trace.npz'"
    assert fail(KeyError(Path("/var/lib/lm2"))) == "the program failed with KeyError; the server's log says where"


@pytest.mark.parametrize("arguments", [
    ["--folders", "nowhere"], ["--model", "m"], ["--model-url", "http://127.0.0.1:1/v1"],
    ["--model", "m", "--model-url", "localhost"],
    ["--model", "m", "--model-url", "http://[::1"], ["--model", "m", "--model-url", "http://127.0.0.1:x/v1"],
], ids=" ".join)  # fmt: skip
def test_a_mistake_of_the_owner_is_told_before_anything_is_served(
    arguments: list[str], capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.execv", lambda program, command: pytest.fail("served"))
    monkeypatch.setattr("os.environ", os.environ.copy())
    assert main(["serve", *arguments]) == Exit.MISTAKE
    assert capsys.readouterr().err.count("\n") == 1


def test_visitors_see_no_traceback_however_the_app_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[list[str]] = []
    monkeypatch.setattr("os.environ", os.environ.copy())
    monkeypatch.setattr("os.execv", lambda program, command: begun.append(command))
    monkeypatch.setattr("subprocess.call", lambda command: begun.append(command) or 0)
    with pytest.raises(SystemExit):
        main(["serve"])
    assert {"--client.showErrorDetails=none", "--server.enableXsrfProtection=true", "--server.enableCORS=true"} <= set(
        begun[0]
    )
    assert 'st.set_option("client.showErrorDetails", "none")' in (
        Path(owner.__file__).parents[1] / "main.py"
    ).read_text(encoding="utf-8")
