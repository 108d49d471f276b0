"""Run: the text as the model reads it, and its predictions."""

import streamlit as st

from app.charts import OfRun, RunChart
from app.ui import export_panel, panels, session, state
from app.views.run import text


def render() -> None:
    st.header("Run")
    st.write(
        "The text as the model sees it, segment by segment. Click a token to see what the model predicts after it."
    )
    opened = session.open_trace()
    if opened is None:
        return
    session.subtitle(opened)
    trace, tokenizer = opened.trace, opened.checkpoint.tokenizer
    if opened.context.quizzes:
        note = "Probability of the answer's first token, at the question's last token."
        panels.panel(text.quizzes(trace, opened.context, tokenizer), "quizzes", "Questions", note)
    chosen = state.choice("run.token", len(trace.tokens))
    token = len(trace.tokens) - 1 if chosen is None else chosen
    st.subheader("Text")
    window = panels.choose_window(len(trace.tokens), token, "run")
    charts = {
        title: RunChart(
            spec=trace.spec,
            item=opened.context.origin,
            shown=shown,
            window=window,
            marks=text.marks(trace, opened.context),
        )
        for title, shown in (("Text", OfRun.TEXT), ("Surprise", OfRun.SURPRISE))
    }
    made = session.computed(charts, opened.checkpoint)
    state.click("run", token=panels.strip(made["Text"].view, "strip_run", token))
    left, right = st.columns([1, 2])
    panels.panel(text.next_tokens(trace, tokenizer, token), "next_tokens", f"After token {token}", at=left)
    panels.panel(made["Surprise"].view, "surprise", "Surprise", at=right)
    export_panel.render(made)
