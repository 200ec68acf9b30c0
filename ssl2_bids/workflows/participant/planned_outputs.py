"""What a session will write, by its plan: images, tables, figures, pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssl2_bids.bids.outputs import join_entities, sidecar_path, table_path
from ssl2_bids.bids.scan import Scan
from ssl2_bids.contrasts import SUFFIXES
from ssl2_bids.settings import ATLAS_SPACE
from ssl2_bids.workflows.participant.distortion import distorted_contrasts
from ssl2_bids.workflows.participant.plan import Plan
from ssl2_bids.workflows.participant.templates import template_outputs

# beside the reference, the first that is there
VIEWED = tuple(sorted(SUFFIXES, key=lambda suffix: suffix != 'FLAIR'))


def planned_outputs(plan: Plan) -> list[Path]:
    """The images and tables that a unit will write, in the order of writing."""
    names, session = plan.names, plan.session
    found = [names.path('anat.brain_mask')]
    for contrast in session.scans:
        found += [preproc_path(plan, contrast), *_extra_images(plan, contrast)]
        found.append(quality_path(plan, contrast))
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
    if plan.settings.uncertainty:
        found.append(names.path('anat.uncertainty'))
    found += [names.path('anat.mask', space=s) for s in extra_spaces(plan)]
    found += template_outputs(names, plan.templates)
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


def quality_path(plan: Plan, contrast: str) -> Path:
    """Where the metrics of the image of a contrast go."""
    scan = plan.session.scans[contrast]
    entities = '' if len(scan.paths) > 1 else join_entities(scan.entities)
    return plan.names.path('anat.quality', contrast=contrast, entities=entities)


def _extra_images(plan: Plan, contrast: str) -> list[Path]:
    scan = plan.session.scans[contrast]
    found = list(map_paths(plan, contrast).values())
    if is_denoised(scan):
        found.insert(0, plan.names.path('anat.denoised', entities=join_entities(scan.entities)))
    return found


def is_denoised(scan: Scan) -> bool:
    """Whether the background noise of a UNIT1 is removed with its inversion images."""
    return scan.contrast == 'UNIT1' and scan.has_inversions


def map_paths(plan: Plan, contrast: str) -> dict[str, Path]:
    """Where the maps of a scan go, by suffix."""
    scan = plan.session.scans[contrast]
    entities = '' if len(scan.paths) > 1 else join_entities(scan.entities)
    return {
        suffix: plan.names.path('anat.map', entities=entities, desc=desc, suffix=suffix)
        for suffix, desc in scan.maps.items()
    }


def extra_spaces(plan: Plan) -> list[str]:
    """Grids other than the reference's on which the mask is asked for and possible."""
    wanted = [s.partition(':')[0] for s in plan.settings.output_spaces]
    known = [s for s in dict.fromkeys(wanted) if s not in ('anat', plan.session.reference)]
    return [s for s in known if s == ATLAS_SPACE or s in plan.session.scans]


@dataclass(frozen=True)
class Figure:
    """A figure of the report: what it shows (``kind``), of which contrast, and where it goes.

    That of kind ``template`` has the label of the template for a contrast.
    """

    kind: str
    contrast: str
    path: Path


def planned_figures(plan: Plan) -> list[Figure]:
    """The figures of a session's report, in the order of the page."""
    reference, session = plan.session.reference, plan.session
    shown = [c for c in dict.fromkeys((reference, 'FLAIR')) if c in session.scans]
    others = [c for c in session.scans if c != reference]
    kinds = [('lesions', c) for c in shown] + [('mosaic', shown[-1])]
    kinds += [('brain', c) for c in (reference, *others)]
    kinds += [('registration', c) for c in others]
    kinds += [('distortion', c) for c in distorted_contrasts(plan)]
    found = [(kind, c, kind, c) for kind, c in kinds]
    found += [
        ('template', label, f'template{label.replace("+", "cohort")}', reference)
        for label in dict.fromkeys(t.space.label for t in plan.templates)
    ]
    return [
        Figure(kind, c, plan.names.path('report.figure', step=plan.names.desc + step, suffix=s))
        for kind, c, step, s in found
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
