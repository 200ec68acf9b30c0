"""Names of outputs, tables and finished results."""

from __future__ import annotations

import json
import re
from importlib.resources import files

import pytest

from ssl2_bids.bids.dataset import is_own_dataset, makers_of
from ssl2_bids.bids.given_datasets import program_of
from ssl2_bids.bids.outputs import (
    MEMBERS,
    UnitNames,
    find_results,
    find_visits_summaries,
    join_entities,
    output_name,
    read_visits_summary,
    sidecar_path,
    stored_configuration,
    table_path,
    write_table,
)
from ssl2_bids.bids.provenance import BIDSIGNORE, bids_uri, raw_link
from ssl2_bids.errors import DataError
from ssl2_bids.files import write_json


@pytest.mark.parametrize('found', [5, {}, [], [1], 'ssl2-bids', None])
def test_a_description_whose_makers_cannot_be_read_has_none(tmp_path, found):
    path = tmp_path / 'dataset_description.json'
    path.write_text(json.dumps({'Name': 'x', 'GeneratedBy': found}))
    assert (makers_of(tmp_path), is_own_dataset(tmp_path)) == ([], False)
    assert program_of(tmp_path) == tmp_path.name
    path.write_text(json.dumps({'Name': 'x', 'GeneratedBy': [1, {'Name': 'ssl2-bids'}]}))
    assert (makers_of(tmp_path), is_own_dataset(tmp_path)) == ([{'Name': 'ssl2-bids'}], True)


@pytest.mark.parametrize(
    ('kind', 'entities', 'expected'),
    [
        (
            'anat.mask',
            {'subject': '01', 'space': 'UNIT1'},
            'sub-01/anat/sub-01_space-UNIT1_label-L_mask.nii.gz',
        ),
        (
            'anat.mask',
            {'subject': '01', 'session': 'a', 'space': 'T1w', 'desc': 'adapted'},
            'sub-01/ses-a/anat/sub-01_ses-a_space-T1w_label-L_desc-adapted_mask.nii.gz',
        ),
        (
            'anat.preproc_reference',
            {'subject': '1', 'contrast': 'T1w', 'entities': 'acq-x_run-2'},
            'sub-1/anat/sub-1_acq-x_run-2_desc-preproc_T1w.nii.gz',
        ),
        (
            'anat.uncertainty',
            {'subject': '1', 'space': 'T1w', 'desc': 'adapted'},
            'sub-1/anat/sub-1_space-T1w_label-L_desc-adapteduncertainty_probseg.nii.gz',
        ),
    ],
)
def test_names(kind, entities, expected):
    assert output_name(kind, **entities) == expected


def test_no_pattern_lets_a_raw_name_through():
    """A derivative must not bear a legal raw name."""
    text = files('ssl2_bids.resources').joinpath('outputs.toml').read_text()
    for line in text.splitlines():
        if 'nii.gz' in line and 'group_' not in line:
            assert re.search(r'_(desc|label|seg)-', line.split('=', 1)[1]), line


def test_entities_stand_in_the_order_of_the_schema():
    assert join_entities({'run': '1', 'acq': 'a', 'rec': 'n'}) == 'acq-a_rec-n_run-1'


def test_files_beside_an_image(tmp_path):
    image = tmp_path / 'sub-1_dseg.nii.gz'
    assert sidecar_path(image).name == 'sub-1_dseg.json'
    assert table_path(image).name == 'sub-1_dseg.tsv'


def test_missing_values_are_na(tmp_path):
    rows = [{'a': 1, 'b': None}, {'a': float('nan'), 'b': ''}, {'a': 1345942.25, 'b': 'x y'}]
    write_table(tmp_path / 't.tsv', rows, {'a': {'Units': 'mm'}, 'b': {}})
    lines = (tmp_path / 't.tsv').read_text().splitlines()
    assert lines == ['a\tb', '1\tn/a', 'n/a\tn/a', '1345942.25\tx y']
    assert json.loads((tmp_path / 't.json').read_text())['a'] == {'Units': 'mm'}


def test_a_column_without_a_description_is_refused(tmp_path):
    rows = [{'volume_mm3': 1.0, 'colour': 'grey'}]
    with pytest.raises(ValueError, match=r't\.tsv: the column colour is not described'):
        write_table(tmp_path / 't.tsv', rows, {'volume_mm3': {'Description': 'volume'}})
    assert not any(tmp_path.iterdir())


