"""The sessions of a participant compared, from what the participant level would leave."""

from __future__ import annotations

import csv
import errno
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from site_phantom import AFFINE, SHAPE, VOXEL, add_person, make_model
from visits_phantom import FREE, ball, rescan

from ssl2_bids.bids.outputs import find_results, sidecar_path
from ssl2_bids.bids.provenance import write_dataset_files
from ssl2_bids.bids.scan import Scan
from ssl2_bids.errors import NoInputError
from ssl2_bids.files import write_json, write_text
from ssl2_bids.networks.weights import find_model, load_network
from ssl2_bids.settings import GroupSettings, ParticipantSettings
from ssl2_bids.steps import joint_lesions
from ssl2_bids.workflows.cohort.tables import cohort_rows
from ssl2_bids.workflows.export.manifest import export_manifest
from ssl2_bids.workflows.longitudinal import run as running
from ssl2_bids.workflows.longitudinal.plan import (
    LongitudinalPlan,
    is_finished,
    make_plan,
    planned_outputs,
)
from ssl2_bids.workflows.longitudinal.run import compare, described, run_longitudinal
from ssl2_bids.workflows.longitudinal.visits import (
    Visit,
    in_order,
    on_one_day,
    years_between,
)
from ssl2_bids.workflows.longitudinal.within import _differences
from ssl2_bids.workflows.participant.pages import write_pages
from ssl2_bids.workflows.participant.planning import plan_sessions

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data`` and ``out`` of a participant with three sessions; the second has a new lesion."""
    root = tmp_path_factory.mktemp('compared')
    model = make_model(root)
    raw, out = root / 'data', root / 'out'
    write_json(
        raw / 'dataset_description.json',
        {'Name': 'visits', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'},
    )
    write_dataset_files(out, raw)
    card = find_model(str(model), out)
    network = load_network(card)
    for session, new in (('1', False), ('2', True), ('3', True)):
        one = rescan(1, int(session), ball(FREE, 2.3) if new else None)
        add_person(raw, out, '01', one, card, network, session=session)
    shorter = (np.arange(SHAPE[1]) > 13)[:, None]  # the brain of another person
    other = rescan(5, 7)
    other = replace(
        other, flair=other.flair * shorter, t1w=other.t1w * shorter, brain=other.brain & shorter
    )
    for session, one in (('1', rescan(3, 6)), ('2', other)):
        add_person(raw, out, '02', one, card, network, session=session)
    for session, scanner, field in (('1', 'Prisma', 3), ('2', 'Aera', 1.5)):
        path = raw / 'sub-02' / f'ses-{session}' / 'anat' / f'sub-02_ses-{session}_FLAIR.json'
        write_json(path, {'ManufacturersModelName': scanner, 'MagneticFieldStrength': field})
    write_text(
        raw / 'sub-02' / 'sub-02_sessions.tsv',
        'session_id\tacq_time\nses-1\t2022-05-01T10:00:00\nses-2\t2021-05-01T10:00:00\n',
    )
    return root


def plan_of(folder: Path, *sessions: str, subject: str = '01') -> LongitudinalPlan:
    settings = ParticipantSettings(
        folder / 'data',
        folder / 'out',
        folder / 'work',
        model=str(folder / 'phantom-3t'),
        reference='t1w',
        min_lesion_volume=300.0,  # five voxels
        sessions=sessions or None,
        participants=(subject,),
    )
    return make_plan(subject, plan_sessions(settings), {})


@pytest.fixture(scope='module')
def plan(folder: Path) -> LongitudinalPlan:
    """All three sessions, compared."""
    made = plan_of(folder)
    assert compare(made) is None
    return made


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def test_a_comparison_by_a_former_rule_is_not_finished(plan, folder, monkeypatch):
    assert is_finished(plan_of(folder))
    monkeypatch.setattr(joint_lesions, 'RULE', joint_lesions.RULE + 1)
    later = plan_of(folder)
    assert not is_finished(later)
    assert later.space == plan.space


def test_all_that_was_planned_is_written_with_sidecars(plan):
    written = planned_outputs(plan)
    assert [path.name for path in written if not path.is_file()] == []
    images = [path for path in written if path.name.endswith('.nii.gz')]
    for path in images:
        sidecar = json.loads(sidecar_path(path).read_text())
        space = 'bids::sub-01/anat/sub-01_space-within_desc-brain_mask.nii.gz'
        assert sidecar['SpatialReference'] == space
        assert sidecar['Sources']
    grids = {(nib.load(p).shape, nib.load(p).affine.tobytes()) for p in images}
    assert len(grids) == 1
    assert np.allclose(nib.load(images[0]).header.get_zooms(), 1.0)
    assert {
        'sub-01_ses-1_from-T1w_to-within_mode-image_xfm.txt',
        'sub-01_ses-2_space-within_desc-preproc_FLAIR.nii.gz',
        'sub-01_space-within_seg-change_desc-phantom3tses1ses2_dseg.tsv',
        'sub-01_desc-phantom3tlesions_long.tsv',
    } <= {path.name for path in written}
    assert all(path.parent.name == 'anat' for path in written)
    assert is_finished(plan)
    text = plan.summary.read_text()
    for damaged in ('{', '{}', '{"model": 5, "configurations": {}}'):
        plan.summary.write_text(damaged)
        assert not is_finished(plan)
    plan.summary.write_text(text)
    assert is_finished(plan)
    space = sidecar_path(plan.path('brain_mask'))
    text = space.read_text()
    assert 'Space between the sessions' in json.loads(text)['Description']
    write_json(space, json.loads(text) | {'SpaceHash': 'of other sessions'})  # by another model
    assert not is_finished(plan)
    space.write_text(text)
    assert is_finished(plan)


def test_labels_without_dates_are_ordered_by_their_numbers(folder):
    labels = ('M12', 'M2', 'M0')
    plans = [
        replace(visit.plan, session=replace(visit.plan.session, session=label))
        for visit, label in zip(plan_of(folder).visits, labels, strict=True)
    ]
    assert [visit.label for visit in in_order(plans)[0]] == ['M0', 'M2', 'M12']
    table = folder / 'data' / 'sub-01' / 'sub-01_sessions.tsv'
    day = '2021-06-01T00:00:00'
    table.write_text('session_id\tacq_time\n' + ''.join(f'ses-{s}\t{day}\n' for s in labels))
    try:
        visits, remarks = in_order(plans)
    finally:
        table.unlink()
    assert [visit.label for visit in visits] == ['M0', 'M2', 'M12']
    assert not any('another order' in text for text in remarks)


def test_only_the_new_lesion_changes(plan):
    rows = rows_of(plan.table)
    second = [row['state'] for row in rows if row['session_id'] == 'ses-2']
    third = {row['state'] for row in rows if row['session_id'] == 'ses-3'}
    assert sorted(second) == ['new'] + ['stable'] * (len(second) - 1)
    assert len(second) >= 3
    assert third == {'stable'}
    new = next(row for row in rows if row['state'] == 'new')
    place = (AFFINE @ [*FREE, 1])[:3]
    assert [float(new[axis]) for axis in 'xyz'] == pytest.approx(place, abs=VOXEL)
    assert float(new['change_mm3']) > float(new['noise_bound_mm3']) > 0
    content = json.loads(sidecar_path(plan.table).read_text())
    assert {'Base', 'Factor', 'Exponent'} <= set(content['NoiseBound'])
    assert set(content['state']['Levels']) == {
        'new', 'enlarging', 'shrinking', 'resolved', 'stable',
    }  # fmt: skip


def test_tables_and_maps_agree(plan):
    rows = rows_of(plan.table)
    for session in plan.visits:
        path = plan.path('instances', session)
        counts = np.bincount(np.asarray(nib.load(path).dataobj).ravel())[1:]
        volumes = [
            float(r['volume_mm3']) for r in rows if r['session_id'] == f'ses-{session.label}'
        ]
        assert counts.tolist() == pytest.approx(volumes[: len(counts)], abs=0.01)
        listed = rows_of(Path(str(path).replace('.nii.gz', '.tsv')))
        assert [float(row['volume_mm3']) for row in listed] == [v for v in volumes if v]
        mask = np.asarray(nib.load(plan.path('mask', session)).dataobj)
        assert mask.sum() == counts.sum()
    change = plan.change(*plan.visits[:2])
    summed = rows_of(Path(str(change).replace('.nii.gz', '.tsv')))
    assert [row['name'] for row in summed] == [
        'new', 'enlarging', 'shrinking', 'resolved', 'stable',
    ]  # fmt: skip
    assert summed[0]['lesion_count'] == '1'
    values = np.asarray(nib.load(change).dataobj)
    assert (values == 1).sum() == pytest.approx(float(summed[0]['volume_after_mm3']), abs=0.01)


def test_the_session_results_stay_alone(plan, folder):
    found = [r for r in find_results(folder / 'out') if r.names.subject == '01']
    assert {(r.names.session, r.names.reference) for r in found} == {
        ('1', 'T1w'), ('2', 'T1w'), ('3', 'T1w'),
    }  # fmt: skip


def test_same_bytes_again_and_fewer_sessions_replace_more(plan, folder):
    before = {path: path.read_bytes() for path in planned_outputs(plan)}
    assert compare(plan_of(folder)) is None
    assert {path: path.read_bytes() for path in planned_outputs(plan)} == before
    fewer = plan_of(folder, '1', '2')
    assert not is_finished(fewer)
    assert compare(fewer) is None
    names = [path.name for path in fewer.table.parent.iterdir()]
    assert not [name for name in names if 'ses-3' in name or 'ses2ses3' in name]
    assert not [p.name for p in fewer.summary.parent.glob('*_long.svg') if 'ses3' in p.name]
    assert compare(plan_of(folder)) is None


def test_a_damaged_file_is_named_and_nothing_looks_finished(plan, folder):
    path = plan.visits[1].plan.names.path('anat.probability')
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        problem = compare(plan)
        assert path.name in problem.text
        assert not is_finished(plan)
        summary = json.loads(plan.summary.read_text())
        assert summary['status'] == 'failed'
        assert 'truncated or damaged' in summary['error']['Message']
        assert plan.table.relative_to(folder / 'out').as_posix() in summary['former']
        assert 'again with --overwrite' in problem.text
        rows = flagged_rows(plan, folder)
        assert all('comparison of the sessions failed' in row['flags'][-1] for row in rows)
    finally:
        path.write_bytes(whole)
    assert compare(plan) is None
    assert is_finished(plan)


def test_what_a_comparison_wrote_before_it_failed_is_taken_away_later(folder, monkeypatch):
    def fail(*given, **named):
        raise OSError('the disk is full')

    made = plan_of(folder)
    make_fresh(made)
    with monkeypatch.context() as patched:
        patched.setattr(running, 'write_lesion_table', fail)
        assert compare(made)
    assert made.path('mask', made.visits[2]).is_file()
    assert compare(plan_of(folder, '1', '2')) is None
    names = [path.name for path in made.table.parent.iterdir()]
    assert not [name for name in names if 'ses-3_space-within' in name or 'ses2ses3' in name]
    assert not [p.name for p in made.summary.parent.glob('*_long.svg') if 'ses3' in p.name]
    assert compare(plan_of(folder)) is None


def make_fresh(plan: LongitudinalPlan) -> None:
    """Remove all that an earlier comparison has left."""
    for path in [*planned_outputs(plan), plan.summary]:
        path.unlink(missing_ok=True)
        if path.suffix != '.txt':
            sidecar_path(path).unlink(missing_ok=True)


def test_a_dry_run_with_overwrite_plans_as_the_run_will(plan, folder):
    asked = replace(plan.visits[0].plan.settings, dry_run=True, overwrite=True, sloppy=True)
    shown: list[str] = []
    assert run_longitudinal(asked, 0, show=shown.append) == 0
    assert 'compare ses-1, ses-2, ses-3' in shown[0]


def test_order_by_dates(folder):
    table = folder / 'data' / 'sub-01' / 'sub-01_sessions.tsv'
    plans = [visit.plan for visit in plan_of(folder).visits]
    visits, remarks = in_order(plans)
    assert [v.label for v in visits] == ['1', '2', '3']
    assert remarks == []
    assert years_between(visits[0], visits[1]) is None
    table.write_text(
        'session_id\tacq_time\nses-1\t2021-06-01T00:00:00\nses-2\t2020-06-01T00:00:00\n'
        'ses-3\t2021-06-01T00:00:00\n'
    )
    try:
        visits, remarks = in_order(plans)
        assert [v.label for v in visits] == ['2', '1', '3']
        assert 'another order than their labels' in remarks[0]
        assert 'have the same date' in remarks[1]
        assert years_between(visits[0], visits[1]) == pytest.approx(1, abs=0.01)
        table.write_text('session_id\tacq_time\nses-1\tspring\nses-2\t2020-06-01T00:00:00\n')
        visits, remarks = in_order(plans)
        assert [v.label for v in visits] == ['1', '2', '3']
        (remark,) = remarks
        assert 'acq_time of ses-1 is "spring", and not a date such as 2021-05-31T10' in remark
        day = '2021-06-01T{}:00'
        table.write_text(
            f'session_id\tacq_time\nses-1\t{day.format("10:00")}\nses-2\t{day.format("10:20")}\n'
            'ses-3\t2022-06-01\n'
        )
        visits, remarks = in_order(plans)
        assert [on_one_day(a, b) for a, b in pairwise(visits)] == [True, False]
        assert ['have the same date' in remark for remark in remarks] == [True]
        table.write_text('session_id\tacq_time\nses-1\t2021-06-01\nses-2\t2020-06-01\n')
        visits, remarks = in_order(plans)
        assert [v.label for v in visits] == ['1', '2', '3']
        assert 'the known dates of the sessions are in another order' in remarks[0]
        assert years_between(visits[0], visits[1]) is None
    finally:
        table.unlink()


def test_the_day_of_a_second_scan_gives_no_rate(folder):
    table = folder / 'data' / 'sub-01' / 'sub-01_sessions.tsv'
    table.write_text(
        'session_id\tacq_time\nses-1\t2021-06-01T10:00:00\nses-2\t2021-06-01T10:20:00\n'
        'ses-3\t2022-06-01T10:00:00\n'
    )
    try:
        made = plan_of(folder)
        assert compare(made) is None
        first, second = json.loads(made.summary.read_text())['pairs']
        assert (first['new'], first['new_per_year']) == (1, None)
        assert second['new_per_year'] == 0
        flagged_rows(made, folder)  # the comparison names the results as they are
        (done,) = export_manifest(folder / 'out', model=made.names.desc, participants=('01',))
        assert 'two sessions have the same date' in str(done.error)
    finally:
        table.unlink()
    assert compare(plan_of(folder)) is None


def test_a_list_keeps_the_rows_of_others_as_long_as_they_are_right(folder, caplog):
    table = folder / 'data' / 'sub-01' / 'sub-01_sessions.tsv'
    dates = [f'ses-{n}\t202{n}-06-01T10:00:00\n' for n in (1, 2, 3)]
    table.write_text(''.join(['session_id\tacq_time\n', *dates]))
    try:
        made = plan_of(folder)
        assert compare(made) is None
    finally:
        table.unlink()
    flagged_rows(made, folder)  # the comparison names the results as they are
    out, model = folder / 'out', made.names.desc
    (done,) = export_manifest(out, model=model, participants=('01',))
    assert done.error is None
    written = rows_of(done.path)
    assert [row['session'] for row in written] == ['ses-1', 'ses-2', 'ses-3']
    assert compare(plan_of(folder, subject='02')) is None
    (other,) = export_manifest(out, model=model, participants=('02',))  # of two people
    assert other.error is not None
    assert rows_of(done.path) == written
    with pytest.raises(NoInputError):
        export_manifest(out, model=model, participants=('9',))
    assert rows_of(done.path) == written
    sidecar = next((out / 'sub-01').rglob('sub-01_ses-3_space-T1w_label-L_*mask.json'))
    whole = sidecar.read_text()
    sidecar.write_text('{')  # it cannot be read now: that is no reason to leave it out
    export_manifest(out, model=model, participants=('02',))
    sidecar.write_text(whole)
    assert rows_of(done.path) == written
    content = json.loads(made.summary.read_text())
    made.summary.write_text(json.dumps(content | {'configurations': {'1': 'other'}}))
    export_manifest(out, model=model, participants=('02',))
    assert 'sub-01: no longer in the list' in caplog.text
    assert not done.path.exists()
    assert compare(plan_of(folder)) is None


def test_a_comparison_stays_while_the_result_of_one_of_its_sessions_stays(plan):
    written, shown = plan.table.read_bytes(), list[str]()
    settings = plan.visits[0].plan.settings
    stay = {'sub-01_ses-3': 'its content is absent'}
    assert run_longitudinal(settings, 66, show=shown.append, stay=stay) == 66
    (line,) = shown
    assert line.startswith('sub-01: the comparison of an earlier run stays (ses-3: its content')
    assert plan.table.read_bytes() == written
    stay = {'sub-01_ses-4': 'its content is absent'}  # it was not compared
    assert run_longitudinal(settings, 66, show=shown.append, stay=stay) == 66
    assert 'the comparison of an earlier run stays (' not in shown[1]


def test_the_memory_of_a_run_limits_the_comparisons_at_a_time(plan):
    settings = replace(plan.visits[0].plan.settings, nprocs=16)
    needed = running.memory_of(plan)
    assert needed == running.PROCESS + running.VOXEL * len(plan.visits) * np.prod(SHAPE)
    for given, expected in (({'memory_gb': 2.0}, int(2e9 / needed)), ({'memory_gb': 0.1}, 1)):
        assert running._at_once([plan], replace(settings, **given)) == expected
    assert running._at_once([plan], replace(settings, memory_gb=2.0, low_mem=True)) == 1


def test_a_full_disk_gives_its_exit_code(plan, monkeypatch):
    def full(*given, **named):
        raise OSError(errno.ENOSPC, 'No space left on device')

    settings = plan.visits[0].plan.settings
    monkeypatch.setattr(running, 'bring_together', full)
    # the phantoms' results are of no run, so that of no session there is a finished one
    monkeypatch.setattr(running, '_plan_of', lambda subject, plans: (subject, plan))
    monkeypatch.setattr(running, 'is_finished', lambda plan: False)
    assert run_longitudinal(settings, 0) == 74
    assert run_longitudinal(settings, 1) == 74
    assert run_longitudinal(settings, 73) == 73
    monkeypatch.undo()
    assert compare(plan) is None


def test_another_person_scanner_and_order_of_dates_are_named(folder):
    plan = plan_of(folder, subject='02')
    assert [visit.label for visit in plan.visits] == ['2', '1']
    assert compare(plan) is None
    summary = json.loads(plan.summary.read_text())
    warnings = ' '.join(summary['warnings'])
    assert 'another order than their labels' in warnings
    doubtful = 'changes between them are doubtful'
    assert f'ses-2 and ses-1 have different scanners: {doubtful}' in warnings
    assert f'ses-2 and ses-1 have different field strengths: {doubtful}' in warnings
    assert warnings.count('the noise bound was measured with one scanner') == 1


def test_changes_between_people_are_withheld_everywhere(folder):
    plan = plan_of(folder, subject='02')
    if not is_finished(plan):
        assert compare(plan) is None
    summary = json.loads(plan.summary.read_text())
    assert summary['status'] == 'doubtful'
    (misfit,) = summary['misfits']
    assert 'ses-2 and ses-1 do not fit after the registration' in misfit
    assert 'they may be of different people' in misfit
    assert [summary[key] for key in ('visits', 'pairs', 'lesions')] == [[], [], []]
    (figure,) = summary['figures']
    drawn = (folder / 'out' / figure['File']).read_text()
    assert 'Session 2 and session 1 after the registration' in drawn
    assert drawn.count('<g class="moving">') == 2
    assert misfit in json.loads(sidecar_path(plan.table).read_text())['Warnings']
    line = described(plan)
    assert line.startswith(misfit)
    assert 'The changes are not reported' in line
    rows = flagged_rows(plan, folder)
    assert len(rows) == 2
    assert all(misfit in row['flags'] and 'new_lesions' not in row for row in rows)
    (done,) = export_manifest(folder / 'out', model=plan.names.desc, participants=('02',))
    assert 'they may be of different people' in str(done.error)


def flagged_rows(plan: LongitudinalPlan, folder: Path) -> list[dict[str, Any]]:
    """The rows of the cohort, with a comparison that names the results as they are."""
    results = [r for r in find_results(folder / 'out') if r.names.subject == plan.subject]
    content = json.loads(plan.summary.read_text()) | {
        'configurations': {r.names.session: r.sidecar['ConfigurationHash'] for r in results}
    }
    plan.summary.write_text(json.dumps(content))
    settings = GroupSettings(folder / 'data', folder / 'out', folder / 'work', nprocs=1)
    rows, problems = cohort_rows(settings, results)
    assert problems == []
    return rows


def test_voxels_that_differ_make_small_changes_doubtful(folder):
    one, other = plan_of(folder).visits[:2]
    assert _differences(one, other, 'a and b') == []
    scan = other.plan.session.scans['FLAIR']
    thick = replace(scan, spacing=(*scan.spacing[:2], 1.5 * scan.spacing[2]))
    text, noise = _differences(one, with_scan(other, thick), 'a and b')
    assert 'a and b: the voxels of FLAIR differ' in text
    assert 'changes of small lesions are doubtful' in text
    assert 'the noise bound' in noise
    assert 'too small' in noise


def test_another_protocol_on_the_same_scanner_is_named(folder):
    one, other = plan_of(folder).visits[:2]

    def timed(visit: Visit, echo: float) -> Visit:
        scan = visit.plan.session.scans['FLAIR']
        return with_scan(visit, replace(scan, metadata={'EchoTime': echo, 'FlipAngle': 120}))

    assert _differences(timed(one, 0.1), timed(other, 0.11), 'a and b') == []
    text, noise = _differences(timed(one, 0.1), timed(other, 0.13), 'a and b')
    assert 'a and b: the protocols of FLAIR differ (EchoTime 0.1 and 0.13 s)' in text
    assert 'too small' in noise
    assert _differences(one, timed(other, 0.13), 'a and b') == []

    def echoes(visit: Visit, *times: float) -> Visit:
        scan = visit.plan.session.scans['FLAIR']
        return with_scan(visit, replace(scan, metadata={}, echo_times=times))

    text, _ = _differences(echoes(one, 0.004, 0.006), echoes(other, 0.01, 0.01), 'a and b')
    assert 'EchoTime 0.005 and 0.01 s' in text


def with_scan(visit: Visit, scan: Scan) -> Visit:
    session = visit.plan.session
    scans = session.scans | {scan.contrast: scan}
    return replace(visit, plan=replace(visit.plan, session=replace(session, scans=scans)))


def test_visits_of_one_person_fit(plan):
    summary = json.loads(plan.summary.read_text())
    assert summary['warnings'] == []
    assert summary['registration']['asymmetry'] < 1
    assert summary['registration']['ses-1 and ses-2, T1w'] > 0.8


def test_the_page_has_the_changes_and_notices_that_a_session_is_another(plan, folder):
    from ssl2_bids.bids.outputs import find_visits_summaries

    (summary,) = find_visits_summaries(folder / 'out', '01')
    assert summary['pairs'][0]['new'] == 1
    assert summary['pairs'][0]['new_per_year'] is None
    assert [one['state'] for one in summary['lesions']] == ['new']
    figure = folder / 'out' / summary['figures'][0]['File']
    assert 'alternating' in figure.read_text()
    assert write_pages(folder / 'out', {'01'}) == []  # the phantoms have no summaries


def test_the_table_of_the_cohort_has_changes_of_the_same_results_alone(plan, folder):
    results = [r for r in find_results(folder / 'out') if r.names.subject == '01']
    settings = GroupSettings(folder / 'data', folder / 'out', folder / 'work', nprocs=1)
    rows, problems = cohort_rows(settings, results)
    assert problems == []
    assert not [row for row in rows if 'new_lesions' in row]  # other results than were compared
    written = plan.summary.read_text()
    content = json.loads(written)
    content['configurations'] = {r.names.session: r.sidecar['ConfigurationHash'] for r in results}
    content['pairs'][1]['new_per_year'] = 0.5
    plan.summary.write_text(json.dumps(content))
    try:
        rows, _ = cohort_rows(settings, results)
    finally:
        plan.summary.write_text(written)
    found = {row['session_id']: row.get('new_lesions') for row in rows}
    assert found == {'ses-1': None, 'ses-2': 1, 'ses-3': 0}
    rates = {row['session_id']: row.get('new_lesions_per_year') for row in rows}
    assert rates == {'ses-1': None, 'ses-2': None, 'ses-3': 0.5}
