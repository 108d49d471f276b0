"""The rules of the house that can be read off the source: who imports whom, and what nobody does."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lm2", "probes", "app")
BELOW = {"lm2": {"lm2"}, "probes": {"lm2", "probes"}, "app": {"lm2", "probes", "app"}}
"""Which of our packages each one may import: app -> probes -> lm2, one way."""
DRAWING = ("app/views/", "app/figures/", "app/export/files.py")
"""Turns results into pictures: knows neither the browser nor the models' engine."""
MAY_PRINT = re.compile(r"app/cli/.*\.py")
LENS_DOOR = "lm2/model/hooks.py"
LOOPS = {"lm2/runs/loop.py", "lm2/runs/batched.py", "probes/causal/planner.py", "lm2/model/lm2.py"}
"""What advances a bank through segments: one document, many documents, many interventions; and the model itself."""
MARKED = "noqa: BLE001 - "
"""An `except Exception` that gives its reason."""
MARKED_FILES = {"lm2/text/tokens.py"}


def sources(root: Path) -> Iterator[tuple[str, ast.Module, list[str]]]:
    """(path from the root, syntax tree, lines) of every source file of our packages."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            yield path.relative_to(root).as_posix(), ast.parse(text, str(path)), text.splitlines()


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Call) and called(node) in ("importlib.import_module", "__import__"):
            yield from (
                (node.lineno, arg.value)
                for arg in node.args[:1]
                if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            )


def called(node: ast.Call) -> str:
    """The dotted name that a call is written with; its last part where it hangs on an expression."""
    parts, place = [], node.func
    while isinstance(place, ast.Attribute):
        parts.append(place.attr)
        place = place.value
    return ".".join([*([place.id] if isinstance(place, ast.Name) else []), *reversed(parts)])


def is_constant(node: ast.Call, name: str, value: object) -> bool:
    return any(
        keyword.arg == name and isinstance(keyword.value, ast.Constant) and keyword.value.value is value
        for keyword in node.keywords
    )


def import_violations(path: str, tree: ast.Module) -> Iterator[str]:
    own = path.split("/")[0]
    for line, module in imported(tree):
        top = module.split(".")[0]
        if top in PACKAGES and top not in BELOW[own]:
            yield f"{path}:{line} {own} imports {module}"
        if top == "streamlit" and own != "app":
            yield f"{path}:{line} {own} imports streamlit"
        if path.startswith(DRAWING) and top in ("streamlit", "torch", "transformer_lens"):
            yield f"{path}:{line} a drawing module imports {module}"
        if top == "transformer_lens" and path != LENS_DOOR:
            yield f"{path}:{line} only {LENS_DOOR} imports transformer_lens"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{path}:{node.lineno} relative import"


def kind_violations(path: str, tree: ast.Module) -> Iterator[str]:
    """What depends on a kind of memory asks its declaration."""
    for node in ast.walk(tree):
        if path.startswith("lm2/model/") or not isinstance(node, ast.Attribute) or not node.attr.isupper():
            continue
        if ast.unparse(node.value).split(".")[-1] == "MemoryKind":
            yield f"{path}:{node.lineno} MemoryKind.{node.attr} is named outside lm2/model"


def call_violations(path: str, tree: ast.Module) -> Iterator[str]:
    pickles = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node,
        ast.ImportFrom) and node.module == "pickle"
               for alias in node.names}  # fmt: skip
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = called(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("segment", "begin") and path not in LOOPS:
            yield f"{path}:{node.lineno} {node.func.attr} is called outside the segment loops"
        if name == "print" and not MAY_PRINT.fullmatch(path):
            yield f"{path}:{node.lineno} print"
        if name in ("pickle.load", "pickle.loads", "pickle.Unpickler") or (
            name in pickles and name in ("load", "loads", "Unpickler")
        ):
            yield f"{path}:{node.lineno} {name} runs whatever code it is given"
        if name == "torch.load" and not is_constant(node, "weights_only", True):
            yield f"{path}:{node.lineno} torch.load without weights_only=True"
        if name.endswith("load_state_dict") and (
            is_constant(node, "strict", False)
            or any(isinstance(a, ast.Constant) and a.value is False for a in node.args[1:])
        ):
            yield f"{path}:{node.lineno} load_state_dict that is not strict"
        if name in ("np.load", "numpy.load") and is_constant(node, "allow_pickle", True):
            yield f"{path}:{node.lineno} numpy's load with pickle"


def except_violations(path: str, tree: ast.Module, lines: list[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        names = {kind.id for kind in kinds if isinstance(kind, ast.Name)}
        everything = node.type is None or names & {"Exception", "BaseException"}
        if everything and not (path in MARKED_FILES and MARKED in lines[node.lineno - 1]):
            yield f"{path}:{node.lineno} catches everything"


def violations(root: Path) -> list[str]:
    found: list[str] = []
    for path, tree, lines in sources(root):
        found += [*import_violations(path, tree), *kind_violations(path, tree), *call_violations(path, tree)]
        found += except_violations(path, tree, lines)
    return found


def test_the_source_keeps_the_rules_of_the_house() -> None:
    assert violations(ROOT) == []


def test_there_is_source_to_read() -> None:
    assert {path.split("/")[0] for path, _, _ in sources(ROOT)} >= {"lm2"}
    assert sum(1 for _ in sources(ROOT)) > 20


def modules(root: Path) -> dict[str, tuple[str, ast.Module]]:
    """Path and syntax tree of each of our modules, by its dotted name."""
    named = (
        (path, path.removesuffix(".py").removesuffix("/__init__").replace("/", "."), tree)
        for path, tree, _ in sources(root)
    )
    return {module: (path, tree) for path, module, tree in named}


def imports_of_modules(root: Path) -> Iterator[tuple[str, str]]:
    """(path of the module that imports, path of the module that it imports) for all of our own."""
    ours = modules(root)
    for path, tree in ours.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name not in ours:
                    name = name.rpartition(".")[0]
                if name in ours and ours[name][0] != path:
                    yield path, ours[name][0]


def circle(arrows: set[tuple[str, str]]) -> list[str]:
    """The folders of circles, sorted: what is left when folders that import nothing left, or that nothing left imports,
    are taken away."""
    left = {folder for arrow in arrows for folder in arrow}
    while ends := left - {a for a, b in arrows if {a, b} <= left} | left - {b for a, b in arrows if {a, b} <= left}:
        left -= ends
    return sorted(left)


def arrows_of_folders(root: Path) -> set[tuple[str, str]]:
    pairs = ((a.rpartition("/")[0], b.rpartition("/")[0]) for a, b in imports_of_modules(root))
    return {(a, b) for a, b in pairs if a != b}


def test_imports_between_folders_run_one_way() -> None:
    arrows = arrows_of_folders(ROOT)
    assert len(arrows) > 50
    assert circle(arrows) == []


def test_a_planted_circle_is_found(tmp_path: Path) -> None:
    for path, line in (
        ("lm2/a/b.py", "import lm2.c.d"),
        ("lm2/c/d.py", "def f():\n    from lm2.a import b"),
        ("app/e.py", "import lm2.c.d"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(line + "\n")
    arrows = arrows_of_folders(tmp_path)
    assert ("app", "lm2/c") in arrows
    assert circle(arrows) == ["lm2/a", "lm2/c"]


def test_no_folder_holds_more_than_a_reader_takes_in() -> None:
    folders = Counter(path.rpartition("/")[0] for path, _, _ in sources(ROOT) if not path.endswith("/__init__.py"))
    assert {folder: files for folder, files in folders.items() if files > 13} == {}


def test_a_class_name_is_defined_once() -> None:
    defined = Counter(
        node.name
        for _, tree, _ in sources(ROOT)
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name: count for name, count in defined.items() if count > 1} == {}


def test_tests_mirror_the_rooms() -> None:
    rooms = {path.rpartition("/")[0] for path, _, _ in sources(ROOT)}
    tests = {
        path.parent.relative_to(ROOT / "tests").as_posix()
        for package in PACKAGES
        for path in (ROOT / "tests" / package).rglob("test_*.py")
    }
    assert tests and tests <= rooms


def test_tests_are_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize(
    ("path", "line", "said"),
    [
        ("lm2/a.py", "import probes.causal.lens", "lm2 imports probes.causal.lens"),
        ("lm2/a.py", "from app.ui.state import x", "lm2 imports app.ui.state"),
        ("probes/a.py", "import app", "probes imports app"),
        ("probes/a.py", "def f():\n    import streamlit as st", "probes imports streamlit"),
        ("lm2/a.py", "import importlib\nimportlib.import_module('streamlit')", "lm2 imports streamlit"),
        ("app/views/a.py", "import torch.nn", "a drawing module imports torch.nn"),
        ("app/figures/deep/a.py", "from streamlit import x", "a drawing module imports streamlit"),
        ("app/export/files.py", "import torch", "a drawing module imports torch"),
        ("app/screens/a.py", "from transformer_lens import HookedRootModule",
            "only lm2/model/hooks.py imports transformer_lens"),
        ("probes/a.py", "f(config.memory is MemoryKind.GATED)", "MemoryKind.GATED is named outside lm2/model"),
        ("app/a.py", "import lm2\nf(lm2.MemoryKind.NONE)", "MemoryKind.NONE is named outside lm2/model"),
        ("lm2/a.py", "from . import b", "relative import"),
        ("lm2/a.py", "print(1)", "print"),
        ("probes/a.py", "out = model.segment(ids, bank)", "segment is called outside the segment loops"),
        ("lm2/a.py", "self._model.begin(ids, bank)", "begin is called outside the segment loops"),
        ("app/a.py", "import pickle\npickle.loads(b'')", "pickle.loads runs"),
        ("lm2/a.py", "from pickle import load\nload(f)", "load runs"),
        ("lm2/a.py", "import torch\ntorch.load('a')", "torch.load without weights_only=True"),
        ("lm2/a.py", "import torch\ntorch.load('a', weights_only=False)", "torch.load without weights_only=True"),
        ("lm2/a.py", "m.load_state_dict(x, strict=False)", "not strict"),
        ("lm2/a.py", "m.load_state_dict(x, False)", "not strict"),
        ("lm2/a.py", "m().load_state_dict(x, strict=False)", "not strict"),
        ("lm2/a.py", "try:\n    f()\nexcept Exception:\n    pass", "catches everything"),
        ("lm2/a.py", "try:\n    f()\nexcept:\n    pass", "catches everything"),
        ("lm2/a.py", "try:\n    f()\nexcept (OSError, BaseException) as e:  # noqa: BLE001 - because\n    pass",
            "catches everything"),
        ("lm2/text/tokens.py", "try:\n    f()\nexcept Exception:\n    pass", "catches everything"),
    ],
)  # fmt: skip
def test_a_planted_violation_is_found(tmp_path: Path, path: str, line: str, said: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(line + "\n")
    found = violations(tmp_path)
    assert len(found) == 1 and said in found[0] and found[0].startswith(f"{path}:")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("app/a.py", "import lm2.runs.runner, probes.causal.lens, streamlit, torch"),
        ("probes/a.py", "from lm2.model.lm2 import LM2\nimport torch"),
        ("lm2/model/hooks.py", "from transformer_lens import HookedRootModule"),
        ("lm2/model/kinds/a.py", "replace(config, memory=MemoryKind.GATED)"),
        ("probes/a.py", "def f(kind: MemoryKind) -> bool:\n    return MemoryKind(word).design.causal"),
        ("lm2/runs/loop.py", "model.segment(ids, bank)"),
        ("app/cli/commands/eval.py", "print(1)"),
        (
            "lm2/a.py",
            (
                "import pickle, torch\ntry:\n    torch.load(p, weights_only=True)\nexcept pickle.UnpicklingError:\n   "
                " raise"
            ),
        ),
        ("lm2/a.py", "model.load_state_dict(x)\noptimizer.load_state_dict(x, strict=True)"),
        (
            "lm2/text/tokens.py",
            (
                "try:\n    f()\nexcept Exception as e:  # noqa: BLE001 - the Rust library raises plain Exception\n   "
                " raise"
            ),
        ),
    ],
)
def test_what_the_rules_allow_is_not_reported(tmp_path: Path, path: str, line: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(line + "\n")
    assert violations(tmp_path) == []


def test_the_screens_are_drawn_before_torch_is_imported() -> None:
    screens = "app.navigation, app.ui.sidebar, app.ui.session"
    code = f"import sys, {screens}; sys.exit(any(name in sys.modules for name in ('torch', 'transformer_lens')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_page_draws_only_what_it_calls_for() -> None:
    """Streamlit draws every expression that stands alone in the script that it runs, a text among them."""
    _, *statements = ast.parse((ROOT / "app/main.py").read_text(encoding="utf-8")).body
    alone = [
        statement.lineno
        for statement in statements
        if isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Call)
    ]
    assert not alone, f"app/main.py draws lines {alone}"
