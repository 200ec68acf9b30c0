"""The cohort from results on disk: rows, remarks, covariates, damage."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ssl2_bids.bids.columns import VOLUME_COLUMNS
from ssl2_bids.bids.outputs import (
    Result,
    UnitNames,
    sidecar_path,
    stored_configuration,
    write_table,
)
from ssl2_bids.errors import DataError, NoInputError
from ssl2_bids.files import write_json, write_text
from ssl2_bids.itk import to_itk
from ssl2_bids.networks.weights import find_model
from ssl2_bids.settings import ATLAS_SPACE, GroupSettings
from ssl2_bids.steps.lesions import REGIONS
from ssl2_bids.volume import Volume, write
from ssl2_bids.workflows.cohort.run import run_group_level
from ssl2_bids.workflows.mixed_settings import mixed_settings
from ssl2_bids.workflows.segmentation_files import PROCESS_AGAIN

VOLUMES = (5000.0, 6000.0, 5500.0, 0.0, 5200.0, 6100.0, 90000.0)  # the last stands out


def add_result(
    out: Path,
    subject: str,
    volume: float,
    *,
    session: str | None = None,
    reference: str = 'T1w',
    desc: str = '',
    **sidecar: str | bool | float | list[str],
) -> UnitNames:
    """What the participant level leaves of one session, as far as the group level reads it."""
    names = UnitNames(out, subject, session, reference, desc)
    data = np.zeros((20, 20, 20), np.uint8)
    data[10, 10, 10 : 12 if volume else 10] = 1
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -40
    write(Volume(data, affine), names.path('anat.mask'), dtype=np.uint8)
    row = {
        'volume_mm3': volume,
        'lesion_count': int(volume > 0),
        'lesion_load': volume / 1.4e6,
        'volume_largest_mm3': volume,
        'brain_volume_mm3': 1.4e6,
    }
    rows = [{'index': n, 'name': name, **row} for n, name in enumerate(('all', *REGIONS))]
    write_table(names.path('anat.volumes'), rows, VOLUME_COLUMNS)
    xfm = names.path('anat.transform', source=reference, target=ATLAS_SPACE)
    write_text(xfm, to_itk(np.eye(4)))
    content = {'Model': {'Name': 'm', 'Version': '1'}, 'Channels': ['T1w']}
    write_json(names.done_marker, content | {'ConfigurationHash': 'x'} | sidecar)
    return names


def add_summary(names: UnitNames, configuration: str, **more: object) -> None:
    """What of a session's summary the group level reads."""
    content = {
        'session': names.session,
        'model': {'Label': names.desc},
        'reference': {'Contrast': names.reference, 'MagneticFieldStrength': 3},
        'provenance': {'configuration': configuration},
    } | more
    write_json(names.path('report.summary'), content)


@pytest.fixture
def cohort(tmp_path, make_dataset) -> GroupSettings:
    """Seven results of eight participants."""
    labels = [f'{n:02d}' for n in range(1, 9)]
    table = 'participant_id\tage\tsex\n' + ''.join(f'sub-{n}\t{30 + int(n)}\tF\n' for n in labels)
    root = make_dataset({f'sub-{n}/anat': None for n in labels} | {'participants.tsv': table})
    for label, volume in zip(labels, VOLUMES, strict=False):
        add_result(tmp_path / 'out', label, volume)
    return GroupSettings(root, tmp_path / 'out', tmp_path / 'work')


def rows_of(settings: GroupSettings) -> dict[str, dict[str, str]]:
    with open(settings.output_dir / 'group_lesions.tsv', newline='') as stream:
        return {r['participant_id']: r for r in csv.DictReader(stream, delimiter='\t')}


def test_rows_remarks_and_covariates(cohort):
    shown: list[str] = []
    assert run_group_level(cohort, show=shown.append) == 0
    rows = rows_of(cohort)
    assert len(rows) == 7
    assert 'lesion volume unusually high' in rows['sub-07']['quality']
    assert rows['sub-04']['quality'] == 'n/a'  # no lesion is a result, not an outlier
    assert (rows['sub-01']['age'], rows['sub-01']['group']) == ('31', 'n/a')
    assert rows['sub-02']['periventricular_volume_mm3'] == '6000'
    assert any('sub-08' in line for line in shown)


