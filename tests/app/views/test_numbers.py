"""Laws of the digests by which a kept table is known again."""

from app.views.kinds import Table
from app.views.numbers import digest, sketch
from lm2.intervals import Bounded
from probes.findings import Column, columns_of

TABLE = Table(
    columns=columns_of(
        ("condition", Column("right", "%"), Column("change", "nats"), "p"),
        [
            ("on", Bounded(90.0, 80.0, 95.0), Bounded(0.5, 0.4, 0.6), 0.01),
            ("off", Bounded(10.0, 5.0, 20.0), Bounded(0.1, 0.05, 0.15), 0.5),
        ],
    )
)


def test_a_table_has_the_digests_that_earlier_versions_kept_of_it() -> None:
    """In these, ends of intervals were columns of their own: "low", "high", then "low " and "high "."""
    assert digest(TABLE) == "0f37d32160f07f9b7607ab7b71aeec0fe08869d21775bfd9568882cf7ecee261"
    assert sketch(TABLE)["rest"] == "0528da260b0541dd075194b5f09579c3a2865b6e4d22947a66727b49170269d3"
