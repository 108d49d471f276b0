"""Charts of two texts, and of the donor's bank in the recipient's run."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from app.charts.chart import Chart, Computing, added_later, check_there
from app.views.kinds import Provenance
from app.views.run import memory
from app.views.study import patching
from lm2.shown import excerpt

if TYPE_CHECKING:
    from app.views.numbers import View
    from lm2.runs.spec import RunSpec
    from lm2.weights.checkpoint import Checkpoint
    from probes.causal.patching import PatchSpec


class OfPatching(Enum):
    """Views of a recipient and a donor."""

    READING = "slots read by both"
    ALONE = "each slot alone"


@dataclass(frozen=True, kw_only=True)
class PatchingChart(Chart):
    """The traces of recipient and donor, or the effect of each slot alone (`SlotsAlone`)."""

    _spec_class = "probes.causal.patching:PatchSpec"
    if TYPE_CHECKING:
        spec: PatchSpec
    shown: OfPatching
    item: str = added_later("")
    """The story, question or file that the recipient's text is from, in words."""
    donor_item: str = added_later("")
    """The same for the donor's."""

    @property
    def provenance(self) -> Provenance:
        recipient, donor = (
            ", ".join(filter(None, (item, excerpt(text))))
            for item, text in ((self.item, self.spec.text), (self.donor_item, self.spec.donor))
        )
        changes = (
            ("each slot of the donor's bank put into the recipient's, alone",) if self.shown is OfPatching.ALONE else ()
        )
        return Provenance(
            model=self.spec.checkpoint, item=f"{recipient} (recipient) and {donor} (donor)", changes=changes
        )

    @property
    def result_key(self) -> tuple[Hashable, ...]:
        return type(self), self.spec.digest, self.shown

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        from lm2.model.sites import Site
        from lm2.runs.capture import Capture

        captures = (Capture(Site.READ_PATTERN),)
        return tuple(replace(self.spec.run(text), captures=captures) for text in (self.spec.text, self.spec.donor))

    def result(self, checkpoint: Checkpoint, computing: Computing) -> Any:
        from probes.causal.patching import slots_alone

        if self.shown is OfPatching.READING:
            return tuple(computing.run(checkpoint, spec) for spec in self.runs)
        return computing.part(checkpoint, ("slots alone", self.spec.digest), lambda: slots_alone(checkpoint, self.spec))

    def view(self, checkpoint: Checkpoint, result: Any) -> View:
        if self.shown is OfPatching.ALONE:
            return patching.slots(result.changes)
        runs = list(zip(("recipient", "donor"), result, (self.spec.row, self.spec.donor_row)))
        for _, trace, row in runs:
            check_there("token", row, range(len(trace.tokens)))
        return patching.reading(runs, memory.layers(result[0], checkpoint.config))
