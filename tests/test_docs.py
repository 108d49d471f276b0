"""The documentation: it can be built without torch, loads nothing from elsewhere, and what it shows can be typed."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lm2
from app.cli.main import parser
from probes.experiments.registry import EXPERIMENTS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "howto").glob("*.md")])
BUILD = (
    "import sys; from mkdocs.__main__ import cli; cli(sys.argv[1:], standalone_mode=False); sys.exit('torch' in"
    " sys.modules)"
)
LOADED = re.compile(
    r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"' >]+)"""
    r"""|url\(["']?((?:https?:)?//[^"')]+)"""
)
"""What a browser would get from another machine to show a page."""
LONG = "howto/sweep.md"
"""Its Python sweeps 64 questions: it is compiled and not run."""


def commands(tree: argparse.ArgumentParser) -> Iterator[str]:
    """Every command as it is typed, those below others too."""
    for action in tree._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action.choices.values():
                yield choice.prog
                yield from commands(choice)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language; "" are those without one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [code for named, code in found if named == language]


def typed() -> Iterator[str]:
    """Every line of a page that calls `lm2`."""
    for page in PAGES:
        yield from (line for block in blocks(page, "") for line in block.splitlines() if line.startswith("lm2 "))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once. A broken link, a missing page or an import of torch ends here."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    build = [sys.executable, "-c", BUILD, "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        build, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert pages >= {
        path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in (ROOT / "docs").rglob("*.md")
    }
    assert not (site / "hooks.py").exists()


def test_the_page_of_commands_names_every_command(site: Path) -> None:
    page = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    named = {
        re.sub(r"<[^>]+>|&para;|¶", "", heading).strip()
        for heading in re.findall(r"<h[23][^>]*>(.*?)</h[23]>", page, re.DOTALL)
    }
    assert {"lm2 run", "lm2 bench sweep"} <= set(commands(parser())) <= named


def test_the_reference_has_every_name_that_the_package_exports_and_every_member_that_it_lists(site: Path) -> None:
    built = [page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html")]
    there = {name for page in built for name in re.findall(r'id="([\w.]+)"', page)}
    written = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md")]
    listed = [block for page in written for block in page.split("\n::: ")[1:]]
    wanted = {
        f"{block.split()[0]}.{member}" for block in listed for member in re.findall(r"^ +- (\w+)$", block, re.MULTILINE)
    }
    assert wanted and wanted <= there, wanted - there
    assert {name for name in lm2.__all__ if not any(one.endswith(f".{name}") for one in there)} == set()


def test_the_page_on_ablations_names_every_experiment(site: Path) -> None:
    page = (site / "howto" / "ablate-and-patch.html").read_text(encoding="utf-8")
    assert set(EXPERIMENTS) <= set(re.findall(r"<td[^>]*><code>(\w+)</code></td>", page))


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    loading = {path.relative_to(site).as_posix(): LOADED.findall(path.read_text(encoding="utf-8")) for path in files}
    assert {path: found for path, found in loading.items() if found} == {}


@pytest.mark.parametrize(
    ("tag", "there"),
    [
        ('<script src="https://cdn.example/a.js"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example/css">', True),
        ("@font-face { src: url(https://fonts.example/a.woff2) }", True),
        ('<script src="assets/a.js"></script>', False),
        ('<a href="https://arxiv.org/abs/2502.06049">LM2</a>', False),
    ],
)
def test_a_planted_load_is_found(tag: str, there: bool) -> None:
    assert bool(LOADED.findall(tag)) is there


@pytest.mark.parametrize("line", sorted(set(typed())))
def test_a_command_on_a_page_is_one_that_can_be_given(line: str) -> None:
    words = shlex.split(line.partition(" > ")[0], comments=True)
    if words[1:] not in ([], ["NAME"]):
        assert parser().parse_args(words[1:]).command


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = compile("\n".join(blocks(page, "python")), str(page), "exec")
    if not page.as_posix().endswith(LONG):
        exec(code, {})
