"""Labels that can hardly be those of lesions of their scan are scored, with a note."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssl2_bids.cli.tools.app import main
from ssl2_bids.volume import Volume, write
from ssl2_bids.workflows.evaluation.run import evaluate

SHAPE = (40, 40, 40)
BRAIN = np.zeros(SHAPE, np.uint8)
BRAIN[2:38, 2:38, 2:38] = 1
NAME = 'sub-01/anat/sub-01_'


def boxes(*starts: tuple[int, int, int], edge: int = 7) -> np.ndarray:
    data = np.zeros(SHAPE, np.uint8)
    for start in starts:
        data[tuple(slice(n, n + edge) for n in start)] = 1
    return data


LESIONS = boxes((4, 6, 6), (4, 20, 10), (6, 8, 26), (8, 25, 25))
IN_TWO_SLICES = boxes((4, 6, 6), (4, 20, 6), (20, 8, 6)) * np.isin(np.arange(40), (7, 8))
SMALL = boxes((30, 6, 6), (30, 20, 10), (30, 8, 26), edge=3)


def put(path: Path, data: np.ndarray, dtype: type = np.uint8) -> None:
    write(Volume(data.astype(dtype), np.diag([1.0, 1, 1, 1])), path, dtype=dtype)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """The result of a model, and a folder for a label."""
    out = tmp_path / 'out'
    put(out / f'{NAME}space-FLAIR_label-L_mask.nii.gz', LESIONS)
    put(out / f'{NAME}space-FLAIR_label-L_probseg.nii.gz', 0.9 * LESIONS, np.float32)
    put(out / f'{NAME}desc-brain_mask.nii.gz', BRAIN)
    return out, tmp_path / 'labels'


def one_slice() -> np.ndarray:
    data = np.zeros(SHAPE, np.uint8)
    data[:, :, 3] = BRAIN[:, :, 3]
    return data


@pytest.mark.parametrize(
    ('label', 'text'),
    [
        (BRAIN - LESIONS, 'it marks 97% of the brain: no mask of lesions. Is it a brain mask'),
        (1 - LESIONS, 'of the brain: no mask of lesions. Is it a brain mask, or inverted?'),
        (1 - BRAIN, '100% of it lies outside of the brain. Check in a viewer'),
        (LESIONS[::-1], 'the Dice is below 0.15 with any threshold: check in a viewer that'),
        (one_slice(), 'the Dice is below 0.15 with any threshold: check in a viewer that'),
        (IN_TWO_SLICES, 'lesions are drawn in 2 of its slices, and the model'),
        (SMALL, ''),
        (np.maximum(SMALL, boxes((4, 6, 6), (4, 20, 10))), ''),
        (LESIONS, ''),
        (np.zeros(SHAPE), ''),
    ],
)
def test_doubts_are_those_of_a_recalibration(folders, capsys, label, text):
    out, labels = folders
    put(labels / f'{NAME}label-lesion_mask.nii.gz', label)
    found = [note for note in evaluate(out, labels).notes if 'label in doubt' in note]
    assert len(found) == bool(text), found
    assert all(note.startswith('sub-01: label in doubt: ') and text in note for note in found)
    assert main(['evaluate', str(out), str(labels)]) == 0
    assert text in capsys.readouterr().err


def test_lesions_that_a_lower_threshold_would_mark_are_no_doubt(folders):
    out, labels = folders
    put(labels / f'{NAME}label-lesion_mask.nii.gz', LESIONS)
    mask = out / f'{NAME}space-FLAIR_label-L_mask.nii.gz'
    put(mask, LESIONS[::-1])
    assert not evaluate(out, labels).notes
    (out / f'{NAME}space-FLAIR_label-L_probseg.nii.gz').unlink()
    (note,) = evaluate(out, labels).notes
    assert 'the Dice is below 0.15: check in a viewer' in note


def test_a_label_of_one_or_two_lesions_beside_many_of_the_model(folders):
    out, labels = folders
    many = [(x, y, z) for x in (5, 15, 25) for y in (5, 15) for z in (5, 25)]
    put(out / f'{NAME}space-FLAIR_label-L_mask.nii.gz', boxes(*many, edge=4))
    put(labels / f'{NAME}label-lesion_mask.nii.gz', boxes(*many[:2], edge=4))
    (note,) = evaluate(out, labels).notes
    assert '2 lesions drawn, and the model marks 12: if only some slices were' in note