def test_the_page_names_the_masks_that_a_dataset_has(cohort):
    folder = cohort.bids_dir / 'derivatives' / 'manual'
    data = np.zeros((20, 20, 20), np.uint8)
    data[10, 10, 10] = 1
    write(Volume(data, np.eye(4)), folder / 'sub-01/anat/sub-01_label-lesion_mask.nii.gz')
    assert run_group_level(cohort, show=lambda text: None) == 0
    page = (cohort.output_dir / 'group_report.html').read_text()
    found = 'Masks of 1 participant were found: <code>--labels BIDS_DIR/derivatives/manual</code>'
    assert found in page


def test_a_lesion_load_that_cannot_be_is_remarked(cohort):
    add_result(cohort.output_dir, '08', 400_000)
    assert run_group_level(cohort, show=lambda text: None) == 0
    rows = rows_of(cohort)
    assert 'lesion load implausible' in rows['sub-08']['quality']
    assert 'load' not in rows['sub-07']['quality']


def test_columns_and_remarks_on_the_quality_of_images(cohort):
    flag = {'Code': 'noise', 'Value': 2.1, 'Threshold': 5.0, 'Text': 'noise: only 2.1 times'}
    for label, flags in (('01', []), ('02', [flag])):
        metrics = {'tissue_snr': 21.5, 'cnr': None, 'registration_shift': 3.0}
        quality = {'Metrics': metrics, 'Flags': flags, 'NotAvailable': {'cnr': 'no air'}}
        names = UnitNames(cohort.output_dir, label, None, 'T1w')
        add_summary(names, 'x', image_quality={'FLAIR': quality})
    assert run_group_level(cohort, show=lambda text: None) == 0
    rows = rows_of(cohort)
    assert rows['sub-01']['FLAIR_tissue_snr'] == '21.5'
    assert rows['sub-01']['FLAIR_cnr'] == 'n/a'
    assert rows['sub-03']['FLAIR_tissue_snr'] == 'n/a'
    assert 'FLAIR_registration_shift' not in rows['sub-01']  # in the JSON alone
    assert not [name for name in rows['sub-01'] if name.startswith('T1w_')]
    assert rows['sub-01']['quality'] == 'n/a'
    assert rows['sub-02']['quality'] == 'FLAIR: noise: only 2.1 times'
    columns = json.loads((cohort.output_dir / 'group_lesions.json').read_text())
    assert list(columns) == list(rows['sub-01'])
    assert 'SNR in tissue' in (cohort.output_dir / 'group_report.html').read_text()


def test_a_table_of_the_former_spelling_counts(cohort):
    path = UnitNames(cohort.output_dir, '02', None, 'T1w').path('anat.volumes')
    path.write_text(path.read_text().replace('_mm3', '-mm3'))
    assert run_group_level(cohort, show=lambda text: None) == 0
    assert rows_of(cohort)['sub-02']['brain_volume_mm3'] == '1400000'


def test_the_share_of_participants(cohort):
    run_group_level(cohort, show=lambda text: None)
    name = 'group_space-MNI152NLin2009aSym_lesion-frequency'
    image = nib.load(cohort.output_dir / f'{name}.nii.gz')
    assert float(np.asarray(image.dataobj).max()) == pytest.approx(6 / 7)
    content = json.loads((cohort.output_dir / f'{name}.json').read_text())
    assert len(content['Participants']) == 7


def test_a_participant_counts_once_with_all_sessions(tmp_path, make_dataset):
    root = make_dataset(['sub-1/ses-a/anat', 'sub-1/ses-b/anat', 'sub-2/ses-a/anat'])
    for subject, session, volume in (('1', 'a', 9.0), ('1', 'b', 9.0), ('2', 'a', 0.0)):
        add_result(tmp_path / 'out', subject, volume, session=session)
    run_group_level(GroupSettings(root, tmp_path / 'out', tmp_path / 'w'), show=lambda text: None)
    name = 'group_space-MNI152NLin2009aSym_lesion-frequency.nii.gz'
    assert float(np.asarray(nib.load(tmp_path / 'out' / name).dataobj).max()) == 0.5


def test_a_damaged_result_is_reported_and_the_others_are_done(cohort):
    names = UnitNames(cohort.output_dir, '02', None, 'T1w')
    names.path('anat.volumes').write_text('index\tname\n0\tall\n')
    assert run_group_level(cohort, show=lambda text: None) == 1
    assert len(rows_of(cohort)) == 6
    assert 'sub-02' in (cohort.output_dir / 'group_report.html').read_text()


