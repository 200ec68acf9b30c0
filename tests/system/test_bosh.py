"""``bosh exec launch`` with the Boutiques descriptor, without a container."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running_app import command

from ssl2_bids.cli.boutiques import descriptor
from ssl2_bids.cli.parser import build_parser

pytestmark = [pytest.mark.slow, pytest.mark.client]


@pytest.fixture
def bosh(tmp_path, monkeypatch):
    """A function that launches an invocation; it returns the exit code and the output."""
    program = shutil.which('bosh', path=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    if program is None:
        pytest.skip('boutiques is not installed (extra clients)')
    ours = tmp_path / 'bin' / 'ssl2-bids'
    ours.parent.mkdir()
    ours.write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
    ours.chmod(0o755)
    monkeypatch.setenv('PATH', f'{ours.parent}:{os.environ["PATH"]}')
    (tmp_path / 'descriptor.json').write_text(json.dumps(descriptor(build_parser())))

    def launch(**options: object) -> tuple[int, str]:
        (tmp_path / 'invocation.json').write_text(json.dumps(options))
        done = subprocess.run(
            [program, 'exec', 'launch', '--no-container', '--skip-data-collection',
             'descriptor.json', 'invocation.json'],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return launch


def found_files(output: str) -> str:
    """The part of bosh's report that lists the output files."""
    return output.partition('Output files')[2].partition('Missing files')[0]


def test_a_participant_and_its_results(bosh, simulated, tmp_path):
    words = {'bids_dir': str(simulated), 'output_dir': str(tmp_path / 'out')}
    words |= {'analysis_level': 'participant', 'work_dir': str(tmp_path / 'work')}
    code, output = bosh(**words, participant_label=['01'], sloppy=True, nprocs=1)
    assert code == 0, output
    assert '1 done (exit code 0)' in output
    assert 'sub-01/anat/' in found_files(output), output
    assert 'sub-01.html' in found_files(output)


def test_an_exit_code_and_its_meaning(bosh, make_dataset, tmp_path):
    data = make_dataset(['sub-01/anat/sub-01_FLAIR.nii.gz'])
    words = {'bids_dir': str(data), 'output_dir': str(tmp_path / 'out')}
    code, output = bosh(**words, analysis_level='participant', participant_label=['99'])
    assert code == 18, output
    meaning = {
        one['code']: one['description'] for one in descriptor(build_parser())['error-codes']
    }
    assert meaning[18] in output
