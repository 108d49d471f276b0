"""The workbench: page, sidebar, navigation. Run by `lm2 serve`."""

import functools
from collections.abc import Callable

import streamlit as st

from app.screens import (
    ablations,
    bank,
    benchmark,
    experiments,
    figure,
    gates,
    memory,
    patching,
    probes,
    run,
    slots,
    sweeps,
    updates,
)
from app.ui import sidebar, state

SCREENS = {
    "run": ("Run", ":material/play_arrow:", run.render),
    "memory": ("Memory", ":material/grid_on:", memory.render),
    "gates": ("Gates", ":material/tune:", gates.render),
    "bank": ("Bank", ":material/database:", bank.render),
    "slots": ("Slots", ":material/label:", slots.render),
    "updates": ("Updates", ":material/update:", updates.render),
    "ablations": ("Ablations", ":material/content_cut:", ablations.render),
    "patching": ("Patching", ":material/swap_horiz:", patching.render),
    "probes": ("Probes", ":material/troubleshoot:", probes.render),
    "experiments": ("Experiments", ":material/science:", experiments.render),
    "sweeps": ("Sweeps", ":material/grid_view:", sweeps.render),
    "benchmark": ("Benchmark", ":material/leaderboard:", benchmark.render),
    "figure": ("Figure", ":material/print:", figure.render),
}
# The screen at the address without a path. It can be opened by its name, too.
FIRST = "memory"


def page(render: Callable[[], None]) -> Callable[[], None]:
    """The screen as a fragment: its own controls redraw it, and leave the sidebar alone."""

    @functools.wraps(render)
    def show() -> None:
        notices = st.container()
        render()
        with notices:
            state.publish()

    return st.fragment(show)


# `lm2 serve` sets it, too; `streamlit run` does not.
st.set_option("client.showErrorDetails", "none")
st.set_page_config(page_title="LM2 Workbench", page_icon="🧠", layout="wide")
pages = [
    st.Page(page(render), title=title, icon=icon, url_path="" if path == FIRST else path, default=path == FIRST)
    for path, (title, icon, render) in SCREENS.items()
]
title, icon, render = SCREENS[FIRST]
pages.append(st.Page(page(render), title=title, icon=icon, url_path=FIRST, visibility="hidden"))
screen = st.navigation({"LM2 Workbench": pages}, expanded=True)
state.begin_page()
sidebar.render()
screen.run()