def test_a_summary_that_is_no_object_costs_its_pages_alone(cohort, caplog):
    names = UnitNames(cohort.output_dir, '02', None, 'T1w')
    path = names.path('report.summary')
    path.parent.mkdir(exist_ok=True)
    path.write_text('[1]')
    assert run_group_level(cohort, show=lambda text: None) == 0
    assert len(rows_of(cohort)) == 7
    assert caplog.text.count(f'{path.name}: not readable JSON (not an object') == 1


@pytest.mark.parametrize(
    'change',
    [{'model': 5}, {'methods': [1]}, {'inputs': 5}, {'reference': []}, {'status': None}],
    ids=lambda change: next(iter(change)),
)
def test_a_summary_of_other_types_costs_its_pages_alone(cohort, caplog, change):
    add_summary(UnitNames(cohort.output_dir, '02', None, 'T1w'), 'x', **change)
    assert run_group_level(cohort, show=lambda text: None) == 0
    assert len(rows_of(cohort)) == 7
    assert f'"{next(iter(change))}" is missing or of another type' in caplog.text


@pytest.mark.parametrize(
    ('change', 'key'),
    [
        ({'Model': 5}, 'Model'),
        ({'Model': {}}, 'Model.Name'),
        ({'Model': {'Name': 'm'}}, 'Model.Version'),
        ({'Model': {'Name': 'm', 'Version': {}}}, 'Model.Version'),
        ({'Channels': 5}, 'Channels'),
        ({'Channels': [5, 'FLAIR']}, 'Channels'),
    ],
    ids=str,
)
def test_a_result_without_its_model_costs_that_result(cohort, caplog, change, key):
    path = UnitNames(cohort.output_dir, '02', None, 'T1w').done_marker
    write_json(path, json.loads(path.read_text()) | change)
    assert run_group_level(cohort, show=lambda text: None) == 1
    assert sorted(rows_of(cohort)) == [f'sub-0{n}' for n in (1, 3, 4, 5, 6, 7)]
    assert f'{path.name}: {key} is missing, or of another type' in caplog.text


def test_a_damaged_report_of_an_adaptation_is_left_out(cohort, caplog):
    some = {'Label': 'b', 'Performance': [], 'Comparison': {}}
    for label, content in (('a', {}), ('b', some)):
        write_json(cohort.output_dir / 'models' / label / 'report.json', content)
    assert run_group_level(cohort, show=lambda text: None) == 0
    assert caplog.text.count('report.json: not the report of an adaptation') == 2


def test_a_result_whose_json_is_no_object_costs_that_result(cohort, caplog):
    names = UnitNames(cohort.output_dir, '02', None, 'T1w')
    names.done_marker.write_text('[1]')
    assert stored_configuration(names) == ''
    assert run_group_level(cohort, show=lambda text: None) == 1
    assert sorted(rows_of(cohort)) == [f'sub-0{n}' for n in (1, 3, 4, 5, 6, 7)]
    assert f'{names.done_marker.name}: not readable JSON' in caplog.text


def test_a_dry_run_ends_with_the_code_of_the_run(cohort, caplog):
    dry = replace(cohort, dry_run=True)
    assert run_group_level(dry, show=lambda text: None) == 0
    UnitNames(cohort.output_dir, '02', None, 'T1w').done_marker.write_text('{')
    assert run_group_level(dry, show=lambda text: None) == 1
    assert 'not readable JSON' in caplog.text
    assert not (cohort.output_dir / 'group_lesions.tsv').exists()


def test_one_result_is_counted_in_the_singular(cohort):
    lines: list[str] = []
    one = replace(cohort, participants=('02',))
    assert run_group_level(one, show=lines.append) == 0
    assert '1 result of 1 participant' in lines


def test_no_results(cohort):
    shutil.rmtree(cohort.output_dir)
    with pytest.raises(NoInputError, match='participant'):
        run_group_level(cohort, show=lambda text: None)


@pytest.mark.parametrize('encoding', ['latin-1', 'utf-16', 'utf-8-sig'])
@pytest.mark.parametrize('prefix', ['sub-', ''])
def test_covariates_in_any_encoding_by_ids_with_and_without_prefix(cohort, encoding, prefix):
    table = f'participant_id\tage\tgroup\n{prefix}01\t31\tKöln\n{prefix}02\t32\tZürich\n'
    (cohort.bids_dir / 'participants.tsv').write_bytes(table.encode(encoding))
    assert run_group_level(cohort, show=lambda text: None) == 0
    rows = rows_of(cohort)
    assert (rows['sub-01']['age'], rows['sub-01']['group']) == ('31', 'Köln')
    assert rows['sub-02']['group'] == 'Zürich'
    assert rows['sub-03']['age'] == 'n/a'


