"""Run: the text as the model met it, and what it expected."""

import streamlit as st

from app.charts import OfRun, RunChart
from app.ui import export_panel, panels, say, session, state
from app.views.run import text


def render() -> None:
    st.header("Run")
    st.write("The text as the model met it, segment by segment. Click a token to see what the model expected after it.")
    opened = session.open_trace()
    if opened is None:
        return
    session.subtitle(opened)
    trace, tokenizer = opened.trace, opened.checkpoint.tokenizer
    if opened.context.quizzes:
        st.subheader("Questions")
        panels.table(text.quizzes(trace, opened.context, tokenizer), "quizzes")
        st.caption("Probability of the answer's first token, at the question's last token.")
    chosen = state.choice("token", len(trace.tokens))
    token = len(trace.tokens) - 1 if chosen is None else chosen
    st.subheader("Text")
    window = panels.part(len(trace.tokens), token, "run")
    made = {
        title: (
            RunChart(
                spec=trace.spec,
                item=opened.context.origin,
                shown=shown,
                window=window,
                marks=text.marks(trace, opened.context),
            ).made(opened.checkpoint, trace)
        )
        for title, shown in (("Text", OfRun.TEXT), ("Surprise", OfRun.SURPRISE))
    }
    clicked = panels.strip(made["Text"].view, "strip_run", token)
    if clicked is not None and clicked != token:
        state.update(token=clicked)
        st.rerun()
    left, right = st.columns([1, 2])
    with left:
        st.subheader(say.words("After token {}", token))
        panels.table(text.next_tokens(trace, tokenizer, token), "next_tokens")
    with right:
        st.subheader("Surprise")
        panels.figure(made["Surprise"].view, "surprise")
    export_panel.hand_out(made)
