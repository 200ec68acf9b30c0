"""What a rigid registration leaves over: the smooth distortion between two images of one head.

The images of a session come from sequences of their own. Where only some of them were corrected
for the non-linear gradients of the scanner, or where the main field differs near the sinuses, one
head has slightly different shapes in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ssl2_bids.errors import DataError, lacks_memory
from ssl2_bids.itk import itk_image, one_thread
from ssl2_bids.steps.image_pair import RegistrationStage, checked_mask, copies
from ssl2_bids.steps.registration import mattes
from ssl2_bids.volume import Volume, resample

STAGE = RegistrationStage(2.0, 20_000, 2.0)
MESH = 2  # cells of the B-spline along each axis: it follows gradients, and no single sulcus
ITERATIONS = 10


@dataclass(frozen=True)
class Distortion:
    """Displacement between two aligned images of one head.

    Attributes
    ----------
    length : mm in each voxel of the brain, 0 elsewhere; voxels of 2 mm.
    median, high : of the brain, mm; ``high`` is the 95th percentile.
    """

    length: Volume
    median: float
    high: float


def measure_distortion(
    fixed: Volume, moving: Volume, brain: Volume, *, seed: int = 0
) -> Distortion:
    """Find the smooth displacement that still increases the mutual information of two images.

    A free-form deformation of cubic B-splines (Rueckert et al. 1999) with two cells along each
    axis of the brain, by L-BFGS-B in Mattes' mutual information.

    Parameters
    ----------
    fixed, moving : aligned, on one grid.
    brain : mask on that grid.
    seed : of the choice of the points that are compared.

    Raises
    ------
    DataError : the mask is empty, an image is constant within it, or nothing overlaps.
    """
    mask = checked_mask(fixed, brain)
    checked_mask(moving, brain)
    pair = copies(fixed, moving, mask, mask, stage=STAGE)
    still = itk_image(pair.fixed)
    with one_thread():
        method = mattes(pair, stage=STAGE, seed=seed)
        method.SetMetricFixedMask(itk_image(pair.region))
        spline = sitk.BSplineTransformInitializer(still, [MESH] * 3, 3)
        method.SetOptimizerAsLBFGSB(
            gradientConvergenceTolerance=1e-6,
            numberOfIterations=ITERATIONS,
            maximumNumberOfFunctionEvaluations=2 * ITERATIONS,
            costFunctionConvergenceFactor=1e5,
        )
        method.SetInitialTransform(spline, inPlace=True)
        try:
            method.Execute(still, itk_image(pair.moving))
        except RuntimeError as error:
            if lacks_memory(error):
                raise MemoryError from error
            raise DataError(f'no distortion could be measured ({error})') from error
        field = sitk.TransformToDisplacementField(
            spline,
            sitk.sitkVectorFloat32,
            still.GetSize(),
            still.GetOrigin(),
            still.GetSpacing(),
            still.GetDirection(),
        )
    length = np.linalg.norm(sitk.GetArrayFromImage(field), axis=-1).T
    share = mask.with_data(mask.data.astype(np.float32))
    inside = resample(share, pair.fixed.affine, pair.fixed.shape).data > 0.5
    median, high = np.percentile(length[inside], (50, 95))
    return Distortion(
        pair.fixed.with_data(np.where(inside, length, 0).astype(np.float32)),
        float(median),
        float(high),
    )


METHODS = (
    'The smooth distortion that the rigid registration leaves over was measured by a free-form '
    'deformation [@rueckert1999]; the images were not corrected for it.'
)
