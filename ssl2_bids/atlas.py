"""The small probabilistic atlas of regions in the template's space."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl2_bids.volume import Volume

ATLAS = Path(__file__).parent / 'resources' / 'atlas'


def read_atlas() -> dict[str, Volume]:
    """The probability, 0 to 1, of each structure in template space, by name.

    Made by ``tools/make-atlas``; sources and licence stand beside the file.
    """
    image = nib.Nifti1Image.from_filename(ATLAS / 'regions.nii.gz')
    structures = json.loads((ATLAS / 'regions.json').read_text(encoding='utf-8'))['Structures']
    stack = np.asarray(image.dataobj)
    return {
        name: Volume(stack[..., i].astype(np.float32) / 255, image.affine.astype(np.float64))
        for i, name in enumerate(structures)
    }
