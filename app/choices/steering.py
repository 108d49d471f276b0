"""The part of the selection for a direction that is added while the model writes."""

from dataclasses import dataclass

from app.choices.fields import choice


@dataclass(frozen=True, kw_only=True)
class SteeringChoice:
    """Nothing is steered unless both words are named."""

    toward: str = choice("", link="steer_toward")
    away: str = choice("", link="steer_away")
    site: str = choice("RESID_POST", ("RESID_POST", "MEM_OUT"), link="steer_site")
    layer: int = choice(-1, link="steer_block")
    """Block; -1, the last that has the site."""
    strength: int = choice(100, range(-1_000, 1_001), link="steer_strength")
    """In hundredths of the site's typical norm."""
    seed: int = choice(0, range(2**31), link="steer_seed")
    """Of the random direction."""
