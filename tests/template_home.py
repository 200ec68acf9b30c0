"""A small TEMPLATEFLOW_HOME: nilearn's MNI152 under the names that TemplateFlow's files have."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssl2_bids.files import write_json
from ssl2_bids.steps.template import template
from ssl2_bids.volume import Volume, resample, write

FILES = {  # folder and name without the suffix: voxel edge in mm, shift of the head in mm
    'tpl-MNI152NLin2009cAsym/tpl-MNI152NLin2009cAsym_res-01': (2.0, (0, 0, 0)),
    'tpl-MNI152NLin2009cAsym/tpl-MNI152NLin2009cAsym_res-02': (3.0, (0, 0, 0)),
    'tpl-MNIPediatricAsym/cohort-1/tpl-MNIPediatricAsym_cohort-1_res-2': (3.0, (0, 6, 4)),
    'tpl-MNIPediatricAsym/cohort-2/tpl-MNIPediatricAsym_cohort-2_res-2': (3.0, (0, 6, 4)),
}


def make_home(folder: Path) -> Path:
    """Two templates, one with cohorts; files that the client could download are empty.

    The heads lie on coarser grids than TemplateFlow's, cropped, and one of them elsewhere.
    """
    model = template()
    for name, (edge, shift) in FILES.items():
        affine = np.diag([edge, edge, edge, 1.0])
        affine[:3, 3] = (-76, -112, -72)
        shape = tuple(int(length // edge) for length in (152, 192, 160))
        there = np.eye(4)
        there[:3, 3] = shift
        image = resample(model, affine, shape, transform=there)
        path = folder / f'{name}_T1w.nii.gz'
        write(Volume(image.data * 80 + 10 * (image.data > 0.05), affine), path, code=4)
        mask = image.with_data((image.data > 0.15).astype(np.uint8))
        write(mask, folder / f'{name}_desc-brain_mask.nii.gz', dtype=np.uint8, code=4)
    for name in ('MNI152NLin2009cAsym', 'MNIPediatricAsym'):
        path = folder / f'tpl-{name}' / 'template_description.json'
        write_json(path, {'Identifier': name, 'Name': f'Test copy of {name}', 'License': 'BSD'})
    for name in ('T1w', 'desc-brain_mask'):  # known to the client, not downloaded
        empty = folder / 'tpl-MNI152NLin6Asym' / f'tpl-MNI152NLin6Asym_res-02_{name}.nii.gz'
        empty.parent.mkdir(exist_ok=True)
        empty.touch()
    return folder
