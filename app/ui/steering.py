"""Steering on the page: the words and the place of a direction, and the texts written with it and without it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from app.charts import SteeringChart, UpdateChart
from app.ui import panels, say, session, state, widgets
from app.ui.session import Opened
from app.views.study.steering import DIRECTION
from lm2.model.sites import Site

if TYPE_CHECKING:
    from app.charts.steering import Steered
    from lm2.model.config import LM2Config

TITLE = "Steering"
_NOTE = (
    "The direction is the difference of the two words' rows in the output matrix, times the final norm's weights. In"
    " the last block it moves this difference directly; what is added earlier passes through the blocks after it. Once"
    " the texts differ, each line is about its own text."
)


def render(opened: Opened, continued: UpdateChart) -> SteeringChart | None:
    """Choose a direction and show what it does to the text of `continued`; None where nothing is steered."""
    say.subheader("{}", TITLE)
    try:
        chart = _chosen(opened, continued)
        steered = None if chart is None else session.result_of(chart, opened.checkpoint)
    except ValueError as error:
        say.info("{}.", error)
        return None
    if chart is None or steered is None:
        return None
    _texts(opened, chart, steered)
    return chart


def _chosen(opened: Opened, continued: UpdateChart) -> SteeringChart | None:
    from probes.causal.steering import SITES, Steering

    left, middle, right = st.columns(3)
    help = "One token of the model. The direction leads to this word from the other one."
    toward = widgets.text_input("Towards the word", "steering.toward", help=help, at=left)
    away = widgets.text_input("Away from the word", "steering.away", help=help, at=middle)
    help = (
        "Norm of what is added, in percent of the place's typical norm: the median over the context's tokens. Below 0,"
        " it leads the other way."
    )
    strength = widgets.number("Strength, % of the typical norm", "steering.strength", help=help, at=right)
    if not (toward and away):
        st.caption(
            "Name two words: the direction from one to the other is added at every token from which the model writes"
            " on, beside a random direction of the same norm."
        )
        return None
    config = opened.checkpoint.config
    left, middle, right = st.columns(3)
    places = [site for site in SITES if site.layers(config)]
    shown = {site.name: SITES[site] for site in places}
    site = Site[widgets.select("Added to", "steering.site", list(shown), show=shown.__getitem__, at=left)]
    layer = _block(config, site, middle)
    seed = widgets.number("Seed of the random direction", "steering.seed", help="It is the control.", at=right)
    return SteeringChart(
        spec=continued.spec,
        item=continued.item,
        steering=Steering(toward=toward, away=away, site=site, layer=layer, strength=strength / 100, seed=seed),
        tokens=continued.tokens,
    )


def _block(config: LM2Config, site: Site, at: st.delta_generator.DeltaGenerator) -> int:
    layers = list(site.layers(config))
    if state.value("steering.layer") not in layers:
        state.settle("steering.layer", layers[-1])
    return widgets.select("Block to steer", "steering.layer", layers, at=at)


def _texts(opened: Opened, chart: SteeringChart, steered: Steered) -> None:
    from probes.causal.steering import SITES

    tokenizer, steering = opened.checkpoint.tokenizer, chart.steering
    for column, (name, walk) in zip(st.columns(3), steered.walks.items(), strict=True):
        with column:
            say.caption("Written {}", name)
            st.code(tokenizer.decode_after(walk.prompt.ids, walk.ids), language=None, wrap_lines=True)
    say.caption(
        "Added in block {} to {}: a direction of norm {}, which is {} times the typical norm there, {}. Before"
        " its last token the context is read as it is.",
        steering.layer,
        SITES[steering.site],
        f"{abs(steering.strength) * steered.norm:.3g}",
        f"{abs(steering.strength):g}",
        f"{steered.norm:.3g}",
    )
    made = chart.computed(opened.checkpoint, steered)
    panels.panel(made.view, "steering", "Logit difference, token by token", _NOTE)
    spec = replace(steered.walks[DIRECTION].spec, captures=())
    label = "Interventions for lm2 generate"
    widgets.download(label, json.dumps(spec.to_json(), indent=1), "steered.json", "application/json")
