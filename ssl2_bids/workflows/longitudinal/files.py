"""The results of several sessions together, as files: images, tables, sidecars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids.bids.columns import CHANGE_COLUMNS, LONGITUDINAL_COLUMNS, WITHIN_LESION_COLUMNS
from ssl2_bids.bids.outputs import sidecar_path, table_path, write_table
from ssl2_bids.bids.provenance import bids_uri
from ssl2_bids.bids.sidecars import image_sidecar, segmentation_sidecar
from ssl2_bids.files import write_json, write_text
from ssl2_bids.itk import to_itk
from ssl2_bids.steps import regions
from ssl2_bids.steps.joint_decision import Hysteresis
from ssl2_bids.steps.joint_lesions import JointLesions
from ssl2_bids.steps.lesion_states import STATES, NoiseBound, TrackedLesion, change_map
from ssl2_bids.steps.lesions import describe
from ssl2_bids.volume import Volume, write
from ssl2_bids.workflows.longitudinal.plan import WITHIN, LongitudinalPlan
from ssl2_bids.workflows.longitudinal.visits import Visit
from ssl2_bids.workflows.longitudinal.within import WithinSpace
from ssl2_bids.workflows.participant import sloppy
from ssl2_bids.workflows.participant.derivatives import template_transform
from ssl2_bids.workflows.participant.plan import input_uri
from ssl2_bids.workflows.participant.planned_outputs import preproc_path
from ssl2_bids.workflows.segmentation_files import lesion_mask, lesion_rows, model_keys

SPACE = (
    'Space between the sessions of this participant: the middle of the rigid transforms between '
    'their references.'
)


def write_results(plan: LongitudinalPlan, space: WithinSpace, found: JointLesions) -> list[str]:
    """Write all but the JSON of the table of lesions, the sign that all is there.

    Returns
    -------
    The region of each lesion.
    """
    brain = space.grid.with_data(space.brain)
    path = plan.path('brain_mask')
    write(brain, path, dtype=np.uint8)
    sources = [_uri(plan, visit.plan.names.path('anat.brain_mask')) for visit in plan.visits]
    more = {'SpaceHash': plan.space}
    _write_mask_sidecar(plan, path, 'Brain', f'Brain at all sessions. {SPACE}', sources, more)
    everywhere = space.grid.with_data(found.instances.max(axis=0))
    names = _regions(plan, space, everywhere)
    for number, visit in enumerate(plan.visits):
        _write_transforms(plan, visit, space.middle.poses[number])
        _write_images(plan, visit, space, number)
        _write_lesions(plan, visit, space, found, number, names)
    for number, (before, after) in enumerate(pairwise(plan.visits)):
        _write_change(plan, before, after, space, found, number)
    return names


def _write_transforms(plan: LongitudinalPlan, visit: Visit, pose: np.ndarray) -> None:
    # an ITK transform pulls: the one from A to B maps points of B to points of A
    forth = plan.path('transform', visit, source=visit.reference, target=WITHIN)
    back = plan.path('transform', visit, source=WITHIN, target=visit.reference)
    write_text(forth, to_itk(pose))
    write_text(back, to_itk(np.linalg.inv(pose)))


def _write_images(plan: LongitudinalPlan, visit: Visit, space: WithinSpace, number: int) -> None:
    for contrast, data in space.images[number].items():
        path = plan.path('preproc', visit, contrast=contrast)
        write(space.grid.with_data(data), path)
        scan = visit.plan.session.scans[contrast]
        of_scan = contrast != visit.reference
        sources = [input_uri(visit.plan, p) for p in scan.sources]
        if not of_scan:
            sources = [_uri(plan, preproc_path(visit.plan, contrast))]
        sidecar = image_sidecar(
            scan.metadata,
            description=f'{contrast} image of ses-{visit.label}, resampled once from the voxels '
            'of its scan; intensities matched between the sessions outside lesions.',
            sources=sources,
            spatial_reference=_space(plan),
            skull_stripped=False,
        )
        sidecar.pop('SkullStripped')
        _write_json(plan, sidecar_path(path), sidecar)


def _write_lesions(
    plan: LongitudinalPlan,
    visit: Visit,
    space: WithinSpace,
    found: JointLesions,
    number: int,
    region_names: Sequence[str],
) -> None:
    own = visit.plan
    probability = space.grid.with_data(space.probabilities[number])
    instances = space.grid.with_data(found.instances[number])
    source = _uri(plan, own.names.path('anat.probability'))
    keys = model_keys(
        own.card,
        threshold=own.settings.threshold,
        minimum_volume=own.settings.min_lesion_volume,
        channels=visit.contrasts,
        device='cpu',
    )
    keys.pop('Device')
    path = plan.path('probability', visit)
    write(probability, path)
    text = f'Lesion probability of ses-{visit.label} by itself, resampled.'
    _write_mask_sidecar(plan, path, 'Lesion', text, [source], keys)
    path = plan.path('instances', visit)
    write(instances, path, dtype=np.uint16)
    table = [
        asdict(one) | {'region': region_names[one.index - 1]}
        for one in describe(probability, instances.data)
    ]
    write_table(table_path(path), lesion_rows(table), WITHIN_LESION_COLUMNS)
    text = 'Lesions, with the numbers that they have at all sessions.'
    sources = [_uri(plan, plan.path('probability', v)) for v in plan.visits]
    _write_mask_sidecar(plan, path, 'Lesion', text, sources, keys | WITHIN_LESION_COLUMNS)
    path = plan.path('mask', visit)
    write(lesion_mask(instances), path, dtype=np.uint8)
    text = f'Lesion mask of ses-{visit.label}, decided with all sessions together.'
    _write_mask_sidecar(plan, path, 'Lesion', text, sources, keys)


def _write_change(
    plan: LongitudinalPlan,
    before: Visit,
    after: Visit,
    space: WithinSpace,
    found: JointLesions,
    gap: int,
) -> None:
    path = plan.change(before, after)
    marked = change_map(found.instances[gap], found.instances[gap + 1], found.lesions, gap)
    write(space.grid.with_data(marked), path, dtype=np.uint8)
    rows = [
        {
            'index': place,
            'name': state,
            'lesion_count': len(those),
            'volume_before_mm3': round(sum(one.volumes[gap] for one in those), 2),
            'volume_after_mm3': round(sum(one.volumes[gap + 1] for one in those), 2),
        }
        for place, state in enumerate(STATES, start=1)
        for those in [in_state(found.lesions, gap, state)]
    ]
    write_table(table_path(path), rows, CHANGE_COLUMNS)
    text = f'Lesions of ses-{before.label} and ses-{after.label} by their state.'
    sources = [_uri(plan, plan.path('instances', visit)) for visit in (before, after)]
    _write_mask_sidecar(plan, path, 'Lesion', text, sources, CHANGE_COLUMNS)


def in_state(lesions: Iterable[TrackedLesion], gap: int, state: str) -> list[TrackedLesion]:
    """The lesions that have a state between a visit and the next."""
    return [one for one in lesions if one.states[gap] == state]


def write_lesion_table(
    plan: LongitudinalPlan,
    found: JointLesions,
    region_names: Sequence[str],
    noise: NoiseBound,
    doubts: Sequence[str] = (),
) -> None:
    """Write the table of lesions over time, and its JSON last."""
    keys = {
        'Description': 'Lesions of several sessions, followed over time.',
        'Sources': [_uri(plan, plan.path('instances', visit)) for visit in plan.visits],
        'SpatialReference': _space(plan),
        'Hysteresis': _camel(asdict(Hysteresis())),
        'NoiseBound': _camel(asdict(noise))
        | {
            'Description': 'mm^3: Base * max(1, Voxel) + Factor * V ** Exponent; V: mean volume '
            'of the lesion, Voxel: volume of a voxel of the coarser reference. Chosen so that '
            'simulated rescans of an unchanged brain stay below it (benchmarks/longitudinal.py)'
        },
        **({'Warnings': list(doubts)} if doubts else {}),
        'ConfigurationHash': plan.configuration,
        'SpaceHash': plan.space,
        **_mark(plan),
    }
    rows = long_rows(plan, found, region_names)
    write_table(plan.table, rows, LONGITUDINAL_COLUMNS, keys=keys)


def long_rows(
    plan: LongitudinalPlan, found: JointLesions, region_names: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each lesion and session."""
    rows = []
    for lesion in found.lesions:
        for number, visit in enumerate(plan.visits):
            row: dict[str, Any] = {
                'index': lesion.index,
                'session_id': f'ses-{visit.label}',
                'acq_time': visit.time,
                'volume_mm3': round(lesion.volumes[number], 2),
                'parts': lesion.parts[number],
            }
            if number:
                row['state'] = lesion.states[number - 1]
                row['change_mm3'] = round(lesion.changes[number - 1], 2)
                row['noise_bound_mm3'] = round(lesion.bounds[number - 1], 2)
            row |= {a: round(v, 1) for a, v in zip('xyz', lesion.centre, strict=True)}
            rows.append(row | {'region': region_names[lesion.index - 1]})
    return rows


