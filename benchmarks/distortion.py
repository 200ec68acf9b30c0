#!/usr/bin/env python3
"""The residual distortion that is measured, against known distortions put into images.

    python benchmarks/distortion.py OUT [OUT ...]

OUT is an output folder of `ssl2-bids ... participant` on scans of 7T (`ssl2 simulate --field 7
--contrasts UNIT1 FLAIR T2w T2starw`). Each aligned image is measured as it is, and after a
displacement along the radius that grows with its third power, as gradients leave it: 1.5, 3 and
4.5 mm at 90 mm from the middle. Columns: true and measured displacement, median and 95th
percentile over the brain, and processor seconds of the measurement.

A measured value without a known displacement is the bias of the method and whatever distortion
the scanner put in.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ssl2_bids.steps.residual_distortion import measure_distortion
from ssl2_bids.volume import Volume, read

RADIUS = 90.0  # mm
AT_RADIUS = (0.0, 1.5, 3.0, 4.5)  # mm


def warped(image: Volume, brain: Volume, at_radius: float) -> tuple[Volume, np.ndarray]:
    """An image displaced along the radius, and the length of the displacement in mm."""
    to_mm = image.affine[:3, :3]
    voxels = np.indices(image.shape).reshape(3, -1)
    middle = np.argwhere(brain.data > 0).mean(axis=0)
    offset = to_mm @ (voxels - middle[:, None])
    share = (offset**2).sum(axis=0) / RADIUS**2
    shift = offset / RADIUS * share * at_radius
    places = voxels - np.linalg.solve(to_mm, shift)
    moved = ndimage.map_coordinates(image.data, places, order=1).reshape(image.shape)
    return image.with_data(moved.astype(np.float32)), np.linalg.norm(shift, axis=0)


def measure(folder: Path) -> None:
    """Print the rows of the participants of an output folder."""
    for mask_path in sorted(folder.glob('sub-*/anat/*desc-brain_mask.nii.gz')):
        stem = mask_path.name.partition('_')[0]
        (fixed_path,) = mask_path.parent.glob(f'{stem}_desc-preproc_*.nii.gz')
        brain = read(mask_path, dtype=np.uint8)
        inside = brain.data.ravel() > 0
        for path in sorted(mask_path.parent.glob(f'{stem}_space-*_desc-preproc_*.nii.gz')):
            contrast = path.name.split('_')[-1].partition('.')[0]
            for at_radius in AT_RADIUS:
                image, length = warped(read(path), brain, at_radius)
                start = time.process_time()
                found = measure_distortion(read(fixed_path), image, brain)
                seconds = time.process_time() - start
                true = np.percentile(length[inside], (50, 95))
                print(
                    f'| {folder.name} {stem} | {contrast:8} | {at_radius:.1f} | {true[0]:.2f} | '
                    f'{found.median:.2f} | {true[1]:.2f} | {found.high:.2f} | {seconds:.1f} |',
                    flush=True,
                )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, nargs='+')
    columns = ['participant', 'contrast', 'mm at 90 mm', 'true median', 'measured', 'true 95 %']
    print(f'| {" | ".join(columns)} | measured | CPU s |')
    print('| --- | --- | --- | --- | --- | --- | --- | --- |')
    for folder in parser.parse_args().out:
        measure(folder)


if __name__ == '__main__':
    main()
