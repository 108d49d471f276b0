"""Laws of what the project says of itself: licence, version, changelog, and what it needs."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("lm2", "probes", "app")
NEEDED = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = PROJECT["optional-dependencies"]
DEVELOPED_WITH = [Requirement(text) for extra in ("test", "docs", "lint") for text in EXTRAS[extra]]
LIBRARIES_OF_EXTRAS = {"lm_eval"}
UNDER_TYPE_CHECKING = {"_typeshed"}
"""There for type checkers alone, and in no package."""


def pinned() -> dict[str, Requirement]:
    """What requirements.txt lists, by name."""
    lines = (
        line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    )
    requirements = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def lowest(requirement: Requirement) -> Version:
    """The lowest version that a requirement admits by a bound of its own."""
    bounds = [part.version.removesuffix(".*") for part in requirement.specifier if part.operator in ("==", ">=", "~=")]
    return max(map(Version, bounds))


def imported_libraries() -> set[str]:
    """The top-level names that our packages import from elsewhere, inside functions too."""
    names: set[str] = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add((node.module or "").partition(".")[0])
    return names - set(sys.stdlib_module_names) - set(PACKAGES) - LIBRARIES_OF_EXTRAS - UNDER_TYPE_CHECKING


def test_the_licence_is_there_in_full_and_declared() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0" and PROJECT["license-files"] == ["LICENSE", "NOTICE"]
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert re.findall(r"^ {3}(\d)\. ", text, re.MULTILINE) == list("123456789")


def test_the_notice_names_the_data_that_every_bundled_model_saw() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    models = sorted(path.name for path in (ROOT / "lm2" / "checkpoints").iterdir() if path.is_dir())
    assert models and [name for name in models if not re.search(rf"\b{name}\b(?!-)", notice)] == []
    for said in ("Facebook, Inc.", "Attribution 3.0 Unported", "public domain", "2502.06049", "CC BY-NC 4.0"):
        assert said in notice


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"] == "LM2 Workbench"
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert "https://arxiv.org/abs/2502.06049" in {reference["url"] for reference in citation["references"]}


def test_the_changelog_begins_with_this_version_and_its_date() -> None:
    headings = re.findall(
        r"^## \[(.+?)\](?: - (.+))?$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    released = [heading for heading in headings if heading[0] != "Unreleased"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert released[0] == (PROJECT["version"], str(citation["date-released"]))
    assert [Version(version) for version, _ in released] == sorted((Version(v) for v, _ in released), reverse=True)


def test_the_installed_package_is_of_this_version() -> None:
    there = importlib.metadata.version(PROJECT["name"])
    assert there == PROJECT["version"], f"{there} is installed: `pip install -e .` installs this version"


@pytest.mark.parametrize("needed", [*NEEDED, *DEVELOPED_WITH], ids=lambda needed: needed.name)
def test_what_is_developed_with_is_what_the_package_asks_for(needed: Requirement) -> None:
    name = canonicalize_name(needed.name)
    assert name in pinned(), f"requirements.txt lacks {name}"
    here = importlib.metadata.version(name)
    assert lowest(needed) <= lowest(pinned()[name])
    assert needed.specifier.contains(lowest(pinned()[name]), prereleases=True)
    assert needed.specifier.contains(here) and pinned()[name].specifier.contains(here)


def test_requirements_install_the_package_after_its_libraries() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert lines[-2:] == ["-e", "."] and "torch==2.13.0" in lines


def test_every_library_that_the_packages_import_is_one_that_they_ask_for() -> None:
    declared = {canonicalize_name(needed.name) for needed in NEEDED}
    providers = importlib.metadata.packages_distributions()
    missing = {
        name
        for name in imported_libraries()
        if not declared & {canonicalize_name(provider) for provider in providers.get(name, ())}
    }
    assert missing == set()


def test_every_library_that_is_asked_for_is_imported() -> None:
    providers = importlib.metadata.packages_distributions()
    used = {canonicalize_name(provider) for name in imported_libraries() for provider in providers.get(name, ())}
    assert {canonicalize_name(needed.name) for needed in NEEDED} - used == set()