def test_a_result_is_finished_when_its_mask_has_a_sidecar(tmp_path):
    names = UnitNames(tmp_path, '01', 'x', 'T1w')
    mask = names.path('anat.mask')
    mask.parent.mkdir(parents=True)
    mask.touch()
    assert find_results(tmp_path) == []
    assert stored_configuration(names) == ''
    names.done_marker.write_text('{"ConfigurationHash": "abc"}')
    elsewhere = names.path('anat.mask', space='FLAIR')
    elsewhere.touch()
    sidecar_path(elsewhere).write_text('{}')
    (result,) = find_results(tmp_path)
    assert (result.names, stored_configuration(names)) == (names, 'abc')
    folder = mask.parent.rename(tmp_path / 'elsewhere')
    mask.parent.symlink_to(folder)  # as some storage systems keep large folders
    assert [one.names for one in find_results(tmp_path)] == [names]


def test_uris_and_links(tmp_path):
    root = tmp_path / 'mit Leerzeichen'
    path = root / 'sub-01' / 'a b.nii.gz'
    assert bids_uri(path, root, 'raw') == 'bids:raw:sub-01/a%20b.nii.gz'
    assert raw_link(root / 'derivatives' / 'ssl2-bids', root) == '../..'
    assert raw_link(tmp_path / 'out', root).startswith('file:///')
    assert raw_link(tmp_path / 'out', root).endswith('mit%20Leerzeichen')


def test_bidsignore_covers_all_that_the_schema_does_not_know():
    assert set(BIDSIGNORE.split()) == {
        '*.html',
        'figures',
        'models',
        'group_*',
        '*_xfm.*',
        '*_morph.*',
        '*_quality.json',
        '*_cohort-*',
        '*_space-within_*',
        '*_long.*',
        '.ssl2-bids-group.lock',
        '.ssl2-bids-dataset.lock',
    }


VISITS = {
    'subject': '01', 'model': '', 'status': 'done', 'configurations': {}, 'misfits': [],
    'warnings': [], 'methods': [], 'outputs': [], 'registration': {},
    'visits': [
        {'session': '1', 'time': None, 'years': None, 'lesion_count': 1, 'volume_mm3': 9.0}
    ],
    'pairs': [
        {
            'before': '1', 'after': '2', 'years': None, 'new': 0, 'new_per_year': None,
            'enlarging': 0, 'shrinking': 0, 'resolved': 0, 'stable': 1, 'volume_change_mm3': 0.0,
        }
    ],
    'lesions': [
        {
            'index': 1, 'before': '1', 'after': '2', 'state': 'new', 'volume_before_mm3': 0.0,
            'volume_after_mm3': 9.0, 'change_mm3': 9.0, 'noise_bound_mm3': 6.0, 'region': 'x',
            'x': 0.0, 'y': 0.0, 'z': 0.0, 'figure': None,
        }
    ],
    'figures': [{'File': 'a.svg', 'Title': 'A'}],
}  # fmt: skip


@pytest.mark.parametrize('key', VISITS)
def test_a_comparison_that_lacks_a_part_is_left_out_with_a_warning(tmp_path, caplog, key):
    path = UnitNames(tmp_path, '01', None).path('longitudinal.summary')
    write_json(path, VISITS)
    assert find_visits_summaries(tmp_path, '01') == [VISITS]
    write_json(path, {k: v for k, v in VISITS.items() if k != key})
    assert find_visits_summaries(tmp_path, '01') == []
    assert f'{path.name}: "{key}" is missing or of another type' in caplog.text
    with pytest.raises(DataError, match=key):
        read_visits_summary(path)


@pytest.mark.parametrize(('key', 'member'), [(key, m) for key in MEMBERS for m in VISITS[key][0]])
def test_a_comparison_whose_lists_lack_a_part(tmp_path, key, member):
    path = UnitNames(tmp_path, '01', None).path('longitudinal.summary')
    write_json(path, VISITS | {key: [{k: v for k, v in VISITS[key][0].items() if k != member}]})
    with pytest.raises(DataError, match=f'"{member}" is missing in "{key}"'):
        read_visits_summary(path)