def test_one_warning_names_a_table_in_another_encoding(cohort, caplog):
    table = 'participant_id\tgroup\n01\tKöln\n'
    (cohort.bids_dir / 'participants.tsv').write_bytes(table.encode('latin-1'))
    run_group_level(cohort, show=lambda text: None)
    assert caplog.text.count('participants.tsv: not in UTF-8, read as Latin-1') == 1


def test_a_table_that_cannot_be_used_costs_itself(cohort, caplog):
    (cohort.bids_dir / 'participants.tsv').write_bytes(b'age;sex\n31;F\n')
    assert run_group_level(cohort, show=lambda text: None) == 0
    assert {row['age'] for row in rows_of(cohort).values()} == {'n/a'}
    assert caplog.text.count('participants.tsv: left out') == 1


def test_a_stray_quote_in_a_table_costs_no_row(cohort):
    lines = ['participant_id\tage\tgroup', '01\t31\t"a ""b"" c"', '02\t"32\tx', '03\t33']
    (cohort.bids_dir / 'participants.tsv').write_text('\n'.join(lines))
    assert run_group_level(cohort, show=lambda text: None) == 0
    rows = rows_of(cohort)
    assert (rows['sub-01']['age'], rows['sub-01']['group']) == ('31', 'a "b" c')
    assert (rows['sub-03']['age'], rows['sub-03']['group']) == ('33', 'n/a')


