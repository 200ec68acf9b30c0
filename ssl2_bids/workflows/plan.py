"""What is to be done for one session: decided before anything runs, carried to every node."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl2_bids import __version__
from ssl2_bids.bids.inputs import Session
from ssl2_bids.bids.outputs import UnitNames, join_entities, sidecar_path, table_path
from ssl2_bids.bids.provenance import configuration_hash, fingerprint
from ssl2_bids.networks.weights import Card
from ssl2_bids.settings import ATLAS_SPACE, ParticipantSettings

VIEWED = (
    'FLAIR',
    'UNIT1',
    'T1w',
    'T2w',
    'T2starw',
)  # beside the reference, the first that is there


@dataclass(frozen=True)
class Plan:
    """One unit of work.

    Attributes
    ----------
    threshold, min_lesion_volume (mm^3), overlap : what will be used, the model's own or asked.
    configuration : hash of all that decides the result.
    """

    session: Session
    names: UnitNames
    bids_dir: Path
    card: Card
    threshold: float
    min_lesion_volume: float
    overlap: float
    skull_strip: str
    seed: int
    tta: bool
    uncertainty: bool
    low_memory: bool
    output_spaces: tuple[str, ...]
    field_strength: float | None = None
    configuration: str = field(default='')


def make_plan(session: Session, card: Card, settings: ParticipantSettings) -> Plan:
    """Settle names and settings of one session."""
    names = UnitNames(
        settings.output_dir, session.subject, session.session, session.reference, card.label
    )
    threshold = settings.threshold if settings.threshold is not None else card.threshold
    overlap = settings.overlap if settings.overlap is not None else card.overlap
    sources = [path for scan in session.scans.values() for path in scan.sources]
    decisive: dict[str, Any] = {
        'version': __version__,
        'model': card.sha256,
        'threshold': threshold,
        'min_lesion_volume': settings.min_lesion_volume,
        'overlap': overlap,
        'skull_strip': settings.skull_strip,
        'seed': settings.random_seed,
        'tta': settings.tta,
        'uncertainty': settings.uncertainty,
        'low_mem': settings.low_mem,
        'output_spaces': settings.output_spaces,
        'reference': session.reference,
    }
    if session.unusable:
        decisive['unusable'] = fingerprint(session.unusable, settings.bids_dir)
    if not session.problem:
        decisive['sources'] = fingerprint(sources, settings.bids_dir)
    return Plan(
        session=session,
        names=names,
        bids_dir=settings.bids_dir,
        card=card,
        threshold=threshold,
        min_lesion_volume=settings.min_lesion_volume,
        overlap=overlap,
        skull_strip=settings.skull_strip,
        seed=settings.random_seed,
        tta=settings.tta,
        uncertainty=settings.uncertainty,
        low_memory=settings.low_mem,
        output_spaces=settings.output_spaces,
        field_strength=settings.field_strength,
        configuration=configuration_hash(decisive),
    )


def planned_outputs(plan: Plan) -> list[Path]:
    """The images and tables that a unit will write, in the order of writing."""
    names, session = plan.names, plan.session
    found = [names.path('anat.brain_mask')]
    for contrast in session.scans:
        found += [preproc_path(plan, contrast), *_extra_images(plan, contrast)]
        if contrast != session.reference:
            found.append(names.path('anat.transform', source=contrast, target=session.reference))
    found += [
        names.path('anat.transform', source=session.reference, target=ATLAS_SPACE),
        names.path('anat.transform', source=ATLAS_SPACE, target=session.reference),
        names.path('anat.probability'),
        names.path('anat.instances'),
        table_path(names.path('anat.instances')),
        names.path('anat.volumes'),
    ]
    if plan.uncertainty:
        found.append(names.path('anat.uncertainty'))
    found += [names.path('anat.mask', space=s) for s in extra_spaces(plan)]
    return [*found, names.path('anat.mask')]


def preproc_path(plan: Plan, contrast: str) -> Path:
    """Where the preprocessed image of a contrast goes."""
    scan = plan.session.scans[contrast]
    several = len(scan.paths) > 1
    kind = 'anat.preproc_reference' if contrast == plan.session.reference else 'anat.preproc'
    if several and contrast != plan.session.reference:
        return plan.names.path('anat.meanecho')
    entities = '' if several else join_entities(scan.entities)
    return plan.names.path(kind, contrast=contrast, entities=entities)


def _extra_images(plan: Plan, contrast: str) -> list[Path]:
    scan = plan.session.scans[contrast]
    if contrast == 'UNIT1' and scan.inversions:
        return [plan.names.path('anat.denoised', entities=join_entities(scan.entities))]
    return []


def extra_spaces(plan: Plan) -> list[str]:
    """Grids other than the reference's on which the mask is asked for and possible."""
    wanted = [s.partition(':')[0] for s in plan.output_spaces]
    known = [s for s in dict.fromkeys(wanted) if s not in ('anat', plan.session.reference)]
    return [s for s in known if s == ATLAS_SPACE or s in plan.session.scans]


@dataclass(frozen=True)
class Figure:
    """A figure of the report: what it shows (``kind``), of which contrast, and where it goes."""

    kind: str
    contrast: str
    path: Path


def planned_figures(plan: Plan) -> list[Figure]:
    """The figures of a session's report, in the order of the page."""
    reference, session = plan.session.reference, plan.session
    shown = [c for c in dict.fromkeys((reference, 'FLAIR')) if c in session.scans]
    others = [c for c in session.scans if c != reference]
    kinds = [('lesions', c) for c in shown] + [('mosaic', shown[-1]), ('brain', reference)]
    kinds += [('registration', c) for c in others]
    return [
        Figure(kind, c, plan.names.path('report.figure', step=plan.names.desc + kind, suffix=c))
        for kind, c in kinds
    ]


def viewer_contrasts(plan: Plan) -> list[str]:
    """The two contrasts (or the only one) of the interactive viewer: the reference and FLAIR."""
    wanted = dict.fromkeys((plan.session.reference, *VIEWED))
    return [c for c in wanted if c in plan.session.scans][:2]


def all_paths(plan: Plan) -> list[Path]:
    """Everything that a session writes: images, tables, sidecars, figures, viewer, summary."""
    outputs = planned_outputs(plan)
    with_sidecar = [p for p in outputs if p.suffix != '.txt']
    paths = [*outputs, *(sidecar_path(p) for p in with_sidecar)]
    paths += [figure.path for figure in planned_figures(plan)]
    paths += [plan.names.path('report.viewer'), plan.names.path('report.summary')]
    return list(dict.fromkeys(paths))
