"""The public face: what it offers, that it is light, and its joins, which vote no brain mask."""

import doctest
import subprocess
import sys

import numpy as np
import pytest

import ssl2_bids as s2
from ssl2_bids import notebook
from ssl2_bids.errors import DataError, UsageError


def test_every_public_name_is_there_and_documented():
    assert len(s2.__all__) <= 16
    for name in s2.__all__:
        assert getattr(s2, name).__doc__, name
        assert name in dir(s2)
    with pytest.raises(AttributeError, match='no_such_name'):
        _ = s2.no_such_name


def test_importing_it_is_light():
    heavy = ('torch', 'monai', 'nipype', 'bids', 'SimpleITK', 'nilearn', 'scipy', 'numpy')
    code = f'import sys, ssl2_bids; print([n for n in {heavy} if n in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_examples_of_the_docstrings():
    failed, tried = doctest.testmod(notebook)
    assert tried >= 8
    assert failed == 0


def test_files_of_a_volume(tmp_path):
    path = tmp_path / 'sub-01_acq-x_FLAIR.nii.gz'
    values = np.arange(6000, dtype=np.float32).reshape(20, 20, 15)
    s2.write_volume(s2.Volume(values, np.diag([1, 1, 2, 1.0])), path)
    read = s2.read_volume(path)
    assert read.contrast == 'FLAIR'
    assert np.array_equal(read.data, values)
    assert s2.read_volume(path, contrast='T2w').contrast == 'T2w'


def test_masks_of_different_grids_are_not_compared():
    mask = np.zeros((10, 10, 10), np.uint8)
    with pytest.raises(s2.Ssl2Error, match='grids differ'):
        s2.evaluate(s2.Volume(mask, np.eye(4)), s2.Volume(mask, np.diag([1, 1, 2, 1.0])))


def test_a_contrast_that_the_scanner_does_not_have():
    with pytest.raises(s2.Ssl2Error, match='no protocol for UNIT1'):
        s2.simulate_head(field=3.0, contrasts=('UNIT1',))


def test_from_a_simulated_head_to_scores():
    head = s2.simulate_head(seed=1, field=1.5, contrasts=('FLAIR',))
    flair = s2.preprocess(head.images['FLAIR'], skull_strip='skip')
    again = s2.register(flair, flair)
    assert np.allclose(again, np.eye(4), atol=0.02)  # mm
    lesions = s2.segment(flair, model=s2.load_model('fast-3t'), device='cpu')
    assert lesions.mask.shape == head.lesions.shape
    scores = s2.evaluate(head.lesions, lesions.mask)
    assert 0.3 < scores.voxels.dice < 1
    assert scores.lesions.f1 > 0


def test_two_images_of_one_contrast_are_refused():
    image = s2.Volume(np.ones((8, 8, 8), np.float32), np.eye(4), 'FLAIR')
    one = s2.Preprocessed(image, s2.Volume(np.ones((8, 8, 8), np.uint8), np.eye(4)))
    t1w = s2.Preprocessed(s2.Volume(image.data, np.eye(4), 'T1w'), one.brain_mask)
    with pytest.raises(UsageError, match='two images are of the contrast FLAIR'):
        s2.segment(one, t1w, one, device='cpu')


def test_a_file_that_is_missing_is_an_error_of_data(tmp_path):
    with pytest.raises(DataError, match='no such file'):
        s2.read_volume(tmp_path / 'sub-01_FLAIR.nii.gz')
