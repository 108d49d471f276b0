"""What `lm2 serve` serves: the page, and beside it the bands of maps that a browser asks for while it is panned."""

import streamlit as st

from app.server.routes import ROUTES

app = st.App("main.py", routes=ROUTES)