def _regions(plan: LongitudinalPlan, space: WithinSpace, everywhere: Volume) -> list[str]:
    """The region of each lesion, by the first visit's place in the template."""
    first = plan.visits[0].plan.names
    matrix = np.linalg.inv(space.middle.poses[0]) @ template_transform(first)
    return regions.find_regions(
        everywhere,
        matrix,
        image=space.grid.with_data(space.images[0][first.reference]),
        brain_mask=space.grid.with_data(space.brain),
    )


def _space(plan: LongitudinalPlan) -> str:
    return _uri(plan, plan.path('brain_mask'))


def _uri(plan: LongitudinalPlan, path: Path) -> str:
    return bids_uri(path, plan.names.root)


def _write_mask_sidecar(
    plan: LongitudinalPlan,
    path: Path,
    kind: str,
    description: str,
    sources: list[str],
    more: dict[str, Any] | None = None,
) -> None:
    sidecar = segmentation_sidecar(
        kind,
        description=description,
        sources=sources,
        spatial_reference=_space(plan),
        model=more,
    )
    _write_json(plan, sidecar_path(path), sidecar)


def _write_json(plan: LongitudinalPlan, path: Path, content: dict[str, Any]) -> None:
    write_json(path, content | _mark(plan))


def _mark(plan: LongitudinalPlan) -> dict[str, bool]:
    return sloppy.mark(plan.visits[0].plan.settings)


def _camel(values: dict[str, float]) -> dict[str, float]:
    return {name.capitalize(): value for name, value in values.items()}
