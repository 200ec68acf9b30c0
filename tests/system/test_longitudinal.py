"""--longitudinal as a user runs it: phantoms at several visits, and what is wrong with some."""

from __future__ import annotations

import csv
import html
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import turned
from running_app import digests, validate
from site_phantom import AFFINE, VOXEL, make_model
from visits_phantom import FREE, ball, rescan

from ssl2_bids.cli.tools.app import main
from ssl2_bids.itk import from_itk

AXES = ('LAS', 'PIR', 'RAS')
ANGLES = ((0.1, -0.06, 0.03), (0.0, 0.05, 0.0), (-0.08, 0.0, 0.02))  # radians
MOVED = 4.0  # mm


pytestmark = pytest.mark.slow


def scan(person: int, number: int, new: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Images of a visit."""
    one = rescan(person, number, new)
    return {'FLAIR': one.flair, 'T1w': one.t1w}


def add_visit(data: Path, subject: str, session: str, images: dict[str, np.ndarray]) -> None:
    anat = data / f'sub-{subject}' / f'ses-{session}' / 'anat'
    anat.mkdir(parents=True)
    number = int(session) - 1
    affine = AFFINE.copy()
    affine[:3, 3] += MOVED * number
    for name, values in images.items():
        image = turned(values, affine, AXES[number], sform=2, angles=ANGLES[number])
        image.to_filename(anat / f'sub-{subject}_ses-{session}_{name}.nii.gz')


def add_dates(data: Path, subject: str, dates: list[str]) -> None:
    lines = [f'ses-{n}\t{date}' for n, date in enumerate(dates, start=1)]
    path = data / f'sub-{subject}' / f'sub-{subject}_sessions.tsv'
    path.write_text('\n'.join(['session_id\tacq_time', *lines]) + '\n')


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data`` of two people, and a model ``phantom-3t``."""
    root = tmp_path_factory.mktemp('visits')
    make_model(root)
    data = root / 'data'
    new = ball(FREE, 2.3)
    for session in '12':  # unchanged
        add_visit(data, '01', session, scan(1, int(session)))
    add_visit(data, '02', '1', scan(1, 3))
    add_visit(data, '02', '2', scan(1, 4, new))
    third = scan(1, 5, new)
    third.pop('T1w')
    add_visit(data, '02', '3', third)
    add_dates(data, '02', ['2020-01-01T10:00:00', '2021-01-01T10:00:00', '2022-07-02T10:00:00'])
    content = {'Name': 'visits', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
    (data / 'dataset_description.json').write_text(json.dumps(content))
    return root


def run(run_app, site: Path, out: Path, *words: str):
    return run_app(
        site / 'data', out, 'participant', '-w', site / 'work', '--model', site / 'phantom-3t',
        '--nprocs', 1, '--min-lesion-volume', 300, *words,
    )  # fmt: skip


@pytest.fixture(scope='module')
def compared(run_app, site):
    """Both people after one run."""
    done = run(run_app, site, site / 'out', '--longitudinal')
    assert done.returncode == 0, done.stderr
    return site / 'out', done.stdout + done.stderr


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def table(out: Path, subject: str) -> list[dict[str, str]]:
    (path,) = (out / f'sub-{subject}' / 'anat').glob(f'sub-{subject}_desc-*lesions_long.tsv')
    return rows_of(path)


def states(out: Path, subject: str, session: str) -> list[str]:
    rows = [row for row in table(out, subject) if row['session_id'] == f'ses-{session}']
    return sorted(row['state'] for row in rows)


def test_an_unchanged_brain_has_no_change(compared):
    out, said = compared
    assert 'sub-01: ses-1 to ses-2: 0 new, 0 enlarging, 0 shrinking, 0 resolved' in said
    found = states(out, '01', '2')
    assert len(found) >= 3
    assert set(found) == {'stable'}


def test_visits_meet_at_the_middle_of_a_known_move(compared):
    out, _ = compared
    poses = []
    for session in '12':
        name = f'sub-01_ses-{session}_from-FLAIR_to-within_mode-image_xfm.txt'
        poses.append(from_itk((out / 'sub-01/anat' / name).read_text()))
        back = name.replace('from-FLAIR_to-within', 'from-within_to-FLAIR')
        inverse = from_itk((out / 'sub-01/anat' / back).read_text())
        assert np.allclose(poses[-1] @ inverse, np.eye(4), atol=1e-6)
    way = poses[1] @ np.linalg.inv(poses[0])
    places = []
    for session in '12':
        path = out.parent / f'data/sub-01/ses-{session}/anat/sub-01_ses-{session}_FLAIR.nii.gz'
        places.append(centre_of_brain(path))
    assert np.linalg.norm(way[:3] @ [*places[0], 1] - places[1]) < 0.25 * VOXEL
    # half of the way from each
    mid = [
        np.linalg.inv(pose)[:3] @ [*place, 1] for pose, place in zip(poses, places, strict=True)
    ]
    assert np.linalg.norm(mid[0] - mid[1]) < 0.25 * VOXEL
    halves = [np.linalg.norm(pose - np.eye(4)) for pose in poses]
    assert halves[0] == pytest.approx(halves[1], rel=0.2)


def centre_of_brain(path: Path) -> np.ndarray:
    image = nib.load(path)
    voxels = np.argwhere(image.get_fdata() > 20).mean(axis=0)
    return (image.affine @ [*voxels, 1])[:3]


def test_a_new_lesion_is_new_once_and_stays(compared):
    out, said = compared
    assert 'sub-02: ses-1 to ses-2: 1 new' in said
    assert states(out, '02', '2').count('new') == 1
    rows = table(out, '02')
    (index,) = {row['index'] for row in rows if row['state'] == 'new'}
    own = [row for row in rows if row['index'] == index]
    assert [row['state'] for row in own] == ['n/a', 'new', 'stable']
    true = float(ball(FREE, 2.3).sum()) * VOXEL**3
    assert float(own[1]['volume_mm3']) == pytest.approx(true, rel=0.5)
    assert float(own[0]['volume_mm3']) == 0
    (change,) = (out / 'sub-02/anat').glob('*_seg-change_desc-*ses1ses2_dseg.nii.gz')
    image = nib.load(change)
    values = np.asarray(image.dataobj)
    assert (values == 1).sum() * np.prod(image.header.get_zooms()) == pytest.approx(
        float(own[1]['volume_mm3']), rel=0.01
    )


def test_a_missing_contrast_is_named_and_dates_give_rates(compared):
    out, _ = compared
    (path,) = (out / 'sub-02/figures').glob('*visits_report.json')
    summary = json.loads(path.read_text())
    assert any('T1w was used at one of them only' in text for text in summary['warnings'])
    first = summary['pairs'][0]
    assert first['years'] == pytest.approx(1.0, abs=0.01)
    assert first['new_per_year'] == pytest.approx(1.0, abs=0.01)
    (other,) = (out / 'sub-01/figures').glob('*visits_report.json')
    unknown = json.loads(other.read_text())
    assert unknown['pairs'][0]['new_per_year'] is None
    assert 'New per year' in (out / 'sub-01.html').read_text()


def test_one_visit_is_named_and_the_run_continues(compared, run_app, site):
    out, _ = compared
    before = digests(out)
    done = run(
        run_app, site, out, '--longitudinal', '--participant-label', '01', '--session-label', '1'
    )
    assert done.returncode == 0
    said = done.stdout + done.stderr
    assert 'ses-1 is the only session of the selected ones that can be compared' in said
    assert 'the comparison of an earlier run stays' in said
    assert digests(out) == before


def test_lesions_have_one_number_and_no_result_takes_them_for_a_session(compared):
    from ssl2_bids.bids.outputs import find_results

    out, _ = compared
    maps = [
        np.asarray(nib.load(path).dataobj)
        for path in sorted((out / 'sub-02/anat').glob('*_seg-lesions*_dseg.nii.gz'))
    ]
    assert len(maps) == 3
    both = (maps[1] > 0) & (maps[2] > 0)
    assert (maps[1][both] == maps[2][both]).all()
    assert {r.names.reference for r in find_results(out)} == {'FLAIR'}


def test_results_are_valid_and_the_page_shows_them(compared):
    out, _ = compared
    assert validate(out) == []
    page = (out / 'sub-02.html').read_text()
    assert 'Changes between sessions' in page
    assert page.count('_long.svg') >= 2
    assert '@reuter2012' not in page
    assert 'Reuter' in page
    assert 'Within-subject template estimation' in (out / 'logs/CITATION.md').read_text()


def test_a_second_run_compares_again_only_what_has_changed(compared, run_app, site):
    out, _ = compared
    before = digests(out)
    again = run(run_app, site, out, '--longitudinal')
    assert again.returncode == 0
    assert again.stdout.count('compared already') + again.stderr.count('compared already') == 2
    assert digests(out) == before
    without = run(run_app, site, out, '--reports-only')
    assert without.returncode == 0
    assert digests(out) == before


def test_sessions_finished_earlier_are_compared_later_and_a_visit_left_out(
    compared, run_app, site, tmp_path
):
    out = tmp_path / 'out'
    shutil.copytree(compared[0], out)
    done = run(
        run_app, site, out, '--longitudinal', '--participant-label', '02', '--session-label',
        '1', '2',
    )  # fmt: skip
    assert done.returncode == 0
    assert 'sub-02: ses-1 to ses-2: 1 new' in done.stdout + done.stderr
    assert {row['session_id'] for row in table(out, '02')} == {'ses-1', 'ses-2'}
    names = [path.name for path in (out / 'sub-02/anat').iterdir()]
    assert not [name for name in names if 'ses-3' in name or 'ses2ses3' in name]
    assert export(out, site) == 1  # sub-01 has no dates
    rows = rows_of(out / 'group_lesiontrack.tsv')
    assert [row['session'] for row in rows] == ['ses-1', 'ses-2']
    assert [float(row['time_years']) for row in rows] == pytest.approx([0, 1], abs=0.01)
    files = [out / row[key] for row in rows for key in ('t1', 'flair', 'mask', 'brainmask')]
    images = [nib.load(path) for path in files]
    assert len({(image.shape, image.affine.tobytes()) for image in images}) == 1
    assert validate(out) == []


def test_results_of_jobs_of_one_session_each_are_compared_as_they_are(run_app, site, tmp_path):
    """As BABS leaves them: each job saw its own session alone, in folders of its own."""
    out = tmp_path / 'out'
    for session in '12':
        job = tmp_path / f'job-{session}'
        folder = f'sub-01/ses-{session}'
        shutil.copytree(site / 'data' / folder, job / 'data' / folder)
        shutil.copy(site / 'data' / 'dataset_description.json', job / 'data')
        shutil.copytree(site / 'phantom-3t', job / 'phantom-3t')
        done = run(run_app, job, job / 'out', '--session-label', session)
        assert done.returncode == 0, done.stderr
        shutil.copytree(job / 'out', out, dirs_exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in out.glob('sub-01/ses-*/anat/*.nii.gz')}
    assert len(before) > 10
    words = ('--longitudinal', '--participant-label', '01', '-w', tmp_path / 'work')
    done = run(run_app, site, out, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count('already finished') == 2, done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert table(out, '01')


def export(out: Path, site: Path) -> int:
    return main(['export', str(out), str(site / 'data'), '--to', 'lesiontrack', '--model',
                 'phantom3t'])  # fmt: skip


def test_a_list_needs_dates_and_two_contrasts(compared, site, capsys):
    (compared[0] / 'group_lesiontrack.tsv').write_text('of a former export')
    assert export(compared[0], site) == 65
    said = capsys.readouterr()
    lines = (said.out + said.err).splitlines()
    assert any('sub-01: the date of a session is not known' in line for line in lines)
    assert any('sub-02: ses-3 was segmented without T1w or UNIT1' in line for line in lines)
    assert not (compared[0] / 'group_lesiontrack.tsv').exists()


def test_a_date_that_cannot_be_read_is_named_by_each_command(compared, run_app, site, tmp_path):
    data, out = tmp_path / 'data', tmp_path / 'out'
    shutil.copytree(site / 'data', data)
    shutil.copytree(compared[0], out)
    add_dates(data, '01', ['soon', '2021-01-01T10:00:00'])
    done = run_app(
        data, out, 'participant', '-w', site / 'work', '--model', site / 'phantom-3t', '--nprocs',
        1, '--min-lesion-volume', 300, '--longitudinal', '--participant-label', '01',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    remark = 'acq_time of ses-1 is "soon", and not a date such as 2021-05-31T10:00:00'
    (path,) = (out / 'sub-01/figures').glob('*visits_report.json')
    assert any(remark in text for text in json.loads(path.read_text())['warnings'])
    assert html.escape(remark).replace('&quot;', '&#34;') in (out / 'sub-01.html').read_text()
    code = main(['export', str(out), str(data), '--to', 'lesiontrack', '--model', 'phantom3t',
                 '--participant-label', '01'])  # fmt: skip
    assert code == 65


def test_a_damaged_result_fails_alone(compared, run_app, site, tmp_path):
    out = tmp_path / 'out'
    shutil.copytree(compared[0], out)
    for subject in ('01', '02'):
        (table_,) = (out / f'sub-{subject}/anat').glob('*_long.json')
        table_.unlink()
    (broken,) = (out / 'sub-01/ses-2/anat').glob('*_space-FLAIR_label-L*_probseg.nii.gz')
    broken.write_bytes(broken.read_bytes()[:-200])
    done = run(run_app, site, out, '--longitudinal', '--participant-label', '01', '02')
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert 'sub-01: sessions not compared' in said
    assert broken.name in said
    assert 'sub-02: ses-1 to ses-2: 1 new' in said
    assert 'Failed, at the step' in (out / 'sub-01.html').read_text()


def test_a_dry_run_names_the_files(run_app, site, tmp_path):
    done = run(run_app, site, tmp_path / 'out', '--longitudinal', '--dry-run')
    assert done.returncode == 0
    said = done.stdout
    assert 'sub-01: compare ses-1, ses-2' in said
    assert 'sub-01/anat/sub-01_ses-1_space-within_desc-preproc_FLAIR.nii.gz' in said
    assert not (tmp_path / 'out' / 'sub-01').exists()


def test_a_model_of_the_site_has_a_comparison_of_its_own(compared, run_app, site, tmp_path):
    out = tmp_path / 'out'
    shutil.copytree(compared[0], out)
    (first,) = (out / 'sub-01/anat').glob('*_long.tsv')
    before = first.read_bytes()
    anat = tmp_path / 'labels/sub-01/ses-1/anat'
    anat.mkdir(parents=True)
    lesion = rescan(1, 1).lesion.astype(np.uint8)
    label = turned(lesion, AFFINE, AXES[0], sform=2, angles=ANGLES[0])
    label.to_filename(anat / 'sub-01_ses-1_label-lesion_mask.nii.gz')
    made = run(run_app, site, out, '--calibrate-from', tmp_path / 'labels')
    assert made.returncode == 0, made.stderr
    done = run_app(
        site / 'data', out, 'participant', '-w', site / 'work', '--model', 'calibrated',
        '--nprocs', 1, '--min-lesion-volume', 300, '--longitudinal',
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert 'sub-01: ses-1 to ses-2: 0 new, 0 enlarging, 0 shrinking, 0 resolved' in said
    assert 'sub-02: ses-1 to ses-2: 1 new' in said
    names = sorted(path.name for path in (out / 'sub-01/anat').glob('*_long.tsv'))
    assert names == [f'sub-01_desc-{m}lesions_long.tsv' for m in ('calibrated', 'phantom3t')]
    assert first.read_bytes() == before
    page = (out / 'sub-02.html').read_text()
    assert 'Changes between sessions, model calibrated' in page
    assert 'Changes between sessions, model phantom3t' in page
    assert 'Out of date' not in page
    assert validate(out) == []
