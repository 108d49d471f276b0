"""Builds a wheel, installs it away from the checkout and uses it there: `make wheel-test`.

The new environment borrows its libraries from the one that runs this script, because installing them takes minutes;
the project itself comes from the wheel alone. `pip check` then compares the libraries with what the wheel requires.
`--resolve` also asks the package index whether the requirements can be met, which takes longer and needs an index.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("lm2", "probes", "app")
LICENCES = ("LICENSE", "NOTICE")
MODEL = "babi-lm2-qa1"
BIN = "Scripts" if os.name == "nt" else "bin"
IMPORTS = "import json, lm2, probes, app; print(json.dumps([lm2.__file__, probes.__file__, app.__file__]))"
RUN = f"""
import lm2
spec = lm2.RunSpec(checkpoint={MODEL!r}, text="Mary moved to the garden. Where is Mary?")
trace = lm2.run(lm2.load({MODEL!r}, "cpu"), spec)
assert trace.logits.ndim == 2
"""
SCREEN = """
import sys, app
from pathlib import Path
from streamlit.testing.v1 import AppTest

page = AppTest.from_file(str(Path(app.__file__).parent / "main.py"), default_timeout=300).run()
sys.exit("; ".join(error.message for error in page.exception) or 0)
"""
"""Draws the first screen with its scripts and styles: the server says that it is well before it reads any of them."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--resolve", action="store_true", help="have pip find all requirements in the index")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="wheel-test-") as name:
        folder = Path(name)
        wheel = timed("built", build, folder)
        timed("complete", check_files, wheel)
        timed("installed", install, wheel, folder)
        timed("requirements are met", run, folder, "python", "-m", "pip", "check")
        if chosen.resolve:
            timed("requirements can be found", resolve, wheel)
        timed("imported", check_imports, folder)
        timed("lm2 --help", run, folder, "lm2", "--help")
        timed(f"lm2 info {MODEL}", check_info, folder)
        timed("a text run", run, folder, "python", "-c", RUN)
        timed("the first screen drawn", run, folder, "python", "-c", SCREEN)
        timed("lm2 serve", check_server, folder)
    return 0


def timed(said: str, step: Callable, *arguments: object):
    """Takes a step and prints how long it took."""
    begun = time.perf_counter()
    result = step(*arguments)
    print(f"{said}: {time.perf_counter() - begun:.1f} s", flush=True)
    return result


def known_files() -> list[str]:
    """The checkout's files that git knows or would add; what was built or measured here is left out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for path in listed.split("\0") if path and (ROOT / path).is_file()]


def build(folder: Path) -> Path:
    """A wheel of the checkout's files, built from a copy: a `build` folder left in the tree would get into it."""
    source = folder / "source"
    for path in known_files():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_files(wheel: Path) -> None:
    """Every file of the packages is in the wheel, with the licences, and nothing else is."""
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    packed = {name for name in names if ".dist-info/" not in name}
    wanted = {path for path in known_files() if path.startswith(tuple(f"{package}/" for package in PACKAGES))}
    assert packed == wanted, f"missing: {sorted(wanted - packed)}; too many: {sorted(packed - wanted)}"
    for licence in LICENCES:
        assert any(name.endswith(f".dist-info/licenses/{licence}") for name in names), f"{licence} is not in the wheel"


def install(wheel: Path, folder: Path) -> None:
    """The wheel in a new environment, which then sees the libraries of this one but none of its editable packages."""
    venv.create(folder / "env", with_pip=True)
    run(folder, "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    run(folder, "python", "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools")  # venv's own, up to Python 3.11
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    there = Path(run(folder, "python", "-c", code).strip())
    ours = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (there / "borrowed.pth").write_text("\n".join(ours) + "\n", encoding="utf-8")


def resolve(wheel: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", str(wheel)]
    subprocess.run(command, check=True)


def environment() -> dict[str, str]:
    """This process's variables without those that lead to the checkout or to data."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LM2_", "VIRTUAL_ENV"))}


def elsewhere(folder: Path) -> Path:
    place = folder / "elsewhere"
    place.mkdir(exist_ok=True)
    return place


def run(folder: Path, program: str, *arguments: str) -> str:
    """What a program of the new environment prints, run outside the checkout. Raises if it fails."""
    command = [str(folder / "env" / BIN / program), *arguments]
    place = elsewhere(folder)
    done = subprocess.run(command, cwd=place, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{program} {' '.join(arguments)}\nfailed with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def check_imports(folder: Path) -> None:
    for path in json.loads(run(folder, "python", "-c", IMPORTS)):
        assert Path(path).resolve().is_relative_to((folder / "env").resolve()), f"{path} is not the wheel's"


def check_info(folder: Path) -> None:
    found = json.loads(run(folder, "lm2", "info", MODEL, "--json"))
    assert found["checkpoint"] == MODEL and found["parameters"] > 2_000_000 and found["card"].startswith(f"# {MODEL}")


def check_server(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with served(folder, port), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
        assert page.status == 200 and b"<title>" in page.read()


@contextmanager
def served(folder: Path, port: int) -> Iterator[None]:
    """`lm2 serve` while it answers. Raises if it ends, or does not answer within a minute."""
    command = [str(folder / "env" / BIN / "lm2"), "serve", "--port", str(port)]
    log = folder / "serve.log"
    with log.open("w", encoding="utf-8") as told:
        server = subprocess.Popen(
            command, cwd=elsewhere(folder), env=environment(), stdout=told, stderr=subprocess.STDOUT
        )
    try:
        until = time.monotonic() + 60
        while not healthy(port):
            if server.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"lm2 serve does not answer:\n{log.read_text(encoding='utf-8')}")
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait(20)


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


if __name__ == "__main__":
    sys.exit(main())
