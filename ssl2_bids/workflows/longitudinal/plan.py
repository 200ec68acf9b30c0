"""What is to be done for the sessions of one participant, and what will be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from ssl2_bids import __version__
from ssl2_bids.bids.outputs import (
    UnitNames,
    read_visits_summary,
    sidecar_if_any,
    table_path,
)
from ssl2_bids.bids.provenance import configuration_hash
from ssl2_bids.errors import DataError
from ssl2_bids.steps import joint_lesions
from ssl2_bids.steps.joint_decision import Hysteresis
from ssl2_bids.steps.lesion_states import NoiseBound
from ssl2_bids.workflows.longitudinal.visits import Visit, in_order
from ssl2_bids.workflows.participant.plan import Plan

WITHIN = 'within'


@dataclass(frozen=True)
class LongitudinalPlan:
    """The visits of one participant that are compared.

    Attributes
    ----------
    visits : in order of time.
    left_out : sessions without a result, with the reason.
    remarks : on the order of the visits.
    configuration : hash of all that decides the result.
    space : hash of what decides the space between the visits: the transforms and the grid, which
        all models share. The intensities of the images in it are matched outside the lesions of
        the model that was compared last.
    """

    subject: str
    visits: tuple[Visit, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    configuration: str = ''
    space: str = ''

    @property
    def names(self) -> UnitNames:
        """Of the participant as a whole."""
        first = self.visits[0].plan.names
        return UnitNames(first.root, self.subject, None, desc=first.desc)

    def path(self, kind: str, visit: Visit | None = None, **entities: str) -> Path:
        """The path of an output of this kind, of a visit or of all."""
        session = visit.label if visit else None
        return self.names.path(f'longitudinal.{kind}', session=session, **entities)

    @property
    def table(self) -> Path:
        """The table of lesions; its JSON is written last, as the sign that all is there."""
        return self.path('lesions')

    @property
    def summary(self) -> Path:
        """What the page is made from."""
        return self.path('summary')

    def change(self, before: Visit, after: Visit) -> Path:
        """The change map of two visits."""
        return self.path('change', pair=f'ses{before.label}ses{after.label}')


def make_plan(subject: str, plans: Sequence[Plan], left_out: dict[str, str]) -> LongitudinalPlan:
    """The plan of a participant from the plans of the finished sessions."""
    visits, remarks = in_order(list(plans))
    parts = {
        'version': __version__,
        'sessions': [[v.label, v.time, v.plan.configuration] for v in visits],
        'seed': plans[0].settings.random_seed if plans else 0,
        'rule': joint_lesions.RULE,
        'hysteresis': asdict(Hysteresis()),
        'noise': asdict(NoiseBound()),
    }
    of_space = [parts['seed'], *([v.label, v.plan.preprocessing] for v in visits)]
    return LongitudinalPlan(
        subject,
        tuple(visits),
        left_out,
        tuple(remarks),
        configuration_hash(parts),
        configuration_hash({'space': of_space}),
    )


def planned_outputs(plan: LongitudinalPlan) -> list[Path]:
    """The images and tables that will be written, in the order of writing."""
    found: list[Path] = [plan.path('brain_mask')]
    for visit in plan.visits:
        reference = visit.reference
        for source, target in ((reference, WITHIN), (WITHIN, reference)):
            found.append(plan.path('transform', visit, source=source, target=target))
        found += [plan.path('preproc', visit, contrast=c) for c in visit.contrasts]
        instances = plan.path('instances', visit)
        found += [plan.path('probability', visit), instances, table_path(instances)]
        found.append(plan.path('mask', visit))
    for before, after in pairwise(plan.visits):
        change = plan.change(before, after)
        found += [change, table_path(change)]
    return [*found, plan.table]


def is_finished(plan: LongitudinalPlan) -> bool:
    """Whether the result of just these sessions and settings stands, with all its files."""
    if stored(plan).get('ConfigurationHash') != plan.configuration:
        return False
    if sidecar_if_any(plan.path('brain_mask')).get('SpaceHash', plan.space) != plan.space:
        return False  # another model has compared other sessions in it
    try:
        read_visits_summary(plan.summary)
    except DataError:
        return False
    return all(path.is_file() and path.stat().st_size for path in planned_outputs(plan))


def stored(plan: LongitudinalPlan) -> dict[str, Any]:
    """The JSON beside the table of lesions; empty without one."""
    return sidecar_if_any(plan.table)
