"""What the page of a participant shows of the changes between its sessions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ssl2_bids.bids.outputs import output_name
from ssl2_bids.reports import viewer
from ssl2_bids.reports.figures.changes import draw_change, draw_visits
from ssl2_bids.steps import joint_lesions, midpoint, visit_matching
from ssl2_bids.steps.joint_lesions import JointLesions
from ssl2_bids.steps.lesion_states import STATES, TrackedLesion
from ssl2_bids.volume import Volume
from ssl2_bids.workflows.longitudinal.files import in_state
from ssl2_bids.workflows.longitudinal.plan import LongitudinalPlan, planned_outputs
from ssl2_bids.workflows.longitudinal.visits import Visit, on_one_day, years_between
from ssl2_bids.workflows.longitudinal.within import WithinSpace

PICTURES = 8  # of each pair of sessions: those that changed most
SHOWN = ('FLAIR', 'T2w', 'PDw', 'UNIT1', 'T1w')  # the first that both sessions have


def base_summary(plan: LongitudinalPlan, status: str) -> dict[str, Any]:
    """The facts of any participant: done, doubtful or failed."""
    return {
        'subject': plan.subject,
        'model': plan.names.desc,
        'status': status,
        'configurations': {v.label: v.plan.configuration for v in plan.visits},
        'visits': [],
        'pairs': [],
        'lesions': [],
        'misfits': [],
        'registration': {},
        'warnings': [*plan.remarks, *(f'ses-{s}: {why}' for s, why in plan.left_out.items())],
        'methods': [],
        'figures': [],
        'viewer': None,
        'outputs': [],
        'error': None,
    }


def finished_summary(
    plan: LongitudinalPlan, space: WithinSpace, found: JointLesions, region_names: list[str]
) -> dict[str, Any]:
    """The content of the page's section, with its figures drawn.

    Where visits do not fit, it has the images of these and no changes.
    """
    summary = base_summary(plan, 'doubtful' if space.misfits else 'done')
    summary |= {
        'registration': space.facts,
        'warnings': [*summary['warnings'], *space.warnings],
        'methods': [
            midpoint.methods(len(plan.visits)),
            visit_matching.methods(),
            joint_lesions.methods([v.plan.settings.threshold or 0.5 for v in plan.visits]),
        ],
        'viewer': _write_viewer(plan, space, found),
        'outputs': [p.relative_to(plan.names.root).as_posix() for p in planned_outputs(plan)],
    }
    if space.misfits:
        return summary | {
            'misfits': [_misfit(plan, one) for one in space.misfits],
            'figures': [_draw_misfit(plan, space, one) for one in space.misfits],
        }
    figures, places = _draw(plan, space, found)
    return summary | {
        'visits': [
            {
                'session': visit.label,
                'time': visit.time,
                'years': years_between(plan.visits[0], visit),
                'lesion_count': sum(one.volumes[n] > 0 for one in found.lesions),
                'volume_mm3': round(sum(one.volumes[n] for one in found.lesions), 2),
            }
            for n, visit in enumerate(plan.visits)
        ],
        'pairs': [
            _pair(found, gap, before, after)
            for gap, (before, after) in enumerate(pairwise(plan.visits))
        ],
        'lesions': [
            _row(one, gap, plan, region_names) | {'figure': places.get((one.index, gap))}
            for gap in range(len(plan.visits) - 1)
            for one in changed(found, gap)
        ],
        'figures': figures,
    }


def _misfit(plan: LongitudinalPlan, pair: tuple[int, int]) -> str:
    one, other = (f'ses-{plan.visits[n].label}' for n in pair)
    return (
        f'{one} and {other} do not fit after the registration: they may be of different people, '
        'or an image is damaged, or a brain mask is wrong'
    )


def changed(found: JointLesions, gap: int) -> list[TrackedLesion]:
    """The lesions that changed between a visit and the next, the largest change first."""
    moving = [one for one in found.lesions if one.states[gap] not in (None, 'stable')]
    return sorted(moving, key=lambda one: (-abs(one.changes[gap]), one.index))


def _pair(found: JointLesions, gap: int, before: Visit, after: Visit) -> dict[str, Any]:
    counts = {state: len(in_state(found.lesions, gap, state)) for state in STATES}
    years = years_between(before, after)
    rated = years and not on_one_day(before, after)
    return {
        'before': before.label,
        'after': after.label,
        'years': None if years is None else round(years, 3),
        **counts,
        'new_per_year': round(counts['new'] / years, 2) if years and rated else None,
        'volume_change_mm3': round(sum(one.changes[gap] for one in found.lesions), 2),
        'new_volume_mm3': round(
            sum(one.volumes[gap + 1] for one in in_state(found.lesions, gap, 'new')), 2
        ),
    }


def _row(
    lesion: TrackedLesion, gap: int, plan: LongitudinalPlan, region_names: list[str]
) -> dict[str, Any]:
    return {
        'index': lesion.index,
        'before': plan.visits[gap].label,
        'after': plan.visits[gap + 1].label,
        'state': lesion.states[gap],
        'volume_before_mm3': round(lesion.volumes[gap], 2),
        'volume_after_mm3': round(lesion.volumes[gap + 1], 2),
        'change_mm3': round(lesion.changes[gap], 2),
        'noise_bound_mm3': round(lesion.bounds[gap], 2),
        'parts': list(lesion.parts[gap : gap + 2]),
        **{axis: round(v, 1) for axis, v in zip('xyz', lesion.centre, strict=True)},
        'region': region_names[lesion.index - 1],
    }


def _draw(
    plan: LongitudinalPlan, space: WithinSpace, found: JointLesions
) -> tuple[list[dict[str, Any]], dict[tuple[int, int], int]]:
    """The figures of changed lesions, and the place of each in the list, from 1."""
    figures: list[dict[str, Any]] = []
    places: dict[tuple[int, int], int] = {}
    for gap, (before, after) in enumerate(pairwise(plan.visits)):
        for lesion in changed(found, gap)[:PICTURES]:
            state = lesion.states[gap] or ''
            title = (
                f'Lesion {lesion.index}, {state}: {lesion.volumes[gap]:.0f} mm³ at '
                f'ses-{before.label}, {lesion.volumes[gap + 1]:.0f} mm³ at ses-{after.label}'
            )
            images, names = _images(plan, space, (gap, gap + 1))
            step = f'ses{before.label}ses{after.label}lesion{lesion.index}'
            path = plan.path('figure', step=step)
            draw_change(
                images,
                tuple(space.grid.with_data(found.instances[n]) for n in (gap, gap + 1)),  # type: ignore[arg-type]
                lesion.index,
                path,
                title=title,
                names=names,
                brain=space.grid.with_data(space.brain),
            )
            file = path.relative_to(plan.names.root).as_posix()
            figures.append({'File': file, 'Title': title, 'State': state})
            places[lesion.index, gap] = len(figures)
    return figures, places


def _write_viewer(
    plan: LongitudinalPlan, space: WithinSpace, found: JointLesions
) -> dict[str, Any]:
    """Write an image of each visit and the changed lesions for the interactive viewer."""
    path, root = plan.path('viewer'), plan.names.root
    common = [c for c in SHOWN if all(c in images for images in space.images)]
    images = []
    for visit, own in zip(plan.visits, space.images, strict=True):
        contrast = common[0] if common else next(iter(own))
        name = f'ses-{visit.label} {contrast}'
        images.append(Volume(own[contrast], space.grid.affine, name))
    gaps = range(0 if space.misfits else len(plan.visits) - 1)
    numbers = [one.index for gap in gaps for one in changed(found, gap)]
    moving = np.isin(found.instances, numbers)
    lesions = space.grid.with_data(np.where(moving, found.instances, 0).max(axis=0))
    resampled = viewer.write_volumes(path, images, lesions, space.grid.with_data(space.brain))
    return {
        'Volumes': path.relative_to(root).as_posix(),
        'Program': output_name('report.viewer_program'),
        'Resampled': resampled,
        'Flicker': True,
    }


def _draw_misfit(
    plan: LongitudinalPlan, space: WithinSpace, pair: tuple[int, int]
) -> dict[str, Any]:
    """The figure of two visits that do not fit."""
    before, after = (plan.visits[n].label for n in pair)
    title = f'Session {before} and session {after} after the registration'
    images, names = _images(plan, space, pair)
    path = plan.path('figure', step=f'ses{before}ses{after}')
    draw_visits(images, path, title=title, names=names, brain=space.grid.with_data(space.brain))
    file = path.relative_to(plan.names.root).as_posix()
    return {'File': file, 'Title': title, 'State': 'doubtful'}


def _images(
    plan: LongitudinalPlan, space: WithinSpace, pair: tuple[int, int]
) -> tuple[tuple[Volume, Volume], tuple[str, str]]:
    """An image of each of two visits, of one contrast where there is one, and their names."""
    one, other = (space.images[n] for n in pair)
    common = [c for c in SHOWN if c in one and c in other]
    contrasts = (common[0], common[0]) if common else (next(iter(one)), next(iter(other)))
    images = space.grid.with_data(one[contrasts[0]]), space.grid.with_data(other[contrasts[1]])
    first, second = (
        f'ses-{plan.visits[n].label} {c}' for n, c in zip(pair, contrasts, strict=True)
    )
    return images, (first, second)
