"""What an output folder states of the dataset that it belongs to."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ssl2_bids.bids.dataset import read_table
from ssl2_bids.bids.provenance import describe_dataset, write_dataset_files
from ssl2_bids.bids.sidecars import image_sidecar
from ssl2_bids.errors import CannotWriteError


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


@pytest.mark.parametrize('before', ['', 'doi:', 'DOI: ', 'https://doi.org/', 'http://dx.doi.org/'])
def test_the_doi_of_the_dataset_is_named_once(tmp_path, before):
    raw = dataset(tmp_path / 'raw', 'One')
    content = json.loads((raw / 'dataset_description.json').read_text())
    written = json.dumps(content | {'DatasetDOI': f'{before}10.18112/x.v1'})
    (raw / 'dataset_description.json').write_text(written)
    described = describe_dataset(tmp_path / 'out', raw)
    assert described['SourceDatasets'] == [{'DOI': 'doi:10.18112/x.v1'}]


ADD = """
import sys
from pathlib import Path
from ssl2_bids.bids.provenance import write_dataset_files
out, raw, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
print('ready', flush=True)
sys.stdin.readline()
for number in range(25):
    more = f'{name}{number}'
    write_dataset_files(out, raw, {more: raw / more}, {more: more})
"""


def test_runs_side_by_side_lose_no_link_and_no_model(tmp_path):
    raw, out = dataset(tmp_path / 'raw', 'One'), tmp_path / 'out'
    out.mkdir()
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    words = [sys.executable, '-c', ADD, str(out), str(raw)]
    runs = [subprocess.Popen([*words, name], **pipes) for name in 'ab']
    for run in runs:
        assert run.stdout.readline() == 'ready\n'
    for run in runs:
        run.stdin.write('\n')
        run.stdin.flush()
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    names = {f'{name}{number}' for name in 'ab' for number in range(25)}
    description = json.loads((out / 'dataset_description.json').read_text())
    assert description['DatasetLinks'].keys() == {'raw', *names}
    rows = read_table(out / 'descriptions.tsv')
    assert {f'desc-{name}' for name in names} <= {row['desc_id'] for row in rows}
    assert not list(out.glob('*.lock'))
    assert not list(out.glob('.*.lock'))


def test_the_lock_of_another_run_stays(tmp_path, monkeypatch):
    def refuse(*given, **more):
        raise CannotWriteError('not permitted')

    raw, out = dataset(tmp_path / 'raw', 'One'), tmp_path / 'out'
    out.mkdir()
    (out / '.ssl2-bids-dataset.lock').touch()
    monkeypatch.setattr('ssl2_bids.bids.provenance.locked', refuse)
    write_dataset_files(out, raw)
    assert (out / 'dataset_description.json').is_file()
    assert (out / '.ssl2-bids-dataset.lock').is_file()


def test_a_lock_that_cannot_be_made_ends_no_run(tmp_path):
    raw, out = dataset(tmp_path / 'raw', 'One'), tmp_path / 'out'
    (out / '.ssl2-bids-dataset.lock').mkdir(parents=True)
    write_dataset_files(out, raw)
    assert (out / 'dataset_description.json').is_file()


def test_a_sidecar_repeats_no_value_that_cannot_be_meant():
    raw = {'MagneticFieldStrength': 30000, 'EchoTime': None, 'RepetitionTime': 2.3}
    made = image_sidecar(
        raw, description='x', sources=[], spatial_reference='orig', skull_stripped=False
    )
    assert made['RepetitionTime'] == 2.3
    assert not {'MagneticFieldStrength', 'EchoTime'} & made.keys()
