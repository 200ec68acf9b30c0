"""The node that measures what the rigid registration of an image leaves over."""

from __future__ import annotations

import numpy as np

from ssl2_bids.errors import DataError
from ssl2_bids.steps.inhomogeneity import is_strong
from ssl2_bids.volume import read, write
from ssl2_bids.workflows.participant.node_files import here, write_facts
from ssl2_bids.workflows.participant.plan import Plan, field_strength


def distorted_contrasts(plan: Plan) -> list[str]:
    """The contrasts whose distortion against the reference is measured: those of 7T.

    At lower fields the shape of a head differs little between sequences, and images with thick
    slices are too coarse to show a millimetre.
    """
    others = [c for c in plan.session.scans if c != plan.session.reference]
    if plan.settings.sloppy:
        return []
    return [c for c in others if is_strong(field_strength(plan, c))]


def measure_distortion(
    fixed: str, resampled: str, brain_mask: str, contrast: str, seed: int
) -> dict[str, str]:
    """Length of the residual displacement in the brain, mm, as an image of 2 mm.

    Where it cannot be measured the image is empty and the facts have the reason.
    """
    from ssl2_bids.steps import residual_distortion

    brain = read(brain_mask, dtype=np.uint8)
    distortion: dict[str, float | str] = {}
    methods = []
    try:
        found = residual_distortion.measure_distortion(
            read(fixed), read(resampled, contrast=contrast), brain, seed=seed
        )
    except DataError as error:  # a measure of an odd image must not cost its segmentation
        distortion['reason'] = str(error)
        length = brain.with_data(np.zeros(brain.shape, np.float32))
    else:
        distortion = {'median': found.median, 'high': found.high}
        methods.append(residual_distortion.METHODS)
        length = found.length
    write(length, 'distortion.nii')
    facts = write_facts(
        'measure_distortion', [], methods, contrast=contrast, distortion=distortion
    )
    return {'distortion': here('distortion.nii'), 'facts': facts}
