"""What an output folder states of the dataset that it belongs to."""

from __future__ import annotations

import json

from ssl2_bids.bids.dataset import read_table
from ssl2_bids.bids.provenance import write_dataset_files
from ssl2_bids.bids.sidecars import image_sidecar


def dataset(folder, name):
    folder.mkdir()
    content = {'Name': name, 'BIDSVersion': '1.10.0'}
    (folder / 'dataset_description.json').write_text(json.dumps(content))
    return folder


def test_results_of_another_dataset_in_the_folder_are_named(tmp_path, caplog):
    one, other = dataset(tmp_path / 'one', 'One'), dataset(tmp_path / 'other', 'Other')
    out = tmp_path / 'out'
    out.mkdir()
    write_dataset_files(out, one)
    write_dataset_files(out, one)
    assert caplog.text == ''
    write_dataset_files(out, other)
    assert 'holds results of another dataset ("Lesion segmentation of One"' in caplog.text


def test_another_folder_under_the_name_of_a_former_one_is_named(tmp_path, caplog):
    one, out = dataset(tmp_path / 'one', 'One'), tmp_path / 'out'
    out.mkdir()
    write_dataset_files(out, one, {'fmriprep': tmp_path / 'a', 'labels': tmp_path / 'b'})
    write_dataset_files(out, one, {'fmriprep': tmp_path / 'a', 'labels': tmp_path / 'more'})
    assert caplog.text == ''  # other labels are usual
    write_dataset_files(out, one, {'fmriprep': tmp_path / 'c'})
    assert f'the dataset fmriprep was {(tmp_path / "a").as_uri()} and is now' in caplog.text


def test_the_desc_of_each_model_is_described(tmp_path):
    one, out = dataset(tmp_path / 'one', 'One'), tmp_path / 'out'
    out.mkdir()
    write_dataset_files(out, one, models={'': 'committee-3t', 'tb1': 'committee-3t-tb1'})
    write_dataset_files(out, one, models={'fast3t': 'fast-3t', 'adapted': 'committee-3t-adapted'})
    table = read_table(out / 'descriptions.tsv')
    found = {row['desc_id']: row['description'] for row in table}
    assert found['desc-tb1'] == 'result of the model committee-3t-tb1'
    assert found['desc-fast3t'] == 'result of the model fast-3t'
    assert found['desc-adapted'] == 'result of a model that was adapted to the site'
    assert 'desc-' not in found
    assert len(found) == len(table)


def test_a_sidecar_repeats_no_value_that_cannot_be_meant():
    raw = {'MagneticFieldStrength': 30000, 'EchoTime': None, 'RepetitionTime': 2.3}
    made = image_sidecar(
        raw, description='x', sources=[], spatial_reference='orig', skull_stripped=False
    )
    assert made['RepetitionTime'] == 2.3
    assert not {'MagneticFieldStrength', 'EchoTime'} & made.keys()
