"""What is known of a brain mask reaches sidecar, summary and the cohort's table."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from phantoms import brain_image, turned

from ssl2_bids.errors import DataError
from ssl2_bids.steps.brain_check import Flag
from ssl2_bids.steps.template import template
from ssl2_bids.volume import Volume, read, write
from ssl2_bids.workflows.cohort.tables import _brain_flags
from ssl2_bids.workflows.participant import brain_nodes

FLAGS = [
    Flag('vertex', 0.2, 0.8, 'the brain mask covers only 20% of the vertex').as_json(),
    Flag('volume', 500.0, 600.0, 'the brain mask has 500 mL, outside 600 to 2200 mL').as_json(),
]


def test_the_table_has_the_flags_of_the_sidecar_but_not_the_volume_twice(tmp_path):
    names = SimpleNamespace(path=lambda _: tmp_path / 'sub-01_desc-brain_mask.nii.gz')
    result = SimpleNamespace(names=names)
    assert _brain_flags(result) == []  # a result of a former version
    sidecar = tmp_path / 'sub-01_desc-brain_mask.json'
    sidecar.write_text(json.dumps({'BrainMaskFlags': FLAGS}))
    assert _brain_flags(result) == ['the brain mask covers only 20% of the vertex']
    sidecar.write_text('{"BrainMaskFlags": 3}')
    assert _brain_flags(result) == []


def test_the_node_reports_who_voted_and_why_another_did_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = template()
    affine = model.affine @ np.diag([4.0, 4.0, 4.0, 1.0])
    image = Volume(model.data[::4, ::4, ::4].astype(np.float32), affine)
    mask = image.with_data((image.data > 0).astype(np.uint8))
    half = mask.with_data(mask.data * (np.arange(mask.shape[0]) < 22)[:, None, None])
    write(image, 'image.nii')
    write(mask, 'one.nii', dtype=np.uint8)
    write(half, 'other.nii', dtype=np.uint8)
    np.save('way.npy', np.eye(4))
    made = brain_nodes.expect_brain('image.nii', 'one.nii', 'T1w', seed=0, raw='raw.nii')
    fit = made['expected']
    made = brain_nodes.join_brains(
        'image.nii', ['T1w', 'FLAIR'], ['one.nii', 'other.nii'], ['way.npy'], fit, given=''
    )
    facts = json.loads((tmp_path / 'facts.json').read_text())
    write(image.with_data(np.zeros(image.shape, np.float32)), 'black.nii')
    with pytest.raises(DataError) as caught:
        brain_nodes.expect_brain('black.nii', 'one.nii', 'T1w', seed=0, raw='raw.nii')
    assert caught.value.path == 'raw.nii'
    assert facts['voters'] == ['T1w']
    assert list(facts['without_vote']) == ['FLAIR']
    assert facts['warnings'] == []  # the quality of the FLAIR has the reason
    assert np.array_equal(read(made['mask']).data, mask.data)
    assert facts['methods'] == ['']
    assert not any('--brain-mask' in text for text in facts['warnings'])

    brain_nodes.join_brains(
        'image.nii', ['T1w', 'FLAIR'], ['one.nii', 'other.nii'], ['way.npy'], fit, given='FLAIR'
    )
    facts = json.loads((tmp_path / 'facts.json').read_text())
    assert facts['voters'] == ['FLAIR']
    assert facts['without_vote'] == {}
    assert 'asymmetric' in [flag['Code'] for flag in facts['flags']]
    assert any('--brain-mask takes a corrected one' in text for text in facts['warnings'])
    assert np.array_equal(read(tmp_path / 'mask.nii').data, half.data)


def test_a_given_mask_is_taken_on_the_axes_of_the_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = brain_image()
    image.to_filename('image.nii')
    data = np.zeros(image.shape, np.uint8)
    data[10:30, 12:40, 8:30] = 255
    turned(data, image.affine, 'LPS').to_filename('given.nii')
    rest = {'source': '', 'contrast': 'FLAIR', 'mode': 'auto', 'stripped': None, 'threads': 1}
    made = brain_nodes.find_brain('image.nii', **rest, given='given.nii')
    found = read(made['mask'])
    assert np.array_equal(found.data, data > 0)
    facts = json.loads((tmp_path / 'facts.json').read_text())
    assert facts['brain_only'] is True
    assert facts['methods'] == ['The brain mask was given by the user.']
    assert facts['warnings'] == []
    data[12, 14, 10] = 3
    turned(data, image.affine, 'LPS').to_filename('several.nii')
    brain_nodes.find_brain('image.nii', **rest, given='several.nii')
    (warning,) = json.loads((tmp_path / 'facts.json').read_text())['warnings']
    assert 'the brain mask has several values' in warning
    turned(data * 0, image.affine, 'LPS').to_filename('empty.nii')
    with pytest.raises(DataError, match='the brain mask is empty') as caught:
        brain_nodes.find_brain('image.nii', **rest, given='empty.nii')
    assert caught.value.path == 'empty.nii'
