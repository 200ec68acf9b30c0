"""UNIT1, T1 and T2* of a whole participant, against the values that made its images."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from phantoms import brain_image
from running_app import validate

from ssl2_bids.bids.outputs import find_summary
from ssl2_bids.errors import DataError
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.simulation.anatomy.tissues import Tissue
from ssl2_bids.simulation.scanner.protocols import read_scanner
from ssl2_bids.simulation.scanner.sequences import signals
from ssl2_bids.workflows.participant.expected_methods import expected_methods
from ssl2_bids.workflows.participant.graph import build_workflow
from ssl2_bids.workflows.participant.planned_outputs import planned_outputs
from ssl2_bids.workflows.participant.planning import plan_sessions
from ssl2_bids.workflows.participant.run import run_participant_level
from ssl2_bids.workflows.raw_scan import read_scan

PROTOCOL = read_scanner(None, 7.0).protocols['UNIT1']
SETTINGS = {
    'MagneticFieldStrength': 7,
    'RepetitionTimePreparation': PROTOCOL.tr,
    'RepetitionTimeExcitation': PROTOCOL.spacing,
    'NumberShots': list(PROTOCOL.pulses),
    'SkullStripped': True,
}
TIMES = (0.005, 0.012, 0.019, 0.026)
ANAT = 'sub-01/anat/sub-01_'


@pytest.fixture(scope='module')
def head() -> dict[str, np.ndarray]:
    """Brain, T1 in s, T2* in s and B1+ on the grid of a phantom."""
    image = brain_image()
    values = image.get_fdata()
    x = np.linspace(-1, 1, image.shape[0])[:, None, None]
    return {
        'affine': image.affine,
        'brain': values > 0,
        't1': np.where(values > 140, 2.0, np.where(values > 85, 1.2, 1.8)),
        't2star': np.where(values > 85, 0.027, 0.035),
        'b1': np.broadcast_to(1.0 + 0.35 * x, image.shape),
    }


def files_of(head: dict[str, np.ndarray]) -> dict[str, object]:
    """MP2RAGE with phases but without UNIT1, a B1+ map in percent, and four echoes."""
    rng = np.random.default_rng(0)
    brain = head['brain']

    def image(data: np.ndarray) -> nib.Nifti1Image:
        return nib.Nifti1Image(np.asarray(data, np.float32), head['affine'])

    tissue = Tissue(t1=head['t1'], t2=1.0, t2star=np.inf, density=0.8, transfer=1.0)
    coil = np.exp(1j * 0.8 * np.sin(np.arange(brain.shape[1]) / 9))[None, :, None]
    files: dict[str, object] = {}
    for number, signal in enumerate(signals(tissue, PROTOCOL, head['b1']), start=1):
        noise = 1e-4 * (rng.normal(size=brain.shape) + 1j * rng.normal(size=brain.shape))
        measured = brain * (signal * coil + noise)
        name = f'{ANAT}inv-{number}_part-'
        sidecar = SETTINGS | {
            'InversionTime': PROTOCOL.ti[number - 1],
            'FlipAngle': PROTOCOL.angles[number - 1],
        }
        files[f'{name}mag_MP2RAGE.nii.gz'] = image(np.abs(measured) * 1e4)
        files[f'{name}mag_MP2RAGE.json'] = sidecar
        files[f'{name}phase_MP2RAGE.nii.gz'] = image(np.angle(measured))
        files[f'{name}phase_MP2RAGE.json'] = {'Units': 'rad'}
    files['sub-01/fmap/sub-01_TB1map.nii.gz'] = image(100 * head['b1'])
    for number, time in enumerate(TIMES, start=1):
        decay = brain * 1000 * np.exp(-time / head['t2star'])
        files[f'{ANAT}echo-{number}_MEGRE.nii.gz'] = image(decay)
        files[f'{ANAT}echo-{number}_MEGRE.json'] = {'EchoTime': time, 'SkullStripped': True}
    return files


def settings_of(root, tmp_path) -> ParticipantSettings:
    return ParticipantSettings(root, tmp_path / 'out', tmp_path / 'work', device='cpu')


def test_a_participant_without_unit1_gets_it_with_maps_of_t1_and_t2star(
    make_dataset, tmp_path, head
):
    settings = settings_of(make_dataset(files_of(head)), tmp_path)
    (plan,) = plan_sessions(replace(settings, dry_run=True))
    assert run_participant_level(settings)[0] == 0
    anat = settings.output_dir / 'sub-01' / 'anat'
    brain = head['brain']

    t1 = nib.load(anat / 'sub-01_desc-B1corr_T1map.nii.gz').get_fdata()
    assert np.median(np.abs(t1[brain] / head['t1'][brain] - 1)) < 0.02
    assert np.percentile(np.abs(t1[brain] / head['t1'][brain] - 1), 95) < 0.06
    sidecar = json.loads((anat / 'sub-01_desc-B1corr_T1map.json').read_text())
    assert sidecar['Units'] == 's'
    assert 'bids:raw:sub-01/fmap/sub-01_TB1map.nii.gz' in sidecar['Sources']

    # the background of the inversions is zero here
    denoised = json.loads((anat / 'sub-01_desc-denoised_UNIT1.json').read_text())
    assert denoised['Description'] == (
        'UNIT1 with the zero background of INV2, no noise removed, in the head the values at '
        'nominal B1+ (by the B1+ map), 0 to 4095.'
    )

    t2star = nib.load(anat / 'sub-01_desc-fit_T2starmap.nii.gz').get_fdata()
    assert t2star[brain] == pytest.approx(head['t2star'][brain], rel=0.01)

    quality = json.loads((anat / 'sub-01_mod-UNIT1_quality.json').read_text())
    assert quality['tissue_snr'] is None
    assert 0.8 < quality['t1_wm'] < 1.7

    # at nominal B1+ all tissue of one T1 looks alike, on the left and on the right
    unit1 = nib.load(anat / 'sub-01_desc-preproc_UNIT1.nii.gz').get_fdata()
    left, right = (
        unit1[part & brain & (head['t1'] == 1.2)]
        for part in (head['b1'] < 0.85, head['b1'] > 1.15)
    )
    assert np.median(left) == pytest.approx(np.median(right), rel=0.02)
    summary = find_summary(plan.names)
    assert expected_methods(plan) == summary['methods']
    page = (settings.output_dir / 'sub-01.html').read_text()
    assert 'UNIT1 is computed from it' in page
    assert 'computed from magnitude and phase' in page
    assert validate(settings.output_dir) == []


def test_unit1_and_t1_map_of_the_scanner_without_inversions(make_dataset, tmp_path, head):
    unit1 = np.where(head['brain'], 4095 * (2.2 - head['t1']) / 1.2, 0).clip(0, 4095)
    files = {
        f'{ANAT}UNIT1.nii.gz': nib.Nifti1Image(unit1.astype(np.float32), head['affine']),
        f'{ANAT}UNIT1.json': {'MagneticFieldStrength': 7, 'SkullStripped': True},
        f'{ANAT}T1map.nii.gz': nib.Nifti1Image(
            (1000 * head['t1'] * head['brain']).astype(np.float32), head['affine']
        ),
    }
    settings = settings_of(make_dataset(files), tmp_path)
    (plan,) = plan_sessions(replace(settings, dry_run=True))
    made = read_scan(plan.session.scans['UNIT1'])
    found = made.maps['T1map'].data
    assert np.allclose(found[head['brain']], head['t1'][head['brain']], atol=1e-3)
    names = [path.name for path in planned_outputs(plan)]
    assert 'sub-01_desc-scanner_T1map.nii.gz' in names
    assert not any('denoised' in name for name in names)


def test_the_memory_set_aside_grows_with_the_images(make_dataset, tmp_path, head):
    (plan,) = plan_sessions(settings_of(make_dataset(files_of(head)), tmp_path))
    scans = plan.session.scans
    assert scans['UNIT1'].voxels == scans['T2starw'].voxels == head['brain'].size

    def memory(voxels: int) -> dict[str, float]:
        larger = {c: replace(scan, voxels=voxels) for c, scan in scans.items()}
        asked = replace(plan, session=replace(plan.session, scans=larger))
        workflow = build_workflow([asked], asked.settings, device='cpu', command='')
        found = (workflow.get_node(name) for name in workflow.list_node_names())
        return {node.name: node.mem_gb for node in found if not node.run_without_submitting}

    usual, large = memory(256 * 256 * 160), memory(320 * 448 * 448)
    assert usual['prepare_UNIT1'] == pytest.approx(1.4, abs=0.1)
    assert usual['inhomogeneity_T2starw'] == 1.0
    # peaks that were measured: 4.86 with a B1+ map, N4 1.9, registration 2.5, and the libraries
    assert large['prepare_UNIT1'] > 4.86
    assert large['inhomogeneity_UNIT1'] > 2.3
    assert large['register_T2starw'] > 2.9
    assert all(large[name] >= least for name, least in usual.items())


@pytest.mark.parametrize(
    ('factor', 'text'),
    [(-1000, 'no value above 0'), (1000, 'voxels of the T1 map are below 0 and were set to 0')],
)
def test_a_t1_map_with_values_below_zero(make_dataset, tmp_path, head, factor, text):
    stored = factor * head['t1'] * head['brain']
    stored[: stored.shape[0] // 2] *= -1 if factor > 0 else 1
    files = {
        f'{ANAT}UNIT1.nii.gz': nib.Nifti1Image(
            np.where(head['brain'], 2000 + 900 * head['t1'], 0).astype(np.float32), head['affine']
        ),
        f'{ANAT}UNIT1.json': {'MagneticFieldStrength': 7, 'SkullStripped': True},
        f'{ANAT}T1map.nii.gz': nib.Nifti1Image(stored.astype(np.float32), head['affine']),
    }
    (plan,) = plan_sessions(settings_of(make_dataset(files), tmp_path))
    if factor < 0:
        with pytest.raises(DataError, match=text) as error:
            read_scan(plan.session.scans['UNIT1'])
        assert 'T1map' in str(error.value)
    else:
        (warning,) = read_scan(plan.session.scans['UNIT1']).warnings
        assert text in warning
        assert warning.startswith('sub-01_T1map.nii.gz: ')


def test_a_b1_map_of_a_part_of_the_head_gives_a_warning(make_dataset, tmp_path, head):
    files = files_of(head)
    low = head['brain'].shape[2] // 3
    part = head['affine'].copy()
    part[:3, 3] += part[:3, 2] * low
    files['sub-01/fmap/sub-01_TB1map.nii.gz'] = nib.Nifti1Image(
        np.asarray(100 * head['b1'][:, :, low:], np.float32), part
    )
    (plan,) = plan_sessions(settings_of(make_dataset(files), tmp_path))
    (warning,) = read_scan(plan.session.scans['UNIT1']).warnings
    assert warning.startswith('sub-01_TB1map.nii.gz: the B1+ map covers')


def test_settings_and_b1_map_are_part_of_the_key(make_dataset, tmp_path, head):
    files = files_of(head)
    settings = settings_of(make_dataset(files), tmp_path)
    (first,) = plan_sessions(settings)
    key = f'{ANAT}inv-2_part-mag_MP2RAGE.json'
    files[key] = {**files[key], 'FlipAngle': 4}
    make_dataset(files)
    (second,) = plan_sessions(settings)
    assert first.preprocessing != second.preprocessing
    files['sub-01/fmap/sub-01_TB1map.nii.gz'] = nib.Nifti1Image(
        np.full(head['brain'].shape, 90, np.float32), head['affine']
    )
    make_dataset(files)
    (third,) = plan_sessions(settings)
    assert second.preprocessing != third.preprocessing