def test_sessions_are_matched_with_and_without_prefix_in_any_encoding(tmp_path, make_dataset):
    root = make_dataset(
        {
            'sub-1/ses-a/anat': None,
            'sub-1/ses-b/anat': None,
            'sub-1/sub-1_sessions.tsv': 'session_id\tage\tgroup\nses-a\t40\tä\nb\t41\tö\n'.encode(
                'latin-1'
            ),
        }
    )
    for session in ('a', 'b'):
        add_result(tmp_path / 'out', '1', 9.0, session=session)
    settings = GroupSettings(root, tmp_path / 'out', tmp_path / 'w')
    assert run_group_level(settings, show=lambda text: None) == 0
    with open(tmp_path / 'out' / 'group_lesions.tsv', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert [(row['age'], row['group']) for row in rows] == [('40', 'ä'), ('41', 'ö')]


def test_an_unknown_value_of_a_session_leaves_that_of_the_participant(tmp_path, make_dataset):
    root = make_dataset(
        {
            'participants.tsv': 'participant_id\tage\tgroup\nsub-1\t40\tMS\n',
            'sub-1/ses-a/anat': None,
            'sub-1/sub-1_sessions.tsv': 'session_id\tage\tgroup\nses-a\tn/a\t\n',
        }
    )
    add_result(tmp_path / 'out', '1', 9.0, session='a')
    settings = GroupSettings(root, tmp_path / 'out', tmp_path / 'w')
    assert run_group_level(settings, show=lambda text: None) == 0
    (row,) = rows_of(settings).values()
    assert (row['age'], row['group']) == ('40', 'MS')


def test_changes_are_withheld_where_any_session_was_segmented_again(tmp_path, make_dataset):
    root = make_dataset({'sub-1/ses-a/anat': None, 'sub-1/ses-b/anat': None})
    out = tmp_path / 'out'
    first, second = (add_result(out, '1', 9.0, session=session) for session in 'ab')
    for names in (first, second):
        add_summary(names, 'x')
    pair = {'before': 'a', 'after': 'b', 'years': 1.0, 'new': 7, 'new_per_year': 7.0}
    pair |= dict.fromkeys(('enlarging', 'shrinking', 'resolved', 'stable'), 0)
    compared = {
        'subject': '1',
        'session': None,
        'model': '',
        'status': 'done',
        'configurations': {'a': 'x', 'b': 'x'},
        'pairs': [pair | {'volume_change_mm3': 99.0}],
        'registration': {},
        **{key: [] for key in ('visits', 'lesions', 'figures')},
        **{key: [] for key in ('misfits', 'warnings', 'methods', 'outputs')},
    }
    write_json(UnitNames(out, '1', None).path('longitudinal.summary'), compared)
    settings = GroupSettings(root, out, tmp_path / 'w')

    def row_of_second() -> dict[str, str]:
        assert run_group_level(settings, show=lambda text: None) == 0
        with open(out / 'group_lesions.tsv', newline='') as stream:
            return list(csv.DictReader(stream, delimiter='\t'))[1]

    assert row_of_second()['new_lesions'] == '7'
    sidecar = json.loads(first.done_marker.read_text())
    write_json(first.done_marker, sidecar | {'ConfigurationHash': 'new'})
    add_summary(first, 'new')
    row = row_of_second()
    assert row['new_lesions'] == row['lesion_change_mm3'] == 'n/a'
    assert 'results have changed since the sessions were compared' in row['quality']


@pytest.mark.parametrize('kept', ['', 'index', 'row', 'rows', 'value'])
def test_a_table_of_volumes_that_was_cut_costs_that_result(cohort, caplog, kept):
    path = UnitNames(cohort.output_dir, '02', None, 'T1w').path('anat.volumes')
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    cut = {
        '': '',
        'index': 'index\tname\n0\tall\n',
        'row': text[: len(lines[0]) + 12],
        'rows': ''.join(lines[:2]),
        'value': text[:-2],
    }
    path.write_text(cut[kept])
    assert run_group_level(cohort, show=lambda text: None) == 1
    assert sorted(rows_of(cohort)) == [f'sub-0{n}' for n in (1, 3, 4, 5, 6, 7)]
    assert f'{path.name}: a damaged or missing result (the table is cut: no whole' in caplog.text


@pytest.mark.parametrize('value', ['nan', '-14389'])
def test_a_volume_that_is_none_costs_that_result(cohort, caplog, value):
    path = UnitNames(cohort.output_dir, '02', None, 'T1w').path('anat.volumes')
    header, whole, *rest = path.read_text().splitlines(keepends=True)
    cells = whole.split('\t')
    cells[header.rstrip().replace('-mm3', '_mm3').split('\t').index('volume_mm3')] = value
    path.write_text(header + '\t'.join(cells) + ''.join(rest))
    assert run_group_level(cohort, show=lambda text: None) == 1
    assert 'sub-02' not in rows_of(cohort)
    assert f'{value} is no count and no volume' in caplog.text


@pytest.mark.parametrize('number', ['0', 'nan'])
def test_a_transform_without_an_inverse_costs_that_result(cohort, caplog, number):
    names = UnitNames(cohort.output_dir, '02', None, 'T1w')
    path = names.path('anat.transform', source='T1w', target=ATLAS_SPACE)
    row = 'Parameters: ' + ' '.join([number] * 12)
    path.write_text(re.sub('^Parameters:.*', row, path.read_text(), flags=re.M))
    assert run_group_level(cohort, show=lambda text: None) == 1
    assert 'sub-02' not in rows_of(cohort)
    assert 'singular or not finite' in caplog.text


def test_a_damaged_part_of_a_result_costs_that_result(cohort, caplog):
    names = UnitNames(cohort.output_dir, '02', None, 'T1w')
    names.path('anat.transform', source='T1w', target=ATLAS_SPACE).write_text('nothing')
    UnitNames(cohort.output_dir, '03', None, 'T1w').done_marker.write_text('{"Model"')
    mask = UnitNames(cohort.output_dir, '05', None, 'T1w').path('anat.mask')
    mask.write_bytes(mask.read_bytes()[:-40])
    assert run_group_level(cohort, show=lambda text: None) == 1
    assert sorted(rows_of(cohort)) == ['sub-01', 'sub-04', 'sub-06', 'sub-07']
    page = (cohort.output_dir / 'group_report.html').read_text()
    assert '4 participants, 4 results, <a href="#failed">4 without a result</a>' in page
    assert 'mode-image_xfm.txt: not a readable transform (not an ITK' in caplog.text
    assert caplog.text.count(PROCESS_AGAIN) == 3
    name = 'group_space-MNI152NLin2009aSym_lesion-frequency.json'
    content = json.loads((cohort.output_dir / name).read_text())
    assert content['Participants'] == ['sub-01', 'sub-04', 'sub-06', 'sub-07']


@pytest.mark.parametrize('with_summary', [True, False])
def test_results_on_the_grids_of_two_references_count_once(cohort, caplog, with_summary):
    """As an older version left them when the reference had changed."""
    names = add_result(cohort.output_dir, '01', 1.0, reference='FLAIR', ConfigurationHash='new')
    if with_summary:
        add_summary(names, 'new')
    shown: list[str] = []
    assert run_group_level(cohort, show=shown.append) == 0
    with open(cohort.output_dir / 'group_lesions.tsv', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert [r['reference'] for r in rows if r['participant_id'] == 'sub-01'] == ['FLAIR']
    assert len(rows) == 7
    assert 'sub-01: the result is from an earlier choice' in caplog.text
    name = 'group_space-MNI152NLin2009aSym_lesion-frequency.json'
    people = json.loads((cohort.output_dir / name).read_text())['Participants']
    assert people.count('sub-01') == 1


def test_a_result_that_the_last_run_could_not_renew_is_left_out_with_the_reason(cohort):
    add_summary(UnitNames(cohort.output_dir, '02', None, 'T1w'), 'of other images')
    shown: list[str] = []
    assert run_group_level(cohort, show=shown.append) == 0
    assert 'sub-02' not in rows_of(cohort)
    assert any('without result' in line and 'sub-02' in line for line in shown)
    assert 'earlier choice of images' in (cohort.output_dir / 'group_report.html').read_text()


def test_the_map_of_a_sloppy_cohort_is_marked(cohort):
    for subject in ('01', '02'):
        add_result(cohort.output_dir, subject, 5.0, Sloppy=True)
    assert run_group_level(replace(cohort, participants=('01', '02'))) == 0
    name = 'group_space-MNI152NLin2009aSym_lesion-frequency.json'
    assert json.loads((cohort.output_dir / name).read_text())['Sloppy'] is True


def test_a_sloppy_result_beside_usual_ones_is_left_out(cohort):
    add_result(cohort.output_dir, '02', 5.0, Sloppy=True)
    shown: list[str] = []
    assert run_group_level(cohort, show=shown.append) == 0
    assert 'sub-02' not in rows_of(cohort)
    assert any('without result' in line and 'sub-02' in line for line in shown)
    assert (
        'result is of --sloppy, others are not'
        in (cohort.output_dir / 'group_report.html').read_text()
    )
    name = 'group_space-MNI152NLin2009aSym_lesion-frequency.json'
    assert 'sub-02' not in json.loads((cohort.output_dir / name).read_text())['Participants']


def test_results_with_different_settings_are_named(cohort, caplog):
    out = cohort.output_dir
    for number in range(1, 8):
        add_result(out, f'0{number}', 5.0, Threshold=0.5, MinimumLesionVolume=3.0)
    assert run_group_level(cohort, show=lambda text: None) == 0
    assert 'different' not in caplog.text
    for subject in ('02', '04'):
        add_result(out, subject, 5.0, Threshold=0.5, MinimumLesionVolume=10.0)
    assert run_group_level(cohort, show=lambda text: None) == 0
    text = 'results have different least volumes of a lesion (3 mm³ in 5 sessions; 10 mm³ in '
    assert f'the default model: the {text}sub-02, sub-04)' in caplog.text
    assert f'<p>The {text}sub-02, sub-04)' in (out / 'group_report.html').read_text()
    assert 'different thresholds' not in caplog.text
    own = find_model(None, out).threshold_for(['T1w'])
    more = '' if own == 0.5 else '--threshold 0.5 '
    command = f'participant --min-lesion-volume 3 {more}--participant-label 02 04'
    assert f'cannot be compared; run "{command}" again, with its other options' in caplog.text


def test_the_command_for_results_of_different_settings_has_the_model(tmp_path):
    """As an option takes it: the name of a bundled one, the label of one of the site."""
    own = find_model('fast-3t', tmp_path)

    def remedy(key: str, values: list[float], **sidecar: object) -> str:
        results = []
        for number, value in enumerate(values, start=1):
            names = UnitNames(tmp_path, f'0{number}', None, 'T1w', str(sidecar['desc']))
            content = {'Channels': ['T1w'], 'Threshold': own.threshold_for(['T1w'])}
            results.append(Result(names, content | sidecar | {key: value}))
        ((text,),) = mixed_settings(results).values()
        return text.partition('cannot be compared; ')[2]

    end = ' again, with its other options as before'
    command = '"participant --model fast-3t --min-lesion-volume 3 --participant-label 03 04"'
    volumes = [3.0, 3.0, 10.0, 5.0]
    assert remedy('MinimumLesionVolume', volumes, desc='fast3t') == f'run {command}{end}'
    command = '"participant --model fast-3t --min-lesion-volume 3 --threshold 0.77 --participant-'
    text = remedy('MinimumLesionVolume', volumes, desc='fast3t', Threshold=0.77)
    assert text.startswith(f'run {command}')
    text = remedy('Threshold', [0.4, 0.6, 0.6], desc='fast3t')
    assert text == f'run "participant --model fast-3t --threshold 0.6 --participant-label 01"{end}'
    text = remedy('MinimumLesionVolume', volumes, desc='elsewhere')
    assert text.startswith('run "participant --model PATH --min-lesion-volume 3')
    shutil.copytree(own.folder, tmp_path / 'models/mine')
    card = json.loads((tmp_path / 'models/mine/model.json').read_text())
    write_json(tmp_path / 'models/mine/model.json', card | {'Name': 'ours', 'Label': 'mine'})
    text = remedy('MinimumLesionVolume', volumes, desc='mine')
    assert text.startswith('run "participant --model mine --min-lesion-volume 3 --participant')
    text = remedy('MinimumLesionVolume', [3.0] * 9 + [4.0] * 21, desc='fast3t')
    assert '--participant-label 01 02' in text
    text = remedy('MinimumLesionVolume', [3.0] * 30 + [4.0] * 21, desc='fast3t')
    assert text == f'run "participant --model fast-3t --min-lesion-volume 3"{end}'
    # segmented again, by a recalibrated or an adapted model
    text = remedy('MinimumLesionVolume', volumes, desc='calibrated', FirstResult='fast3t')
    assert text == (
        'run "participant --model fast-3t --calibrate-from LABELS --min-lesion-volume 3 '
        f'--participant-label 03 04"{end}'
    )
    text = remedy('MinimumLesionVolume', volumes, desc='mine', FirstResult='')
    command = '"participant --min-lesion-volume 3 --participant-label 03 04"'
    assert text == f'run {command}{end}; then adapt again'
    text = remedy('Threshold', [0.4, 0.4, 0.6], desc='calibrated', FirstResult='fast3t')
    assert text == 'run the command with --calibrate-from again'


def test_sessions_that_a_model_of_the_site_lacks_are_named(cohort, caplog):
    shown: list[str] = []
    add_result(cohort.output_dir, '01', 5.0, desc='fast3t')  # of the participant level
    assert run_group_level(cohort, show=shown.append) == 0
    assert 'no result of' not in caplog.text
    for subject in ('01', '03'):
        add_result(cohort.output_dir, subject, 5.0, desc='calibrated', FirstResult='')
    assert run_group_level(replace(cohort, participants=('01', '03')), show=shown.append) == 0
    assert 'no result of' not in caplog.text
    assert run_group_level(cohort, show=shown.append) == 0
    text = (
        'no result of sub-02, sub-04, sub-05, sub-06, sub-07: its numbers are of 2 of 7 sessions, '
        'and cannot be compared with those of other models; run the same "participant '
        '--calibrate-from" command again'
    )
    assert f'calibrated: {text}' in caplog.text
    page = (cohort.output_dir / 'group_report.html').read_text()
    assert page.count('o result of sub-02, sub-04, sub-05') == 1


def test_thresholds_are_compared_among_results_of_the_same_contrasts(cohort, caplog):
    add_result(cohort.output_dir, '01', 5.0, Threshold=0.4, Channels=['FLAIR'])
    for number in range(2, 8):
        add_result(cohort.output_dir, f'0{number}', 5.0, Threshold=0.5)
    assert run_group_level(cohort, show=lambda text: None) == 0
    assert 'different' not in caplog.text
    add_result(cohort.output_dir, '02', 5.0, Threshold=0.6)
    assert run_group_level(cohort, show=lambda text: None) == 0
    assert 'the results of T1w have different thresholds (0.5 in 5 sessions; 0.6 in sub-02)' in (
        caplog.text
    )


def test_a_second_result_counts_as_long_as_the_images_that_it_was_made_from(cohort):
    out = cohort.output_dir
    for subject, images in (('01', 'new'), ('02', 'old')):
        add_result(out, subject, 5.0, PreprocessingHash='new')
        more = {'FirstResult': '', 'PreprocessingHash': images}
        add_result(out, subject, 6.0, desc='adapted', **more)
    assert run_group_level(cohort, show=lambda text: None) == 0
    with open(out / 'group_lesions.tsv', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    people = [r['participant_id'] for r in rows]
    assert [people.count(one) for one in ('sub-01', 'sub-02', 'sub-03')] == [2, 1, 1]


def test_a_damaged_marker_costs_its_participant_alone(cohort):
    UnitNames(cohort.output_dir, '02', None, 'T1w').done_marker.write_text('{"Model": ')
    assert run_group_level(cohort, show=lambda text: None) == 1
    assert sorted(rows_of(cohort)) == [f'sub-0{n}' for n in (1, 3, 4, 5, 6, 7)]
    assert 'sub-02' in (cohort.output_dir / 'group_report.html').read_text()


def test_a_result_whose_images_another_model_replaced_is_left_out(cohort):
    names = UnitNames(cohort.output_dir, '02', None, 'T1w')
    marker = json.loads(names.done_marker.read_text())
    write_json(names.done_marker, marker | {'PreprocessingHash': 'of one model'})
    mask = sidecar_path(names.path('anat.brain_mask'))
    write_json(mask, {'PreprocessingHash': 'of one model'})
    assert run_group_level(cohort, show=lambda text: None) == 0
    assert 'sub-02' in rows_of(cohort)
    write_json(mask, {'PreprocessingHash': 'of another'})
    assert run_group_level(cohort, show=lambda text: None) == 0
    assert 'sub-02' not in rows_of(cohort)
    assert 'earlier choice of images' in (cohort.output_dir / 'group_report.html').read_text()


def test_what_another_node_is_writing_is_no_result(cohort):
    folder = cohort.output_dir / 'sub-08' / 'anat'
    folder.mkdir(parents=True)
    (folder / '.tmp-node7-12-sub-08_space-T1w_label-L_mask.json').write_text('{"Mo')
    figures = cohort.output_dir / 'sub-01' / 'figures'
    figures.mkdir(parents=True)
    (figures / '.tmp-node7-12-sub-01_desc-summary_report.json').write_text('{"subj')
    assert run_group_level(cohort, show=lambda text: None) == 0
    assert len(rows_of(cohort)) == 7


def test_the_newest_adaptation_stands_first(cohort):
    facts = {
        **{'Parent': 'm', 'Accepted': False, 'Reason': 'worse', 'Slices': False},
        **{'Strategy': 'supervised', 'Steps': 3, 'Device': 'cpu', 'Minutes': 1, 'Labelled': 2},
        **{'Sessions': 7, 'LeftOut': [], 'Performance': [], 'Comparison': {}, 'Annotate': []},
    }
    for label, seconds in (('a', 2000), ('b', 3000), ('c', 1000)):
        path = cohort.output_dir / 'models' / label / 'report.json'
        write_json(path, facts | {'Label': label})
        os.utime(path, (seconds, seconds))
    assert run_group_level(cohort, show=lambda text: None) == 0
    page = (cohort.output_dir / 'group_report.html').read_text()
    assert re.findall(r'<h2>Adaptation to your site: (.)', page) == ['b', 'a', 'c']


def test_the_map_is_of_the_next_model_where_none_of_the_first_can_be_read(cohort, caplog):
    """One result of each model; that of the default model has a damaged transform."""
    add_result(cohort.output_dir, '02', 5.0, desc='mine')
    UnitNames(cohort.output_dir, '02', None, 'T1w').done_marker.unlink()
    damaged = UnitNames(cohort.output_dir, '01', None, 'T1w')
    damaged.path('anat.transform', source='T1w', target=ATLAS_SPACE).write_text('x')
    two = replace(cohort, participants=('01', '02'))
    assert run_group_level(two, show=lambda text: None) == 1
    assert sorted(rows_of(cohort)) == ['sub-02']
    assert 'sub-01: ' in caplog.text
    assert 'not a readable transform' in caplog.text
    name = 'group_space-MNI152NLin2009aSym_lesion-frequency.json'
    content = json.loads((cohort.output_dir / name).read_text())
    assert (content['Model'], content['Participants']) == ('mine', ['sub-02'])


def test_where_no_result_can_be_read_all_are_named_with_one_path_each(cohort, caplog):
    paths = []
    for subject in ('01', '02'):
        names = UnitNames(cohort.output_dir, subject, None, 'T1w')
        paths.append(names.path('anat.transform', source='T1w', target=ATLAS_SPACE))
        paths[-1].write_text('x')
    with pytest.raises(DataError, match='not a readable transform') as raised:
        run_group_level(replace(cohort, participants=('01', '02')), show=lambda text: None)
    assert str(raised.value).startswith(f'{paths[0]}: not')
    assert f'sub-02: {paths[1]}: not' in caplog.text
