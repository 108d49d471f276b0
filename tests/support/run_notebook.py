"""What runs a notebook, in a process of its own."""

import json
import os
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config


def run_notebook(path: Path) -> None:
    """Run every cell in the notebook's folder, as Jupyter does, and raise what a cell raises."""
    os.chdir(path.parent)
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            with capture_output():
                result = shell.run_cell("".join(cell["source"]))
            result.raise_error()
