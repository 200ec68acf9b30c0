#!/usr/bin/env python3
"""How well two heads agree in a template, by the truth of a simulation, and the CPU seconds.

    ssl2 simulate HEADS --field 7 --subjects 2 --seed 41 --labels LABELS --whole-head \\
        --contrasts UNIT1 FLAIR T2w T2starw
    python benchmarks/template_registration.py HEADS [--syn]

LABELS is a folder of label maps with skull and scalp (docs/how-to/train.md). UNIT1 of both heads
is registered to the MNI152 template that nilearn has, with the true brain masks and filled
lesions; the true tissues are brought to the template and compared with each other (Dice). Rows:

* affine: what every other row starts from.
* demons: SimpleITK's symmetric forces, intensities matched by histogram, 8, 4 and 2 mm.
* deformation: what the App does. *reversed* is the same image with dark and bright exchanged.
* syn: SyN of ANTs with local correlation (``--syn``; needs antspyx), 40, 20 and 10 iterations.

*folded*: voxels of the brain where the field folds, of a million. CPU seconds without the affine
transform; one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ssl2_bids.itk import LPS, itk_image, one_thread
from ssl2_bids.steps import deformation
from ssl2_bids.steps.template import register_to_template, template
from ssl2_bids.volume import Volume, read, reorient, resample_deformed

TISSUES = {
    'white matter': (1,),
    'cortex': (2,),
    'caudate': (3,),
    'putamen': (4,),
    'thalamus': (6,),
    'hippocampus': (7,),
    'cerebellum': (8,),
    'brain stem': (9,),
    'fluid': (10, 11),
}
Pair = tuple[np.ndarray, np.ndarray, Volume]  # template and image on a grid in the template


def demons(pair: Pair) -> np.ndarray:
    """Shifts in mm (RAS+), (I, J, K, 3), by SimpleITK's demons."""
    fixed, moving, grid = pair
    field = None
    for factor, steps in ((4, 60), (2, 60), (1, 30)):
        one, other = (
            sitk.Shrink(sitk.SmoothingRecursiveGaussian(itk_image(grid.with_data(a)), factor),
                        [factor] * 3)
            for a in (fixed, moving)
        )  # fmt: skip
        other = sitk.HistogramMatching(other, one, 256, 15, True)
        method = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        method.SetNumberOfIterations(steps)
        method.SetStandardDeviations(1.5)
        method.SetSmoothUpdateField(True)
        if field is None:
            field = method.Execute(one, other)
        else:
            start = sitk.Resample(field, one, sitk.Transform(), sitk.sitkLinear)
            field = method.Execute(one, other, start)
    return np.transpose(sitk.GetArrayFromImage(field), (2, 1, 0, 3)) * [-1, -1, 1]


def syn(pair: Pair) -> np.ndarray:
    """Shifts in mm (RAS+) by ANTs."""
    import ants

    fixed, moving, grid = pair
    ants.config.set_ants_deterministic(True, seed_value=42)
    affine = LPS @ grid.affine
    direction = affine[:3, :3] / grid.spacing
    images = [
        ants.from_numpy(a.astype(np.float32), origin=affine[:3, 3].tolist(),
                        spacing=grid.spacing.tolist(), direction=direction)
        for a in (fixed, moving)
    ]  # fmt: skip
    found = ants.registration(
        *images,
        type_of_transform='SyNOnly',
        reg_iterations=(40, 20, 10),
        syn_metric='CC',
        syn_sampling=2,
    )
    transform = sitk.CompositeTransform(3)
    for file in reversed(found['fwdtransforms']):
        if file.endswith('.mat'):
            transform.AddTransform(sitk.ReadTransform(file))
        else:
            field = sitk.ReadImage(file, sitk.sitkVectorFloat64)
            transform.AddTransform(sitk.DisplacementFieldTransform(field))
    like = itk_image(grid)
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, like.GetSize(), like.GetOrigin(), like.GetSpacing(),
        like.GetDirection(),
    )  # fmt: skip
    return np.transpose(sitk.GetArrayFromImage(field), (2, 1, 0, 3)) * [-1, -1, 1]


def folded(shifts: np.ndarray, affine: np.ndarray, brain: np.ndarray) -> float:
    """Voxels of a million in the brain at which the field turns space inside out."""
    edges = affine[:3, :3].diagonal()
    slopes = np.array([np.gradient(shifts[..., axis], *edges) for axis in range(3)])
    jacobian = np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)) + np.eye(3))
    return float((jacobian[brain] <= 0).mean() * 1e6)


def measure(folder: Path, methods: dict[str, Callable[..., np.ndarray] | None]) -> None:
    """Print the rows."""
    model = template()
    model_mask = model.with_data((model.data > 0).astype(np.uint8))
    grid = deformation.cubic(
        model_mask.with_data(model.data > 0), model_mask.with_data(model.data > 0),
        spacing=deformation.SPACING, margin=deformation.MARGIN,
    )  # fmt: skip
    brain = grid.data >= 0.5
    moved: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    folds: dict[str, list[float]] = {name: [] for name in methods}
    for subject in ('01', '02'):
        truth = folder / f'derivatives/truth/sub-{subject}/anat/sub-{subject}_space-UNIT1_'
        image = reorient(read(folder / f'sub-{subject}/anat/sub-{subject}_UNIT1.nii.gz'))
        mask, tissues, lesions = (
            reorient(read(f'{truth}{name}.nii.gz', dtype=np.uint8))
            for name in ('desc-brain_mask', 'seg-tissues_dseg', 'label-L_mask')
        )
        inside = mask.with_data(mask.data > 0)
        matrix = register_to_template(image, mask).matrix
        filled = deformation.without_lesions(image, inside, lesions)
        pair = (
            deformation.normalised(model, model_mask.with_data(model.data > 0), grid, np.eye(4)),
            deformation.normalised(filled, inside, grid, matrix),
            grid,
        )
        for name, method in methods.items():
            start = time.process_time()
            with one_thread():
                if name.startswith('deformation'):
                    data = image.data.max() - image.data if 'reversed' in name else image.data
                    shifts = deformation.register_deformation(
                        model, image.with_data(data), matrix,
                        template_mask=model_mask, image_mask=mask, lesions=lesions,
                    ).forward  # fmt: skip
                else:
                    shifts = np.zeros((*grid.shape, 3)) if method is None else method(pair)
            seconds[name].append(time.process_time() - start)
            folds[name].append(folded(shifts, grid.affine, brain))
            there = resample_deformed(
                tissues, model, transform=matrix, shifts=shifts, shifts_affine=grid.affine, order=0
            )
            moved[name].append(there.data)
    print(f'| method | CPU s | folded | {" | ".join(TISSUES)} | mean |')
    print('| --- ' * (len(TISSUES) + 4) + '|')
    for name, (one, other) in moved.items():
        dice = []
        for numbers in TISSUES.values():
            a, b = np.isin(one, numbers), np.isin(other, numbers)
            dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
        cells = ' | '.join(f'{value:.2f}' for value in [*dice, np.mean(dice)])
        print(f'| {name} | {np.mean(seconds[name]):.0f} | {np.mean(folds[name]):.0f} | {cells} |')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('heads', type=Path)
    parser.add_argument('--syn', action='store_true', help='with SyN of ANTs')
    options = parser.parse_args()
    methods: dict[str, Callable[..., np.ndarray] | None] = {
        'affine': None,
        'demons': demons,
        'deformation': None,
        'deformation, reversed': None,
    }
    measure(options.heads, methods | ({'syn': syn} if options.syn else {}))


if __name__ == '__main__':
    main()
