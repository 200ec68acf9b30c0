"""What decides a result is in its key, and results of an earlier choice do not count twice."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import brain_image

from ssl2_bids.errors import DataError, NoInputError
from ssl2_bids.files import PREFIX, write_json
from ssl2_bids.networks.weights import find_model
from ssl2_bids.settings import GroupSettings, ParticipantSettings
from ssl2_bids.workflows.cohort.run import run_group_level
from ssl2_bids.workflows.current_results import OUT_OF_DATE
from ssl2_bids.workflows.participant.pages import WITHDRAWN, write_pages
from ssl2_bids.workflows.participant.plan import needs_correction
from ssl2_bids.workflows.participant.planning import is_finished, plan_sessions
from ssl2_bids.workflows.participant.run import run_participant_level

FLAIR = 'sub-01/anat/sub-01_FLAIR.nii'
T1W = 'sub-01/anat/sub-01_T1w.nii'


@pytest.fixture
def settings(make_dataset, tmp_path) -> ParticipantSettings:
    """One participant with FLAIR and T1w, uncompressed: equal grids have equal sizes."""
    root = make_dataset({FLAIR: brain_image(), T1W: brain_image(seed=1)})
    return settings_of(root, tmp_path)


def settings_of(root: Path, folder: Path) -> ParticipantSettings:
    return ParticipantSettings(root, folder / 'out', folder / 'work', device='cpu')


def hashes(settings: ParticipantSettings) -> tuple[str, str]:
    """Of the preprocessing, and of the result."""
    (plan,) = plan_sessions(settings)
    return plan.preprocessing, plan.configuration


def replace_silently(path: Path, image: nib.Nifti1Image) -> None:
    """Another image under the same name, of equal size and with the former time stamp."""
    before = path.stat()
    path.write_bytes(image.to_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_another_image_of_equal_name_size_and_time_is_another_result(settings):
    first = hashes(settings)
    replace_silently(settings.bids_dir / FLAIR, brain_image(seed=7))
    second = hashes(settings)
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_the_content_of_a_given_brain_mask_decides(settings, tmp_path):
    folder = tmp_path / 'masks'
    folder.mkdir()
    without = hashes(settings)
    asked = replace(settings, brain_mask=folder)
    assert hashes(asked) == without
    (plan,) = plan_sessions(asked)
    assert plan.session.warnings[-1].startswith('no mask for this session')
    path = folder / 'sub-01_desc-brain_mask.nii'
    path.write_bytes(brain_image().to_bytes())
    first = hashes(asked)
    assert first[0] != without[0]
    replace_silently(path, brain_image(seed=5))
    assert hashes(asked)[0] != first[0]


def test_a_given_brain_mask_of_another_grid_fails_the_session(settings, tmp_path):
    folder = tmp_path / 'masks'
    folder.mkdir()
    brain_image(spacing=5.0).to_filename(folder / 'sub-01_desc-brain_mask.nii')
    code, outcomes = run_participant_level(replace(settings, brain_mask=folder))
    assert code == DataError.exit_code
    assert 'sub-01_desc-brain_mask.nii' in outcomes[0].reason
    assert 'grid of none of the images' in outcomes[0].reason


def test_the_same_content_elsewhere_is_the_same_result(settings, make_dataset, tmp_path):
    files = {FLAIR: brain_image(), T1W: brain_image(seed=1)}
    copy = make_dataset(files, name='copy')
    assert hashes(settings) == hashes(settings_of(copy, tmp_path))


def test_echoes_and_inversions_are_inputs_like_the_image(make_dataset, tmp_path):
    names = [f'sub-01/anat/sub-01_{part}.nii' for part in ('UNIT1', 'inv-1_MP2RAGE',
                                                           'inv-2_MP2RAGE')]  # fmt: skip
    names += [f'sub-01/anat/sub-01_echo-{n}_T2starw.nii' for n in (1, 2)]
    root = make_dataset({name: brain_image(seed=n) for n, name in enumerate(names)})
    settings = settings_of(root, tmp_path)
    seen = {hashes(settings)}
    for number, name in enumerate(names):
        replace_silently(root / name, brain_image(seed=100 + number))
        seen.add(hashes(settings))
    assert len(seen) == 1 + len(names)


@pytest.mark.parametrize('sidecar', ['sub-01/anat/sub-01_FLAIR.json', 'FLAIR.json'])
def test_metadata_that_are_used_count_inherited_ones_too(settings, sidecar):
    first = hashes(settings)
    write_json(settings.bids_dir / sidecar, {'SkullStripped': True})
    stripped = hashes(settings)
    assert stripped[0] != first[0]
    write_json(settings.bids_dir / sidecar, {'SkullStripped': True, 'MagneticFieldStrength': 3})
    field = hashes(settings)
    assert field[0] == stripped[0]
    assert field[1] != stripped[1]
    write_json(
        settings.bids_dir / sidecar,
        {'SkullStripped': True, 'MagneticFieldStrength': 3, 'StationName': 'x'},
    )
    assert hashes(settings) == field  # of no use to anything
    write_json(settings.bids_dir / sidecar, {'SkullStripped': True, 'MagneticFieldStrength': 7})
    assert hashes(settings)[0] != field[0]  # N4 has another level there


def test_a_field_strength_by_hand_renews_what_it_stands_in(settings):
    first = hashes(settings)
    given = hashes(replace(settings, field_strength=1.5))
    assert given[0] == first[0]
    assert given[1] != first[1]
    for name in (FLAIR, T1W):  # where the sidecars have it, it changes nothing
        path = (settings.bids_dir / name).with_suffix('.json')
        write_json(path, {'MagneticFieldStrength': 3})
    assert hashes(settings) == hashes(replace(settings, field_strength=7.0))


def test_the_field_strength_of_the_inversions_decides_the_correction(make_dataset, tmp_path):
    start = 'sub-01/anat/sub-01_'
    names = [f'{start}{part}' for part in ('UNIT1', 'inv-1_MP2RAGE', 'inv-2_MP2RAGE')]
    files = {f'{name}.nii.gz': brain_image(seed=n) for n, name in enumerate(names)}
    settings = settings_of(make_dataset(files), tmp_path)
    (plan,) = plan_sessions(settings)
    assert not needs_correction(plan, 'UNIT1')
    write_json(settings.bids_dir / 'MP2RAGE.json', {'MagneticFieldStrength': 7})
    (strong,) = plan_sessions(settings)
    assert needs_correction(strong, 'UNIT1')
    assert strong.preprocessing != plan.preprocessing


def test_a_card_that_was_edited_is_another_model(settings, tmp_path):
    folder = tmp_path / 'model'
    shutil.copytree(find_model(None, tmp_path).folder, folder)
    settings = replace(settings, model=str(folder))
    first = hashes(settings)
    card = json.loads((folder / 'model.json').read_text())
    (folder / 'model.json').write_text(json.dumps(card | {'MinimumLesionVolume': 9}))
    (plan,) = plan_sessions(settings)
    assert (plan.settings.min_lesion_volume, plan.preprocessing) == (9, first[0])
    assert plan.configuration != first[1]
    (plan,) = plan_sessions(replace(settings, min_lesion_volume=4.0))
    assert plan.settings.min_lesion_volume == 4


def test_a_dry_run_reads_no_image_where_there_is_no_result(settings):
    (plan,) = plan_sessions(replace(settings, dry_run=True))
    assert plan.configuration == ''
    assert not settings.work_dir.exists()


def lines_of(settings: ParticipantSettings) -> tuple[list[str], str]:
    """The lines shown, and what came of the only session."""
    shown: list[str] = []
    code, (outcome,) = run_participant_level(settings, show=shown.append)
    assert code == 0, outcome.reason
    return shown, outcome.status


def rows_of(settings: ParticipantSettings) -> list[dict[str, str]]:
    """The cohort's table, made again."""
    group = GroupSettings(settings.bids_dir, settings.output_dir, settings.work_dir)
    assert run_group_level(group, show=lambda text: None) == 0
    with open(settings.output_dir / 'group_lesions.tsv', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


@pytest.fixture(scope='module')
def done(tmp_path_factory) -> ParticipantSettings:
    """One participant with FLAIR alone, processed with more outputs than usual."""
    root = tmp_path_factory.mktemp('done')
    (root / 'data/sub-01/anat').mkdir(parents=True)
    write_json(root / 'data/dataset_description.json', {'Name': 'x', 'BIDSVersion': '1.10.0'})
    (root / 'data' / FLAIR).write_bytes(brain_image().to_bytes())
    settings = replace(
        settings_of(root / 'data', root),
        uncertainty=True,
        output_spaces=('MNI152NLin2009aSym',),
        sloppy=True,
    )
    assert lines_of(settings)[1] == 'done'
    return settings


def outputs_of(settings: ParticipantSettings) -> set[str]:
    folder = settings.output_dir / 'sub-01'
    return {p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file()}


@pytest.mark.parametrize('emptied', [True, False])
@pytest.mark.parametrize(
    'end',
    [
        'label-L_mask.nii.gz',
        'label-L_morph.tsv',
        'label-L_probseg.nii.gz',
        'seg-lesions_dseg.tsv',
    ],
)
def test_a_result_that_lost_a_file_is_not_finished(done, tmp_path, emptied, end):
    """Planned again on a copy; what it means for a run is in the test below."""
    shutil.copytree(done.output_dir, tmp_path / 'out')
    copy = replace(done, output_dir=tmp_path / 'out')
    (plan,) = plan_sessions(copy)
    assert is_finished(plan)
    path = tmp_path / f'out/sub-01/anat/sub-01_space-FLAIR_{end}'
    path.unlink()
    if emptied:
        path.write_bytes(b'')
    assert not is_finished(plan)


def test_a_result_whose_images_another_model_replaced_is_not_finished(done, tmp_path):
    shutil.copytree(done.output_dir, tmp_path / 'out')
    (plan,) = plan_sessions(replace(done, output_dir=tmp_path / 'out'))
    path = tmp_path / 'out/sub-01/anat/sub-01_desc-brain_mask.json'
    content = json.loads(path.read_text())
    assert content['PreprocessingHash'] == plan.preprocessing
    write_json(path, content | {'PreprocessingHash': 'of other settings'})
    assert not is_finished(plan)
    (page,) = write_pages(tmp_path / 'out', {'01'})
    assert OUT_OF_DATE in page.read_text(encoding='utf-8')
    del content['PreprocessingHash']  # of an earlier version
    write_json(path, content)
    assert is_finished(plan)
    write_pages(tmp_path / 'out', {'01'})
    assert OUT_OF_DATE not in page.read_text(encoding='utf-8')
    assert WITHDRAWN not in page.read_text(encoding='utf-8')
    plan.names.done_marker.unlink()  # as a run does that is about to write the result again
    write_pages(tmp_path / 'out', {'01'})
    assert WITHDRAWN in page.read_text(encoding='utf-8')
    summary = json.loads(plan.names.path('report.summary').read_text())
    del summary['model']['Label'], summary['warnings']  # of an earlier version
    write_json(plan.names.path('report.summary'), summary)
    assert write_pages(tmp_path / 'out', {'01'}) == [page]


def test_a_rerun_after_each_change(done):
    """The steps of one story, for each run costs seconds."""
    preprocessed = done.output_dir / 'sub-01/anat/sub-01_desc-preproc_FLAIR.nii.gz'

    def content() -> bytes:
        return preprocessed.read_bytes()

    first = content()
    assert lines_of(done)[1] == 'finished before'

    # another image that is not used: the result stands, and the page lists it
    unused = done.bids_dir / 'sub-01/anat/sub-01_run-2_FLAIR.nii'
    shutil.copy(done.bids_dir / FLAIR, unused)
    assert lines_of(done)[1] == 'finished before'
    page = done.output_dir / 'sub-01.html'
    assert unused.name in page.read_text()
    unused.unlink()
    assert lines_of(done)[1] == 'finished before'
    assert unused.name not in page.read_text()

    # a mistyped --contrasts: nothing to do, and the page keeps the result
    described = page.read_text()
    code, (outcome,) = run_participant_level(
        replace(done, contrasts=('T1w',)), show=lambda text: None
    )
    assert (code, outcome.status) == (66, 'skipped')
    assert page.read_text() == described

    # a run that failed has its page, and the next good one gives the page back
    required = replace(done, require=('t1w',))
    code, (outcome,) = run_participant_level(required, show=lambda text: None)
    assert (code, outcome.status) == (66, 'failed')
    assert '--require' in page.read_text()
    assert lines_of(done)[1] == 'done'
    assert '--require' not in page.read_text()
    assert content() == first

    # the image replaced: neither the marker nor nipype's cache may serve the old one
    replace_silently(done.bids_dir / FLAIR, brain_image(seed=7))
    assert lines_of(done)[1] == 'done'
    assert content() != first

    # a field strength by hand: page, summary and table; the images come from the cache
    asked = replace(done, field_strength=3.0)
    second = content()
    assert lines_of(asked)[1] == 'done'
    assert content() == second
    assert rows_of(done)[0]['magnetic_field_strength'] == '3'

    # fewer outputs asked for: those of before are gone, what others put there is not
    mine = done.output_dir / 'sub-01/anat/notes.txt'
    mine.write_text('of somebody else')
    other = done.output_dir / 'sub-01/anat/sub-01_label-L_desc-rater1_mask.nii.gz'
    other.write_bytes(b'drawn')
    before = outputs_of(done)
    fewer = replace(done, uncertainty=False, output_spaces=())
    assert lines_of(fewer)[1] == 'done'
    gone = before - outputs_of(done)
    assert {name.partition('sub-01_')[2] for name in gone} == {
        f'space-{name}.{end}'
        for name in ('FLAIR_label-L_desc-uncertainty_probseg', 'MNI152NLin2009aSym_label-L_mask')
        for end in ('nii.gz', 'json')
    }
    assert mine.exists()
    assert other.exists()

    # a mask that was lost is made again
    mask = done.output_dir / 'sub-01/anat/sub-01_space-FLAIR_label-L_mask.nii.gz'
    before = mask.read_bytes()
    mask.unlink()
    assert lines_of(fewer)[1] == 'done'
    assert mask.read_bytes() == before

    # a T1w is added and becomes the reference: the person counts once, on its grid alone
    (done.bids_dir / T1W).write_bytes(brain_image(seed=1).to_bytes())
    added = replace(fewer, reference='t1w')
    assert lines_of(added)[1] == 'done'
    (row,) = rows_of(added)
    assert row['reference'] == 'T1w'
    names = outputs_of(added)
    assert 'anat/sub-01_space-T1w_label-L_mask.nii.gz' in names
    left = [n for n in names if 'space-FLAIR' in n or n.endswith('desc-preproc_FLAIR.nii.gz')]
    assert left == ['anat/sub-01_space-T1w_desc-preproc_FLAIR.nii.gz']
    name = 'group_space-MNI152NLin2009aSym_lesion-frequency.json'
    assert json.loads((done.output_dir / name).read_text())['Participants'] == ['sub-01']
    assert json.loads(
        (done.output_dir / 'sub-01/figures/sub-01_desc-summary_report.json').read_text()
    )['earlier'] == []  # fmt: skip

    # --overwrite takes nothing from any cache
    prepared = done.work_dir / 'participant/sub_01/prepare_FLAIR/image.nii'
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), prepared)
    assert lines_of(replace(added, overwrite=True))[1] == 'done'
    assert nib.load(prepared).shape == brain_image().shape

    # the T1w becomes unreadable: a damaged copy is no choice, so the result stays and counts
    (done.bids_dir / T1W).write_bytes(b'')
    code, (outcome,) = run_participant_level(added, show=lambda text: None)
    assert (code, outcome.status) == (66, 'failed')
    assert len(rows_of(added)) == 1


