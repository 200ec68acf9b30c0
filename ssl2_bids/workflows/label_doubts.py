"""Whether a label can be one of the lesions of its scan: for adaptation and evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssl2_bids.errors import DataError
from ssl2_bids.metrics import voxelwise
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.steps.lesions import count_lesions
from ssl2_bids.training.adaptation.decision import MIN_DICE
from ssl2_bids.training.adaptation.recalibration import CENTRES, count
from ssl2_bids.volume import Volume
from ssl2_bids.wording import counted

MOST_OF_BRAIN = 0.25  # marked share from which a mask is none of lesions
MOST_OUTSIDE = 0.5  # share outside of the brain from which it is not of this image
FEW_SLICES, MANY_SLICES = 2, 8  # with lesions: of a label, and of the model's mask beside it
SEVERAL, MANY = 3, 10  # lesions: a label with fewer than several, where the model marks many
ENOUGH = 1000.0  # mm^3 drawn; the Dice of less is low where a few small lesions are missed
OR_HEALTHY = (
    'the JSON of the label must state these slices (AnnotatedSlices), or all other lesions count '
    'as healthy tissue'
)
FEW = f'{{}} drawn, and the model marks {{}}: if only some slices were looked at, {OR_HEALTHY}'
UNLIKE = (
    f'the Dice is below {MIN_DICE:g}{{}}: check in a viewer that the label belongs to this scan'
)


def check_place(annotation: Annotation, brain: np.ndarray, path: Path) -> None:
    """Check that a label marks a part of the brain: brain masks and inverted masks do not.

    Parameters
    ----------
    brain : bool, on the grid of the label.

    Raises
    ------
    DataError : it marks most of the brain, or mostly what is not brain.
    """
    drawn = annotation.label.data > 0
    total, inside = np.count_nonzero(drawn), np.count_nonzero(drawn & brain)
    share = float(inside) / max(int(np.count_nonzero(brain)), 1)
    if share > MOST_OF_BRAIN:
        raise DataError(
            f'it marks {share:.0%} of the brain: no mask of lesions',
            advice='Is it a brain mask, or inverted? Give a mask that is 1 in lesions alone.',
            path=path,
        )
    if total - inside > MOST_OUTSIDE * total:
        raise DataError(
            f'{1 - inside / total:.0%} of it lies outside of the brain',
            advice='Check in a viewer that it lies on the lesions of this image.',
            path=path,
        )


def lacks_lesions(annotation: Annotation, marked: np.ndarray) -> str:
    """Why a label may lack most lesions although it is stated to be whole; else empty.

    Parameters
    ----------
    marked : bool, mask of the model on the grid of the label.
    """
    drawn = annotation.label.data > 0
    if not annotation.whole or not drawn.any():
        return ''
    lesions, of_model = map(count_lesions, (drawn, marked))
    if lesions < SEVERAL:  # there may be no more to draw
        return '' if of_model < MANY else FEW.format(counted(lesions, 'lesion'), of_model)
    for axis in range(3):
        others = tuple({0, 1, 2} - {axis})
        number, of_model = (int(part.any(axis=others).sum()) for part in (drawn, marked))
        if number <= FEW_SLICES and of_model >= MANY_SLICES:
            return (
                f'lesions are drawn in {number} of its slices, and the model marks some in '
                f'{of_model}: if only the first were looked at, {OR_HEALTHY}'
            )
    return ''


def doubts(
    annotation: Annotation,
    mask: Volume,
    *,
    brain: Volume | None = None,
    probability: Volume | None = None,
) -> list[str]:
    """What speaks against a label that is compared with the mask of a model; else nothing.

    The criteria are those by which an adaptation leaves out or doubts a label, or keeps the
    threshold because no model knows the labels.

    Parameters
    ----------
    mask, brain, probability : on the grid of the label; None where they are unknown.
    """
    if brain is not None:
        try:
            check_place(annotation, brain.data > 0, Path())
        except DataError as error:
            return [f'label in doubt: {error.message}. {error.advice}'.rstrip('.')]
    found = [lacks_lesions(annotation, mask.data > 0), _unlike(annotation, mask, probability)]
    return [f'label in doubt: {text}' for text in found if text]


def _unlike(annotation: Annotation, mask: Volume, probability: Volume | None) -> str:
    """That mask and label have hardly a voxel in common, where much is drawn; else empty."""
    drawn, seen = annotation.label.data > 0, annotation.extent.data > 0
    if np.count_nonzero(drawn) * mask.voxel_volume < ENOUGH:
        return ''
    if voxelwise.dice(drawn, (mask.data > 0) & seen) >= MIN_DICE:
        return ''
    if probability is None:
        return UNLIKE.format('')
    counts = count(
        probability.data,
        drawn,
        seen,
        participant='',
        voxel_volume=mask.voxel_volume,
        threshold=0.5,
    )
    best = counts.dice(CENTRES).max()
    return UNLIKE.format(' with any threshold') if best < MIN_DICE else ''
