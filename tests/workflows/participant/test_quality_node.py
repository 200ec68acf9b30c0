"""What the node of image quality makes of a session: numbers, flags, warnings."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ssl2_bids.files import write_json
from ssl2_bids.steps.template import template
from ssl2_bids.volume import Volume, read, write
from ssl2_bids.workflows.participant.distortion import measure_distortion
from ssl2_bids.workflows.participant.quality import measure_quality, quality_sidecar

JOINT = {
    'flags': [],
    'warnings': [],
    'without_vote': {},
    'coverage': {'T1w': 1.0, 'FLAIR': 0.6},
    'agreement': {'T1w': 0.98, 'FLAIR': 0.95},
}
REGISTRATION = {'nmi': 1.11, 'nmi_before': 1.05, 'shift': 3.0, 'rotation': 1.0}


@pytest.fixture
def session(tmp_path, monkeypatch) -> dict[str, object]:
    """The inputs of the node for an image that is the template itself, in files."""
    monkeypatch.chdir(tmp_path)
    model = template()
    data = model.data[::2, ::2, ::2].astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.02 * data.max(), data.shape)
    image = Volume(
        np.where(data > 0, np.abs(data + noise), 0).astype(np.float32),
        model.affine @ np.diag([2.0, 2.0, 2.0, 1.0]),
    )
    write(image, 'image.nii')
    write(image.with_data(data > 0), 'mask.nii', dtype=np.uint8)
    np.save('way.npy', np.eye(4))
    write_json('brain.json', {'brain_only': True})
    write_json('joint.json', JOINT)
    write_json('template.json', {'dice': 0.97})
    write_json('register.json', {'registration': REGISTRATION})
    return {
        'acquired': 'image.nii',
        'corrected': 'image.nii',
        'maps': {},
        'brain_facts': 'brain.json',
        'brain_mask': 'mask.nii',
        'joint_facts': 'joint.json',
        'matrix': '',
        'register_facts': '',
        'distortion_facts': '',
        'template_matrix': 'way.npy',
        'template_facts': 'template.json',
        'contrast': 'T1w',
        'field_strength': 3.0,
        'frequency': None,
        'is_corrected': True,
    }


def measured(session, **changes) -> tuple[dict, list[str]]:
    """The content of the JSON, and the warnings."""
    made = measure_quality(**(session | changes))
    facts = json.loads(open(made['facts']).read())
    content = json.loads(open(made['quality']).read())
    return content, facts['warnings']


def test_a_good_reference(session):
    content, warnings = measured(session)
    assert content['Flags'] == []
    assert warnings == []
    metrics = content['Metrics']
    assert metrics['wm2gm'] > 1.1
    assert (metrics['coverage'], metrics['template_dice']) == (1, 0.97)
    assert metrics['registration_nmi'] is None
    assert content['NotAvailable']['registration_nmi'] == 'the image is the reference'
    about = {'description': 'd', 'sources': ['s'], 'contrast': 'T1w', 'field_strength': 3.0}
    sidecar = quality_sidecar(content, **about)
    assert sidecar['wm2gm'] == metrics['wm2gm']
    assert 'Metrics' not in sidecar


def test_a_misnamed_image_with_a_short_field_of_view(session):
    other = {'contrast': 'FLAIR', 'matrix': 'way.npy', 'register_facts': 'register.json'}
    content, warnings = measured(session, **other)
    assert [flag['Code'] for flag in content['Flags']] == ['contrast', 'coverage']
    assert warnings == [f'FLAIR: {flag["Text"]}' for flag in content['Flags']]
    assert warnings[0].startswith('FLAIR: the contrast is that of a T1w image')
    assert content['NotAvailable']['template_dice'] == 'the image is not the reference'
    assert content['Metrics']['registration_shift'] == 3
    assert content['NotAvailable']['distortion_high'] == 'it is measured at 7T'


def test_page_and_file_have_the_same_reasons_each_once(session):
    """Also where the brain mask of the session is doubted, and where that of the image is."""
    other = {'contrast': 'FLAIR', 'matrix': 'way.npy', 'register_facts': 'register.json'}
    doubted = {
        'flags': [{'Code': 'large', 'Value': 1.3, 'Threshold': 1.1}],
        'agreement': {'T1w': 0.98, 'FLAIR': 0.8},
    }
    for without_vote, text in (
        ({}, 'its own brain mask differs from that of the session: Dice 0.80'),
        ({'FLAIR': 'too small'}, 'its brain mask was not used: too small'),
    ):
        write_json('joint.json', JOINT | doubted | {'without_vote': without_vote})
        write_json('brain.json', {'brain_only': True, 'doubts': ['the air is zero']})
        content, warnings = measured(session, **other)
        codes = [flag['Code'] for flag in content['Flags']]
        assert sorted(codes) == ['brain-mask', 'contrast', 'coverage', 'zero-air']
        assert warnings == [f'FLAIR: {flag["Text"]}' for flag in content['Flags']]
        assert f'FLAIR: {text}' in warnings


def test_an_image_that_cuts_the_mask_of_the_session_is_flagged(session):
    """Also where the template does not fit, and nothing else knows the brain."""
    shift = np.eye(4)
    shift[2, 3] = 80
    np.save('shift.npy', shift)
    write_json('joint.json', JOINT | {'coverage': {}})
    content, warnings = measured(
        session, contrast='FLAIR', matrix='shift.npy', register_facts='register.json'
    )
    assert content['Metrics']['coverage'] < 0.9
    assert 'coverage' in [flag['Code'] for flag in content['Flags']]
    assert any('the field of view shows only' in text for text in warnings)


def test_distortion_against_the_reference(session):
    other = {
        'contrast': 'FLAIR',
        'matrix': 'way.npy',
        'register_facts': 'register.json',
        'distortion_facts': 'distortion.json',
    }
    write_json('joint.json', JOINT | {'coverage': {}})
    write_json('distortion.json', {'distortion': {'median': 1.1, 'high': 2.5}})
    content, warnings = measured(session, **other)
    assert content['Metrics']['distortion_median'] == 1.1
    assert content['Metrics']['distortion_high'] == 2.5
    assert 'distortion' in [flag['Code'] for flag in content['Flags']]
    assert any('up to 2.5 mm' in text for text in warnings)
    write_json('distortion.json', {'distortion': {'reason': 'nothing overlaps'}})
    content, _ = measured(session, **other)
    assert content['NotAvailable']['distortion_high'] == 'nothing overlaps'


def test_an_image_without_contrast_costs_only_the_measure(session):
    write(read('image.nii').with_data(np.ones(read('image.nii').shape)), 'constant.nii')
    made = measure_distortion('image.nii', 'constant.nii', 'mask.nii', 'FLAIR', 1)
    facts = json.loads(open(made['facts']).read())
    assert 'constant' in facts['distortion']['reason']
    assert facts['methods'] == []
    assert not read(made['distortion']).data.any()
    made = measure_distortion('image.nii', 'image.nii', 'mask.nii', 'FLAIR', 1)
    facts = json.loads(open(made['facts']).read())
    assert facts['distortion']['high'] < 0.2
    assert len(facts['methods']) == 1


def test_a_field_strength_against_the_frequency(session):
    content, warnings = measured(session, field_strength=7.0, frequency=123.25)
    assert [flag['Code'] for flag in content['Flags']] == ['field']
    assert 'that of 2.9 T' in warnings[0]


def test_an_image_that_cannot_be_measured_costs_nothing_but_its_metrics(session, tmp_path):
    write(Volume(np.ones((4, 4, 4), np.float32), np.eye(4)), tmp_path / 'small.nii')
    content, warnings = measured(session, acquired='small.nii')
    assert 'could not be measured' in content['NotAvailable']['all']
    assert content['Metrics']['coverage'] == 1
    assert warnings == []
