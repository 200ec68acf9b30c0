"""Outputs of fMRIPrep and sMRIPrep: names of their published lists, with images and transforms.

The lists in ``tests/expected_outputs`` are those with which the continuous integration of both
programs compares their outputs (``.circleci/*_outputs.txt``, commits 18f3917 of fMRIPrep and
ca6f931 of sMRIPrep, Apache License 2.0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

LISTS = Path(__file__).with_name('expected_outputs')
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# what the programs write into dataset_description.json, and beside an image
DESCRIPTIONS = {
    'fmriprep': ('fMRIPrep - fMRI PREProcessing workflow', 'fMRIPrep', '25.2.3'),
    'smriprep': ('sMRIPrep - Structural MRI PREProcessing workflow', 'sMRIPrep', '0.19.0'),
}
TEMPLATE_SPACE = re.compile(r'_space-(?!T1w)')


def names_of(list_name: str) -> list[str]:
    """Names of a list, relative to the output folder."""
    lines = (LISTS / f'{list_name}.txt').read_text().splitlines()
    names = [line.strip().removeprefix('smriprep/') for line in lines]
    return [name for name in names if name and not name.startswith('/') and '.' in name]


def write_outputs(
    root: Path,
    list_name: str,
    subject: str,
    *,
    t1w: nib.Nifti1Image,
    mask: nib.Nifti1Image,
    transforms: Mapping[str, tuple[sitk.Transform, sitk.Transform]] | None = None,
    session: str | None = None,
) -> Path:
    """Write the outputs of a list for a participant in place of that of the list.

    Parameters
    ----------
    t1w, mask : on one grid; derivatives in templates are coarse copies of them.
    transforms : by template, T1w to template and back, as ITK's (they map points the other way).
        An affine with its inverse stands in for those that are missing.
    session : where the only T1w of the participant is of a session, fMRIPrep names it.
    """
    program = list_name.partition('_')[0]
    name, generator, version = DESCRIPTIONS[program]
    made_by = {'Name': generator, 'Version': version, 'CodeURL': 'https://github.com/nipreps'}
    description = {'Name': name, 'BIDSVersion': '1.4.0', 'DatasetType': 'derivative',
                   'GeneratedBy': [made_by]}  # fmt: skip
    half = nib.Nifti1Image(
        np.asarray(t1w.dataobj)[::2, ::2, ::2], t1w.affine @ np.diag([2, 2, 2, 1])
    )
    half_mask = nib.Nifti1Image(np.asarray(mask.dataobj)[::2, ::2, ::2], half.affine)
    for listed in names_of(list_name):
        relative = re.sub('sub-[0-9]+', f'sub-{subject}', listed)
        if session:
            relative = relative.replace(f'sub-{subject}_', f'sub-{subject}_ses-{session}_')
            relative = relative.replace(f'sub-{subject}/', f'sub-{subject}/ses-{session}/')
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        elsewhere = TEMPLATE_SPACE.search(path.name) or path.parent.name != 'anat'
        if path.name == 'dataset_description.json':
            path.write_text(json.dumps(description))
        elif path.name.endswith('.dscalar.nii') or path.name.endswith('.dtseries.nii'):
            path.write_bytes(b'CIFTI-2')
        elif path.name.endswith(('_mask.nii.gz', '_dseg.nii.gz', '_probseg.nii.gz')):
            (half_mask if elsewhere else mask).to_filename(path)
        elif path.name.endswith('.nii.gz'):
            (half if elsewhere else t1w).to_filename(path)
        elif match := re.search(r'_from-([^_]+)_to-([^_]+)_mode-image_xfm\.h5', path.name):
            forth = match[1] == 'T1w'
            pair = (transforms or {}).get(match[2] if forth else match[1]) or some_transforms()
            sitk.WriteTransform(pair[0 if forth else 1], str(path))
        elif path.name.endswith('_mask.json'):
            raw = relative.replace('_desc-brain_mask.json', '_T1w.nii.gz')
            path.write_text(json.dumps({'RawSources': [raw], 'Type': 'Brain'}))
        elif path.name.endswith('_T1w.json'):
            path.write_text(json.dumps({'SkullStripped': bool(elsewhere)}))
        elif path.name.endswith('.json'):
            path.write_text('{}')
        else:
            path.write_text('')
    return root


def some_transforms() -> tuple[sitk.Transform, sitk.Transform]:
    """An affine transform and its inverse, as composites."""
    affine = sitk.AffineTransform(3)
    affine.SetTranslation((1.0, -2.0, 3.0))
    return sitk.CompositeTransform([affine]), sitk.CompositeTransform([affine.GetInverse()])


def anat(root: Path, subject: str, name: str, session: str | None = None) -> Path:
    """A file of a participant's anatomy."""
    below, label = (f'/ses-{session}', f'_ses-{session}') if session else ('', '')
    return root / f'sub-{subject}{below}/anat/sub-{subject}{label}_{name}'
