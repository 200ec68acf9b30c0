"""The one list of contrasts: what is added there is known everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from site_phantom import CARD

from ssl2_bids import contrasts
from ssl2_bids.networks.registry import new_network
from ssl2_bids.networks.weights import write_model
from ssl2_bids.simulation.scanner.protocol_checks import KINDS_OF_SUFFIX
from ssl2_bids.synthesis.appearance import CHANNELS, CONTRAST_SETS, MEANS

# the App, with a line more in the list
WITH_PDW = """
import sys, types
from pathlib import Path
import ssl2_bids
path = Path(ssl2_bids.__file__).with_name('contrasts.py')
line = "    Contrast('T2w'),\\n"
source = path.read_text()
assert source.count(line) == 1
module = types.ModuleType('ssl2_bids.contrasts')
sys.modules[module.__name__] = ssl2_bids.contrasts = module
exec(compile(source.replace(line, line + "    Contrast('PDw'),\\n"), path, 'exec'), vars(module))
from ssl2_bids.cli.app import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def dataset(make_dataset):
    names = ('FLAIR', 'acq-a_PDw', 'acq-b_PDw', 'T1w')
    return make_dataset([f'sub-01/anat/sub-01_{name}.nii.gz' for name in names])


@pytest.fixture
def model(tmp_path) -> Path:
    card = CARD | {'Name': 'pdw', 'Channels': ['FLAIR', 'PDw'], 'Required': [['PDw']]}
    write_model(tmp_path / 'pdw', new_network(card['Network'], seed=0), card)
    return tmp_path / 'pdw'


def run_with_pdw(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, '-c', WITH_PDW, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_contrast_of_the_list_is_chosen_narrowed_and_used_as_reference(dataset, model, tmp_path):
    chosen = tmp_path / 'filter.json'
    chosen.write_text(json.dumps({'pdw': {'acquisition': 'b'}}))
    words = ('participant', '--dry-run', '--model', model, '--bids-filter-file', chosen)
    words += ('--contrasts', 'flair', 'pdw', '--reference', 'pdw', '--output-spaces', 'FLAIR')
    done = run_with_pdw(dataset, tmp_path / 'out', *words)
    assert done.returncode == 0, done.stderr
    assert 'use    PDw (reference): sub-01/anat/sub-01_acq-b_PDw.nii.gz' in done.stdout
    assert 'use    FLAIR: sub-01/anat/sub-01_FLAIR.nii.gz' in done.stdout
    assert 'sub-01_space-PDw_label-L_desc-pdw_mask.nii.gz' in done.stdout
    assert 'sub-01_acq-b_desc-preproc_PDw.nii.gz' in done.stdout


def test_a_contrast_of_the_list_is_an_output_space(dataset, tmp_path):
    words = (dataset, tmp_path / 'out', 'participant', '--dry-run', '--output-spaces', 'PDw')
    assert run_with_pdw(*words).returncode == 0
    run = Path(__file__).resolve().parents[1] / 'run.py'
    without = subprocess.run([sys.executable, run, *words], capture_output=True, text=True)
    assert without.returncode == 69
    assert 'UNIT1' in without.stderr


def test_training_and_simulation_know_contrasts_of_the_list_alone():
    assert set(CHANNELS) <= set(contrasts.SUFFIXES)
    assert MEANS.keys() == set(CHANNELS)
    assert {channel for channels, _ in CONTRAST_SETS for channel in channels} == set(CHANNELS)
    raw = {name for one in contrasts.CONTRASTS for name in (one.suffix, *one.other_suffixes)}
    assert KINDS_OF_SUFFIX.keys() <= raw


def test_a_contrast_stands_before_the_one_that_it_replaces():
    for one, similar in contrasts.SIMILAR.items():
        assert contrasts.SUFFIXES.index(one) < contrasts.SUFFIXES.index(similar)
