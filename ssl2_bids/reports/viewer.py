"""The interactive viewer: the volumes of a session as a script that a page can load, and NiiVue.

Browsers refuse modules and requests on pages opened from a folder, so that both come as classic
scripts. Only voxels of the brain are written: a report may be mailed, a face may not.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl2_bids.files import whole_file, write_text
from ssl2_bids.reports.figures.scene import Box, bounding_box, window
from ssl2_bids.volume import Volume, reorient, resample
from ssl2_bids.voxel_grid import same_grid

MAX_VOXELS = 1.8e6  # in the brain: no 1 mm brain is resampled, two images stay below 5 MB
MARGIN = 7.0  # mm of nothing around the brain, where letters stand


def write_volumes(path: Path, images: Sequence[Volume], lesions: Volume, brain: Volume) -> bool:
    """Write a session's images (brain only, 8 bit) and lesions as a script.

    It sets ``ssl2Volumes[<name of the script>]``: ``images`` with ``name`` and ``nifti``, and
    ``lesions``; all are NIfTI, compressed, base64. Equal volumes give equal bytes.

    Parameters
    ----------
    images : those to choose among, the first is shown first; all on the grid of ``brain``.
    lesions : instances on the same grid, 0 is none.
    brain : brain mask; what is outside becomes 0, and where there are fewer than 1.8 million
        voxels inside, the images keep their own.

    Returns
    -------
    Whether the images were brought to coarser voxels.

    Raises
    ------
    ValueError : the volumes do not lie on one grid.
    """
    if not all(same_grid(volume, brain) for volume in (*images, lesions)):
        raise ValueError('images, lesions and brain mask must lie on one grid')
    inside, instances = reorient(brain), reorient(lesions)
    box = bounding_box((inside.data > 0) | (instances.data > 0), inside.spacing, 0)
    inside, instances = cut_out(inside, box), cut_out(instances, box)
    grid = viewer_grid(inside)
    shown = [_grey(cut_out(reorient(image), box), inside, grid) for image in images]
    largest = int(instances.data.max(initial=0))
    content = {
        'images': [{'name': v.contrast, 'nifti': _encode(v, np.uint8)} for v in shown],
        'lesions': _encode(instances, np.uint8 if largest < 256 else np.uint16, labels=True),
    }
    text = json.dumps(content, separators=(',', ':'))
    key = json.dumps(path.name)
    write_text(path, f'(window.ssl2Volumes=window.ssl2Volumes||{{}})[{key}]={text};\n')
    return grid is not inside


def provide_program(path: Path) -> bool:
    """Put NiiVue, below its licence, where pages look for it; False where it is not installed.

    ``tools/fetch-viewer`` installs it.
    """
    folder = files('ssl2_bids.resources').joinpath('niivue')
    program, licence = folder.joinpath('niivue.umd.js'), folder.joinpath('LICENSE')
    if not program.is_file():
        return path.is_file()
    content = b'/*!\n' + licence.read_bytes() + b'*/\n' + program.read_bytes()
    if not path.is_file() or path.read_bytes() != content:
        with whole_file(path) as temporary:
            temporary.write_bytes(content)
    return True


def cut_out(volume: Volume, box: Box, margin: float = MARGIN) -> Volume:
    """A part of a volume with a margin in mm around it, where it was; 0 beyond the volume."""
    wide = np.ceil(margin / volume.spacing).astype(int)
    low = np.array([part.start for part in box]) - wide
    high = np.array([part.stop for part in box]) + wide
    inner = tuple(slice(max(0, a), b) for a, b in zip(low, high, strict=True))
    beyond = zip(low, high, volume.shape, strict=True)
    data = np.pad(volume.data[inner], [(max(0, -a), max(0, b - n)) for a, b, n in beyond])
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ [*low, 1.0])[:3]
    return Volume(data, affine, volume.contrast)


def viewer_grid(brain: Volume) -> Volume:
    """The finest grid of at most ``MAX_VOXELS`` brain voxels; the brain mask on it.

    It is the given one, or edges shorter than a length are made that long: thick slices stay as
    they are, and small voxels become more equal. The first corner of the field of view stays.
    """
    volume = float((brain.data > 0).sum()) * brain.voxel_volume
    edge = float(brain.spacing.min())
    while volume / float(np.prod(np.maximum(brain.spacing, edge))) > MAX_VOXELS:
        edge = round(edge + 0.05, 2)
    ratio = np.maximum(brain.spacing, edge) / brain.spacing
    if np.all(ratio == 1):
        return brain
    i, j, k = (int(np.ceil(n / r)) for n, r in zip(brain.shape, ratio, strict=True))
    affine = brain.affine @ np.diag([*ratio, 1.0])
    affine[:3, 3] = (brain.affine @ [*((ratio - 1) / 2), 1.0])[:3]
    share = resample(brain.with_data((brain.data > 0).astype(np.float32)), affine, (i, j, k))
    return Volume((share.data >= 0.5).astype(np.uint8), affine)


def _grey(image: Volume, brain: Volume, grid: Volume) -> Volume:
    """An image on the viewer's grid: 1 to 255 within the brain, 0 outside."""
    low, high = window(image, brain.data > 0)
    values = np.nan_to_num(image.data.astype(np.float32))
    scaled = image.with_data(np.clip((values - low) / (high - low), 0, 1))
    shown = resample(scaled, grid.affine, grid.shape)
    levels = np.where(grid.data > 0, 1 + np.round(np.clip(shown.data, 0, 1) * 254), 0)
    return shown.with_data(levels.astype(np.uint8))


def _encode(volume: Volume, dtype: type, *, labels: bool = False) -> str:
    image = nib.Nifti1Image(volume.data.astype(dtype), volume.affine)
    image.header.set_xyzt_units('mm', 'sec')
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    if labels:
        image.header.set_intent('label')  # NiiVue then draws nothing where there is none
    return base64.b64encode(gzip.compress(image.to_bytes(), 9, mtime=0)).decode('ascii')
