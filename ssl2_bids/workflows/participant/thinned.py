"""Results that were made on thinned scans, on all voxels of these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ssl2_bids.files import write_json
from ssl2_bids.volume import fill, read, write
from ssl2_bids.voxel_grid import Grid
from ssl2_bids.workflows.annotations import ras_grid
from ssl2_bids.workflows.participant.derivatives import Results
from ssl2_bids.workflows.participant.engine.task import read_json
from ssl2_bids.workflows.participant.plan import Plan
from ssl2_bids.workflows.participant.planned_outputs import is_denoised


def on_all_voxels(plan: Plan, results: Results, voxel: float) -> Results:
    """The results on the grids of the scans, as files of the current folder.

    Parameters
    ----------
    voxel : mm; what the scans were thinned to, see :func:`ssl2_bids.volume.thin`.
    """
    grids = {c: ras_grid(plan.session.scans[c].paths[0]) for c in results.contrasts}
    reference = grids[results.contrasts[0]]

    def filled(path: str, grid: Grid, name: str, dtype: type = np.float32) -> str:
        write(fill(read(path, dtype=dtype), grid, voxel), f'{name}.nii', dtype=dtype)
        return str(Path.cwd() / f'{name}.nii')

    instances = filled(results.instances, reference, 'instances', np.uint16)
    return replace(
        results,
        prepared=[
            filled(path, grids[c], f'prepared_{c}') if is_denoised(plan.session.scans[c]) else path
            for c, path in zip(results.contrasts, results.prepared, strict=True)
        ],
        maps={
            c: {suffix: filled(path, grids[c], f'{suffix}_{c}') for suffix, path in maps.items()}
            for c, maps in results.maps.items()
        },
        corrected=[filled(results.corrected[0], reference, 'corrected'), *results.corrected[1:]],
        resampled=[
            filled(path, reference, f'resampled_{number}')
            for number, path in enumerate(results.resampled)
        ],
        brain_mask=filled(results.brain_mask, reference, 'brain', np.uint8),
        probability=filled(results.probability, reference, 'probability'),
        uncertainty=results.uncertainty and filled(results.uncertainty, reference, 'uncertainty'),
        instances=instances,
        table=_counted_again(results.table, instances),
    )


def _counted_again(table: str, instances: str) -> str:
    """The table with the voxels and volumes of these instances."""
    volume = read(instances, dtype=np.uint16)
    rows = read_json(table)
    counts = np.bincount(volume.data.ravel(), minlength=len(rows) + 1)
    for row in rows:
        row['voxel_count'] = int(counts[row['index']])
        row['volume_mm3'] = row['voxel_count'] * volume.voxel_volume
    write_json('table.json', rows)
    return str(Path.cwd() / 'table.json')
