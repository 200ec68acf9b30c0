"""``--sloppy``: quick and marked, never taken for a usual result."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import brain_image, turned
from running_app import validate

from ssl2_bids.bids.sidecars import SLOPPY as MARK
from ssl2_bids.errors import NoInputError
from ssl2_bids.settings import PREPROCESSING, GroupSettings, ParticipantSettings, deciding
from ssl2_bids.workflows.cohort.run import run_group_level
from ssl2_bids.workflows.export.run import export
from ssl2_bids.workflows.participant.planning import plan_sessions
from ssl2_bids.workflows.participant.run import run_participant_level
from ssl2_bids.workflows.participant.sloppy import SETTINGS, WARNING

FLAIR = 'sub-01/anat/sub-01_FLAIR.nii.gz'
RESULT = 'sub-01/anat/sub-01_space-FLAIR'


def settings_of(root: Path, folder: Path) -> ParticipantSettings:
    return ParticipantSettings(root, folder / 'out', folder / 'work', device='cpu', threshold=0.1)


def status_of(settings: ParticipantSettings) -> str:
    code, (outcome,) = run_participant_level(settings)
    assert code == 0, outcome.reason
    return outcome.status


def sidecar_of(settings: ParticipantSettings, name: str = f'{RESULT}_label-L_mask') -> dict:
    return json.loads((settings.output_dir / f'{name}.json').read_text())


def remarks_of(settings: ParticipantSettings) -> str:
    """What the table of the cohort states on the quality of the only result."""
    group = GroupSettings(settings.bids_dir, settings.output_dir, settings.work_dir)
    assert run_group_level(group) == 0
    with open(settings.output_dir / 'group_lesions.tsv', newline='') as stream:
        (row,) = csv.DictReader(stream, delimiter='\t')
    return row['quality']


def test_the_hash_of_a_usual_run_does_not_know_the_option(make_dataset, tmp_path):
    settings = settings_of(make_dataset([FLAIR]), tmp_path)
    assert deciding(settings, PREPROCESSING).keys() == {'random_seed', 'skull_strip'}
    (usual,) = plan_sessions(settings)
    (sloppy,) = plan_sessions(replace(settings, sloppy=True))
    assert usual.preprocessing != sloppy.preprocessing
    assert usual.configuration != sloppy.configuration


def test_every_setting_is_one_of_its_node():
    from inspect import signature

    from ssl2_bids.workflows.participant import brain_nodes, nodes

    every = vars(nodes) | vars(brain_nodes)
    for node, arguments in SETTINGS.items():
        assert arguments.keys() <= signature(every[node]).parameters.keys()


@pytest.fixture(scope='module')
def sloppy(tmp_path_factory) -> ParticipantSettings:
    """One participant with a FLAIR that is thinned by two, on axes that are not RAS."""
    root = tmp_path_factory.mktemp('sloppy')
    (root / 'data/sub-01/anat').mkdir(parents=True)
    description = {'Name': 'x', 'BIDSVersion': '1.10.0'}
    (root / 'data/dataset_description.json').write_text(json.dumps(description))
    image = brain_image(1.3)
    stored = turned(np.asarray(image.dataobj), image.affine, 'PIR', angles=(0.1, 0.0, 0.05))
    stored.to_filename(root / 'data' / FLAIR)
    return replace(settings_of(root / 'data', root), sloppy=True)


@pytest.mark.slow
def test_sloppy_and_usual_results_by_turns(sloppy, caplog):
    """The steps of one story, for each run costs seconds."""
    assert status_of(sloppy) == 'done'
    assert WARNING in caplog.text
    sidecars = sorted(path.stem for path in sloppy.output_dir.glob('sub-01/anat/*.json'))
    assert 'sub-01_space-FLAIR_label-L_morph' in sidecars
    assert all(sidecar_of(sloppy, f'sub-01/anat/{name}')[MARK] is True for name in sidecars)
    page = sloppy.output_dir / 'sub-01.html'
    assert WARNING in page.read_text()
    assert 'Settings of low quality' in page.read_text()
    assert status_of(sloppy) == 'finished before'

    # on the grid of the scan, table and image agree, and the brain is where it is
    raw = nib.load(sloppy.bids_dir / FLAIR)
    brain = nib.load(sloppy.output_dir / 'sub-01/anat/sub-01_desc-brain_mask.nii.gz')
    assert brain.shape == raw.shape
    assert brain.affine == pytest.approx(raw.affine)
    found, truth = np.asarray(brain.dataobj) > 0, raw.get_fdata() > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.97
    instances = np.asarray(
        nib.load(f'{sloppy.output_dir}/{RESULT}_seg-lesions_dseg.nii.gz').dataobj
    )
    with open(f'{sloppy.output_dir}/{RESULT}_seg-lesions_dseg.tsv', newline='') as stream:
        counts = [int(row['voxel_count']) for row in csv.DictReader(stream, delimiter='\t')]
    assert counts
    assert counts == np.bincount(instances.ravel())[1:].tolist()
    assert validate(sloppy.output_dir) == []

    # the group level shows it, and does not adapt to it
    assert WARNING in remarks_of(sloppy)
    assert WARNING in (sloppy.output_dir / 'group_report.html').read_text()
    group = GroupSettings(sloppy.bids_dir, sloppy.output_dir, sloppy.work_dir)
    with pytest.raises(NoInputError, match='without --sloppy'):
        run_group_level(replace(group, strategy='self_training'))
    assert 'sub-01: left out of the adaptation' in caplog.text

    # nor is it exported
    (exported,) = export(sloppy.output_dir, sloppy.bids_dir, 'filled')
    assert WARNING in str(exported.error)

    usual = replace(sloppy, sloppy=False)
    assert status_of(usual) == 'done'
    assert MARK not in sidecar_of(usual)
    assert WARNING not in page.read_text()
    assert WARNING not in remarks_of(usual)
    fine = (sloppy.output_dir / f'{RESULT}_label-L_probseg.nii.gz').read_bytes()
    assert status_of(usual) == 'finished before'

    summary = (sloppy.output_dir / 'sub-01/figures/sub-01_desc-summary_report.json').read_bytes()
    code, (outcome,) = run_participant_level(sloppy)
    assert code == 1
    assert 'there is a result of a usual run' in outcome.reason
    assert (sloppy.output_dir / f'{RESULT}_label-L_probseg.nii.gz').read_bytes() == fine
    again = sloppy.output_dir / 'sub-01/figures/sub-01_desc-summary_report.json'
    assert again.read_bytes() == summary
    assert status_of(replace(sloppy, overwrite=True)) == 'done'
    assert sidecar_of(sloppy)[MARK] is True
    assert (sloppy.output_dir / f'{RESULT}_label-L_probseg.nii.gz').read_bytes() != fine


def test_a_given_brain_mask_is_thinned_too(make_dataset, tmp_path):
    image = brain_image(1.3)
    root = make_dataset({FLAIR: image})
    inside = np.asarray(image.dataobj) > 0
    inside[:40] = False
    mask = nib.Nifti1Image(inside.astype(np.uint8), image.affine)
    make_dataset({'sub-01/anat/sub-01_desc-brain_mask.nii.gz': mask}, 'masks')
    settings = replace(settings_of(root, tmp_path), sloppy=True, brain_mask=tmp_path / 'masks')
    assert status_of(settings) == 'done'
    found = nib.load(settings.output_dir / 'sub-01/anat/sub-01_desc-brain_mask.nii.gz')
    agreeing = (np.asarray(found.dataobj) > 0) == inside
    assert agreeing.mean() > 0.98
