"""The lesion-frequency map of a cohort, on the template."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssl2_bids.bids.dataset import unit_name
from ssl2_bids.bids.outputs import Result, output_name, sidecar_path
from ssl2_bids.bids.provenance import bids_uri
from ssl2_bids.errors import DataError
from ssl2_bids.files import write_json
from ssl2_bids.settings import ATLAS_SPACE, ATLAS_URI, GroupSettings
from ssl2_bids.volume import Volume, read, resample, write
from ssl2_bids.workflows.participant.derivatives import template_transform


def write_frequency(
    settings: GroupSettings, results: list[Result], model: str, problems: list[dict[str, str]]
) -> tuple[Volume, Path]:
    """The share of participants with a lesion at each voxel of the template, and its figure.

    A result that cannot be read is left out and added to ``problems``.
    """
    from ssl2_bids.reports.figures.session import draw_frequency
    from ssl2_bids.steps.template import template

    target = template()
    visits: dict[str, list[Result]] = {}
    for result in results:
        visits.setdefault(result.names.subject, []).append(result)
    count = np.zeros(target.shape, np.int32)
    people, mapped = [], []
    for subject, own in visits.items():
        # a participant counts once, with the lesions of all sessions
        lesions = np.zeros(target.shape, bool)
        readable = []
        for result in own:
            try:
                lesions |= _on_template(result, target)
            except DataError as error:
                name = unit_name(subject, result.names.session)
                problems.append({'name': name, 'subject': subject, 'reason': str(error)})
            else:
                readable.append(result)
        if readable:
            count += lesions
            people.append(subject)
            mapped += readable
    if not people:
        raise DataError(problems[-1]['reason'], path=settings.output_dir)
    share = target.with_data(count.astype(np.float32) / np.float32(len(people)))
    path = settings.output_dir / output_name('group.frequency', space=ATLAS_SPACE)
    write(share, path, code=4)
    content = {
        'Description': 'Share of participants with a lesion at each voxel, all sessions of a '
        'participant together; aligned by affine transforms.',
        'Model': model or 'default',
        'Participants': sorted(f'sub-{s}' for s in people),
        'SpatialReference': ATLAS_URI,
        'Sources': [bids_uri(r.names.path('anat.mask'), settings.output_dir) for r in mapped],
    }
    write_json(sidecar_path(path), content)
    figure = settings.output_dir / output_name('group.frequency_figure', space=ATLAS_SPACE)
    figure.parent.mkdir(parents=True, exist_ok=True)
    draw_frequency(share, target, figure, title=f'Lesion frequency, {len(people)} participants')
    return share, figure


def _on_template(result: Result, target: Volume) -> np.ndarray:
    """Where a result has lesions, on the grid of the template."""
    names = result.names
    transform = template_transform(names)
    mask = read(names.path('anat.mask'))
    there = resample(mask, target.affine, target.shape, transform=transform).data >= 0.5
    return np.asarray(there)
