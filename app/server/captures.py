"""Captures of texts in the workspace: stores that jobs of this server write, and others that visitors may open."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from app.export import workspace
from app.server import owner
from app.views.run import store as views
from app.views.sizes import size_in_words
from lm2.stores.layout import StoreLayout, is_store

if TYPE_CHECKING:
    from app.server.jobs import Job, Work
    from lm2.runs.spec import RunSpec
    from lm2.stores.store import Store
    from lm2.weights.checkpoint import Checkpoint


def names() -> list[str]:
    """The captures of the workspace."""
    return sorted(path.name for path in workspace.captures().glob("*") if is_store(path))


def path(name: str) -> Path:
    """The folder of a capture, or one typed by a visitor. Raises ValueError as `owner.allowed_path` does."""
    return workspace.captures() / name if name in names() else owner.allowed_path(name)


def name_of(spec: RunSpec) -> str:
    """What the capture of a run is called; the same run has the same name, and goes on where it was stopped."""
    model = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(spec.checkpoint).name).strip("-.")
    return f"{model}-{spec.digest[:10]}"


def work(checkpoint: Checkpoint, spec: RunSpec) -> Work:
    """The job that captures a run into the workspace."""
    return partial(_capture, checkpoint, spec)


def _capture(checkpoint: Checkpoint, spec: RunSpec, job: Job) -> str:
    from lm2.stores.capture import capture

    name = name_of(spec)
    workspace.captures().mkdir(parents=True, exist_ok=True)
    capture(checkpoint, spec, workspace.captures() / name, on_segment=job.report)
    return name


def panels(store: Store, what: str) -> tuple[np.ndarray, list[int]]:
    """Small maps of all blocks and heads, computed once for all sessions."""
    return _panels(store.spec.digest, str(store.origin), store.whole, what, store)


@st.cache_resource(max_entries=8, show_spinner=False)
def _panels(digest: str, origin: str, whole: int, what: str, _store: Store) -> tuple[np.ndarray, list[int]]:
    return views.panels(_store, what)


def predicted(checkpoint: Checkpoint, spec: RunSpec) -> str:
    """What capturing a run takes, in words. Raises ValueError as `prepare` does."""
    from lm2.runs.runner import prepare

    tokens, segments = map(len, prepare(checkpoint, spec))
    size = StoreLayout.of(checkpoint, spec, tokens, segments).bytes
    return f"{tokens:,} tokens in {segments:,} segments, about {size_in_words(size)} on disk"
