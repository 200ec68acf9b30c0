"""What an output folder states of the dataset that it belongs to."""

from __future__ import annotations

import json

from ssl2_bids.bids.provenance import write_dataset_files


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
