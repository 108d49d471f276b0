"""The only caches: loaded checkpoints and finished traces, shared by all sessions of the server."""

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable

import streamlit as st

from lm2.capture import Capture
from lm2.sites import Site
from lm2.spec import RunSpec

_TRACE_BYTES = 1024**3
"""What the trace store may hold in all."""

_RUN_BYTES = 256 * 1024**2
"""What one run may keep with all blocks; beyond it, only the chosen block is captured."""

_SITES = (Site.READ_PATTERN, Site.WRITE_PATTERN, Site.GATE_IN, Site.GATE_FORGET, Site.GATE_OUT, Site.BANK_PRE, Site.BANK_POST)


@st.cache_resource(max_entries=2, show_spinner=False)
def checkpoint(name: str, device: str, dtype: str) -> "Checkpoint":  # noqa: F821
    """Load a checkpoint once per name, device and dtype.

    TransformerLens takes seconds to import, so it is imported here, after the first paint. Raises CheckpointError.
    """
    from lm2.checkpoint import load

    loaded = load(name, device, dtype)
    gc.freeze()  # Streamlit collects garbage after every rerun; walking the imported libraries each time takes 0.2 s
    return loaded


class TraceStore:
    """Traces by what made them: the spec's digest and that of the weights. The least recently used ones go first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._traces: OrderedDict[tuple[str, str, str, str], "Trace"] = OrderedDict()  # noqa: F821
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str, str, str]) -> "Trace | None":  # noqa: F821
        with self._lock:
            if key in self._traces:
                self._traces.move_to_end(key)
            return self._traces.get(key)

    def put(self, key: tuple[str, str, str, str], trace: "Trace") -> None:  # noqa: F821
        with self._lock:
            self._traces[key] = trace
            while sum(held.bytes for held in self._traces.values()) > self._limit and len(self._traces) > 1:
                self._traces.popitem(last=False)


@st.cache_resource(show_spinner=False)
def _store() -> TraceStore:
    return TraceStore(_TRACE_BYTES)


def spec_for(loaded: "Checkpoint", text: str, segment_length: int | None, layer: int) -> RunSpec:  # noqa: F821
    """The run that the screens show: all memory sites of all blocks, or of block `layer` alone where all would be too much."""
    from lm2.runner import predicted_bytes

    sites = [site for site in _SITES if site.layers(loaded.config)]
    full = RunSpec(checkpoint=loaded.name, text=text, segment_length=segment_length, captures=tuple(Capture(site) for site in sites))
    if predicted_bytes(loaded, full) <= _RUN_BYTES:
        return full
    only = tuple(Capture(site, layers=(layer,)) for site in sites)
    return RunSpec(checkpoint=loaded.name, text=text, segment_length=segment_length, captures=only)


def trace(loaded: "Checkpoint", spec: RunSpec, on_segment: Callable[[int, int], None]) -> "Trace":  # noqa: F821
    """The trace of a spec, run only where it is not in the store. Raises ValueError as `run` does."""
    from lm2.runner import run

    key = (spec.digest, loaded.digest, loaded.device, loaded.dtype)
    found = _store().get(key)
    if found is None:
        found = run(loaded, spec, on_segment=on_segment)
        _store().put(key, found)
    return found
