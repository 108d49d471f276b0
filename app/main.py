"""The workbench: page, sidebar, navigation. Run by `lm2 serve`."""

import functools
from collections.abc import Callable

import streamlit as st

from app.navigation import SCREENS
from app.ui import sidebar, state

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
    st.Page(
        page(screen.render),
        title=screen.title,
        icon=screen.icon,
        url_path="" if path == FIRST else path,
        default=path == FIRST,
    )
    for path, screen in SCREENS.items()
]
first = SCREENS[FIRST]
pages.append(st.Page(page(first.render), title=first.title, icon=first.icon, url_path=FIRST, visibility="hidden"))
chosen = st.navigation({"LM2 Workbench": pages}, expanded=True)
state.begin_page()
sidebar.render(asking=SCREENS[chosen.url_path or FIRST].asks)
chosen.run()
