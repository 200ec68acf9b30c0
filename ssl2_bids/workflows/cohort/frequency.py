"""The lesion-frequency map of a cohort, on the template."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids.bids.outputs import Result, UnitNames, output_name, sidecar_path
from ssl2_bids.bids.provenance import bids_uri
from ssl2_bids.bids.sidecars import SLOPPY, is_sloppy
from ssl2_bids.errors import DataError
from ssl2_bids.files import write_json
from ssl2_bids.processes import side_by_side
from ssl2_bids.settings import ATLAS_SPACE, ATLAS_URI, GroupSettings
from ssl2_bids.volume import Volume, resample_at, write
from ssl2_bids.voxel_grid import bounding_box, shift_affine, start_of
from ssl2_bids.workflows.participant.derivatives import template_transform
from ssl2_bids.workflows.segmentation_files import read_result

AROUND = 8  # voxels around the lesions; smoothing before the resampling reaches less far
HALF = 0.5  # share of a voxel that must be lesion
TOGETHER = 4  # participants that a process takes at once


@dataclass(frozen=True)
class OnTemplate:
    """Lesions of a participant on the template.

    Attributes
    ----------
    voxels : indices of the voxels with a lesion, in the flattened grid.
    readable : results that count.
    unreadable : those that cannot be read, with the reason.
    """

    voxels: np.ndarray
    readable: tuple[UnitNames, ...]
    unreadable: tuple[tuple[UnitNames, str], ...]


def write_frequency(
    settings: GroupSettings, results: list[Result], model: str
) -> tuple[tuple[Volume, Path] | None, dict[UnitNames, str]]:
    """The share of participants with a lesion at each voxel of the template, and its figure.

    Returns
    -------
    The map and its figure, None where no result can be read; and the results that cannot be
    read, which are left out, with the reason.
    """
    from ssl2_bids.reports.figures.session import draw_frequency
    from ssl2_bids.steps.template import template

    target = template()
    visits: dict[str, list[UnitNames]] = {}
    for result in results:
        visits.setdefault(result.names.subject, []).append(result.names)
    count = np.zeros(target.shape, np.int32)
    people: list[str] = []
    read_in: list[UnitNames] = []
    unreadable: dict[UnitNames, str] = {}
    jobs = list(visits.values())
    find = partial(lesions_on_template, target.shape, target.affine)
    found = side_by_side(find, jobs, nprocs=settings.nprocs, parts=TOGETHER)
    seen = dict(_counted(found, count))
    for place, own in enumerate(jobs):  # the order of the results, whatever ended first
        unreadable |= dict(seen[place].unreadable)
        if seen[place].readable:
            people.append(own[0].subject)
            read_in += seen[place].readable
    if not people:
        return None, unreadable
    share = target.with_data(count.astype(np.float32) / np.float32(len(people)))
    path = settings.output_dir / output_name('group.frequency', space=ATLAS_SPACE)
    write(share, path, code=4)
    content: dict[str, Any] = {
        'Description': 'Share of participants with a lesion at each voxel, all sessions of a '
        'participant together; aligned by affine transforms.',
        'Model': model or 'default',
        'Participants': sorted(f'sub-{s}' for s in people),
        'SpatialReference': ATLAS_URI,
        'Sources': [bids_uri(names.path('anat.mask'), settings.output_dir) for names in read_in],
    }
    if any(is_sloppy(result.sidecar) for result in results):
        content[SLOPPY] = True
    write_json(sidecar_path(path), content)
    figure = settings.output_dir / output_name('group.frequency_figure', space=ATLAS_SPACE)
    figure.parent.mkdir(parents=True, exist_ok=True)
    draw_frequency(share, target, figure, title=f'Lesion frequency, {len(people)} participants')
    return (share, figure), unreadable


def _counted(
    found: Iterable[tuple[int, OnTemplate]], count: np.ndarray
) -> Iterator[tuple[int, OnTemplate]]:
    """Add the lesions of each participant to ``count`` as they come; only names are kept."""
    for place, one in found:
        count.reshape(-1)[one.voxels] += 1
        yield place, replace(one, voxels=one.voxels[:0])


def lesions_on_template(
    shape: tuple[int, int, int], affine: np.ndarray, visits: Sequence[UnitNames]
) -> OnTemplate:
    """Where a participant has lesions in any session.

    Parameters
    ----------
    shape, affine : the grid of the template.
    visits : the results of the participant.
    """
    found = [np.zeros(0, np.intp)]
    readable, unreadable = [], []
    for names in visits:
        try:
            found.append(_on_template(names, shape, affine))
        except DataError as error:
            unreadable.append((names, str(error)))
        else:
            readable.append(names)
    return OnTemplate(np.unique(np.concatenate(found)), tuple(readable), tuple(unreadable))


def _on_template(names: UnitNames, shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """Where a result has lesions: indices in the flattened grid of the template."""
    from scipy import ndimage

    transform = template_transform(names)
    mask = read_result(names.path('anat.mask'), dtype=np.uint8)
    if not mask.data.any():
        return np.zeros(0, np.intp)
    box = bounding_box(mask.data, AROUND)
    lesions = Volume(mask.data[box], shift_affine(mask.affine, start_of(box)))
    # most of the template is far from all lesions: only voxels near one are looked at
    to_template = np.linalg.inv(transform @ affine) @ lesions.affine
    drawn = np.array(np.nonzero(lesions.data))
    reached = np.rint(to_template[:3, :3] @ drawn + to_template[:3, 3:]).astype(int)
    inside = ((reached >= 0) & (reached < np.array(shape)[:, None])).all(axis=0)
    near = np.zeros(shape, np.uint8)
    near[tuple(reached[:, inside])] = 1
    reach = np.ceil(1 + np.abs(to_template[:3, :3]).sum(axis=1)).astype(int)  # a voxel of the mask
    near = ndimage.maximum_filter(near, size=(2 * reach + 1).tolist(), mode='constant')
    voxels = np.array(np.nonzero(near))
    share = resample_at(lesions, affine, voxels, transform=transform)
    return np.asarray(np.ravel_multi_index(tuple(voxels[:, share >= HALF]), shape))