def test_a_file_that_changes_under_way_is_not_taken(settings):
    from ssl2_bids.workflows.participant.nodes import prepare

    (plan,) = plan_sessions(settings)
    scan = plan.session.scans['FLAIR']
    replace_silently(settings.bids_dir / FLAIR, brain_image(seed=7))
    with pytest.raises(DataError, match='changed while the run'):
        prepare(scan, [digest for _, digest in plan.sources['FLAIR']])


def test_leftovers_of_other_jobs_are_no_summaries(settings):
    from ssl2_bids.bids.outputs import find_summaries

    folder = settings.output_dir / 'sub-01' / 'figures'
    folder.mkdir(parents=True)
    (folder / f'{PREFIX}node7-12-sub-01_desc-summary_report.json').write_text('{"subj')
    (folder / '._sub-01_desc-summary_report.json').write_bytes(b'\0\5\26\7')
    assert find_summaries(settings.output_dir, '01') == []


def test_pages_alone_of_a_damaged_summary_are_a_failure(make_dataset, tmp_path):
    root = make_dataset({'sub-01/anat/sub-01_FLAIR.nii': b'', 'sub-02/anat/sub-02_FLAIR.nii': b''})
    asked = replace(settings_of(root, tmp_path), reports_only=True)
    with pytest.raises(NoInputError, match='no results to report on'):
        run_participant_level(asked)
    run_participant_level(replace(asked, reports_only=False))  # both fail, and have a summary
    assert run_participant_level(asked) == (0, [])
    names = [plan.names.path('report.summary') for plan in plan_sessions(asked)]
    names[0].write_text('{"subj')
    code, (outcome,) = run_participant_level(asked)
    assert (code, outcome.name, outcome.status) == (1, 'sub-01', 'failed')
    assert names[0].name in outcome.reason
    names[1].write_text('[]')
    code, outcomes = run_participant_level(asked)
    assert (code, len(outcomes)) == (65, 2)
    for path in names:
        path.unlink()
    second = names[0].with_name('sub-01_desc-adaptedsummary_report.json')
    second.write_text('{"subj')
    visits = names[0].with_name('sub-01_desc-visits_report.json')
    visits.write_text('{"subj')
    code, outcomes = run_participant_level(asked)
    assert {o.reason.split()[0] for o in outcomes} == {second.name, visits.name}


def test_a_page_that_cannot_be_made_is_named_and_ends_nothing(done, tmp_path, caplog):
    shutil.copytree(done.output_dir, tmp_path / 'out')
    settings = replace(done, output_dir=tmp_path / 'out')
    path = next(settings.output_dir.glob('sub-*/figures/*summary_report.json'))
    whole = path.read_text()
    content = json.loads(whole)
    path.write_text(json.dumps(content | {'methods': ['Of another version [@gone1999].']}))
    assert write_pages(settings.output_dir, {content['subject']}) == []
    code, (outcome,) = run_participant_level(replace(settings, reports_only=True))
    assert (code, outcome.status) == (65, 'failed')
    path.write_text(whole)
    assert f'sub-{content["subject"]}.html was not written' in caplog.text
    assert write_pages(settings.output_dir, {content['subject']})
