"""``bosh exec launch`` with the Boutiques descriptor, without a container and with the image."""

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
from running_image import IMAGE, RUNNER, engine

from ssl2_bids.cli.boutiques import descriptor
from ssl2_bids.cli.parser import build_parser

pytestmark = [pytest.mark.slow, pytest.mark.client]


@pytest.fixture
def bosh(tmp_path, monkeypatch):
    """A function that launches an invocation; it returns the exit code and the output."""
    program = shutil.which('bosh', path=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    if program is None:
        pytest.skip('boutiques is not installed (extra clients)')
    folder = tmp_path / 'bin'
    folder.mkdir()
    run_image = f'test "$1" != run || {{ shift; exec {shlex.join(RUNNER)} "$@"; }}\n'
    programs = {
        'ssl2-bids': f'exec {shlex.join(command())} "$@"\n',
        'docker': f'{run_image}exec {shlex.join(engine())} "$@"\n',
    }
    for name, text in programs.items():
        if name != 'docker' or IMAGE:
            (folder / name).write_text(f'#!/bin/sh\n{text}')
            (folder / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    ours = descriptor(build_parser())
    ours['container-image']['image'] = IMAGE or ours['container-image']['image']
    (tmp_path / 'descriptor.json').write_text(json.dumps(ours))

    def launch(*, where: tuple[str, ...] = ('--no-container',), **options: object):
        (tmp_path / 'invocation.json').write_text(json.dumps(options))
        done = subprocess.run(
            [program, 'exec', 'launch', *where, '--skip-data-collection',
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


@pytest.mark.container
def test_the_image(bosh, simulated, tmp_path):
    if not IMAGE:
        pytest.skip('SSL2_BIDS_IMAGE does not name an image (docs/how-to/containers.md)')
    (tmp_path / 'out').mkdir()
    words = {'bids_dir': str(simulated), 'output_dir': str(tmp_path / 'out')}
    words |= {'analysis_level': 'participant', 'work_dir': str(tmp_path / 'work')}
    where = ('--volumes', f'{simulated}:{simulated}')
    code, output = bosh(where=where, **words, participant_label=['01'], sloppy=True, nprocs=1)
    assert code == 0, output
    assert 'docker run' in output
    assert '1 done (exit code 0)' in output
    assert 'sub-01.html' in found_files(output)
