"""Names of the scores of an adaptation, and what each of them is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """One score of a segmentation against a manual mask.

    Attributes
    ----------
    title : a few words for pages.
    description : what it is, for sidecars.
    """

    title: str
    description: str


SCORES: dict[str, Score] = {
    'dice': Score('Dice', 'Dice coefficient of the voxels'),
    'lesion_f1': Score(
        'Lesion F1',
        'lesion F1, any overlap; n/a where annotated in part, and where no labelled lesion has '
        'the minimum volume',
    ),
    'lesion_sensitivity': Score(
        'Lesion sensitivity', 'share of the labelled lesions that were detected; n/a likewise'
    ),
    'lesion_precision': Score(
        'Lesion precision', 'share of the detected lesions that were labelled; n/a likewise'
    ),
    'volume_bias': Score(
        'Volume bias', '(found - drawn) / drawn volume; negative where too little was found'
    ),
}
