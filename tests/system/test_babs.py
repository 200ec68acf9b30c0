"""docs/how-to/babs.md: a project from ``babs init`` to ``babs merge``, and the group after it.

BABS calls ``singularity``: tests/system/apptainer_stand_in.py takes its place, a text that of the
image. So the App is called as BABS calls it, on a dataset of links; Apptainer is not tested.
BABS has an environment of its own: its programs at the end of PATH are enough.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running_app import PROJECT, command, digests
from slurm_queue import wait_for

PAGE = (PROJECT / 'docs' / 'how-to' / 'babs.md').read_text()
SETTINGS = (PROJECT / 'docs' / 'cluster' / 'babs.yml').read_text()
STAND_IN = Path(__file__).with_name('apptainer_stand_in.py')
SESSIONS = '  $SESSION_SELECTION_FLAG: "--session-label"\n'

pytestmark = [pytest.mark.slow, pytest.mark.client]


@pytest.fixture
def home(slurm, tmp_path, monkeypatch) -> Path:
    """The folder of the project, with BABS, ``singularity`` and ``ssl2-bids`` on the path."""
    for program in ('babs', 'datalad', 'git-annex', '7z', 'flock'):
        if shutil.which(program) is None:
            pytest.skip(f'{program} is not on the path (docs/how-to/babs.md)')
    if (
        subprocess.run(['git', 'annex', 'verifyremote', '--help'], capture_output=True).returncode
        == 0
    ):
        pytest.skip('this git-annex refuses what jobs of BABS 0.5.4 push (docs/how-to/babs.md)')
    here = tmp_path / 'home'
    for folder in ('bin', 'scratch', 'templateflow'):
        (here / folder).mkdir(parents=True)
    programs = {'singularity': [sys.executable, str(STAND_IN)], 'ssl2-bids': command()}
    for name, words in programs.items():
        program = here / 'bin' / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        program.chmod(0o755)
    (here / 'ssl2-bids.sif').write_text('the image is not read\n')
    monkeypatch.setenv('PATH', f'{here / "bin"}:{os.environ["PATH"]}')
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(here / 'templateflow'))  # empty: BABS binds it
    for name in ('AUTHOR', 'COMMITTER'):
        monkeypatch.setenv(f'GIT_{name}_NAME', 'test')
        monkeypatch.setenv(f'GIT_{name}_EMAIL', 'test@example.org')
    return here


def write_settings(home: Path, data: Path, more: str) -> None:
    """The settings of the page, for this dataset and the memory and cores of this machine."""
    job = {name: os.environ[name] for name in os.environ if re.match('PATH$|GIT_', name)}
    preamble = ' '.join(f'{name}={shlex.quote(value)}' for name, value in job.items())
    text = SETTINGS
    for old, new in {
        '"/data/bids"': f'"{data}"',
        '"4"': '"1"',
        '"8G"': '"3G"',
        '"/scratch"': f'"{home / "scratch"}"',
        'source "$HOME/babs/bin/activate"': f'export {preamble}',
        '\nsingularity_args:': f'{more}  --sloppy: ""\n\nsingularity_args:',
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    (home / 'babs.yml').write_text(text)


def run_block(first: str, home: Path, data: Path, *, level: str = 'subject') -> str:
    """Run the commands of the page from the line that starts with ``first`` on; their output."""
    block = re.search(f'^ {{4}}{first}.*\n(?: {{4}}.*\n)*', PAGE, re.MULTILINE)[0]
    text = block.replace('/data/bids', str(data)).replace('level subject', f'level {level}')
    text = text.replace(' participant', ' participant --sloppy --nprocs 1')
    done = subprocess.run(
        ['bash', '-euo', 'pipefail', '-c', text],
        cwd=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    print(output)
    assert done.returncode == 0, output
    return output


def logs(home: Path) -> str:
    found = sorted((home / 'project' / 'analysis' / 'logs').iterdir())
    return '\n'.join(path.read_text() for path in found)


def run_project(home: Path, data: Path, level: str) -> str:
    """From the dataset to the unzipped results; what the jobs wrote."""
    subprocess.run(['datalad', 'create', '--force'], cwd=data, check=True)
    subprocess.run(['datalad', 'save', '-m', 'data'], cwd=data, check=True)
    write_settings(home, data, SESSIONS if level == 'session' else '')
    output = run_block('datalad create containers', home, data, level=level)
    assert output.count('was successful') == 2, output
    with (home / 'project/analysis/code/job_submit.csv').open() as table:
        (job,) = {row['job_id'] for row in csv.DictReader(table)}
    wait_for(job)
    assert 'All jobs are completed!' in run_block('babs status', home, data), logs(home)
    assert '`babs merge` was successful!' in run_block('babs merge', home, data)
    assert not list((home / 'scratch').iterdir())
    return logs(home)


def test_participants_as_jobs(home, simulated, tmp_path, run_app):
    data = tmp_path / 'data'
    shutil.copytree(simulated, data)
    output = run_project(home, data, 'subject')
    assert output.count('(exit code 0)') == 2
    results, usual = home / 'results' / 'ssl2-bids', tmp_path / 'usual'
    found = digests(results)
    words = f'-w {tmp_path / "work"} --nprocs 1 --mem 3G --sloppy --participant-label sub-01'
    done = run_app(simulated, usual, 'participant', *words.split())  # in the order of the jobs
    assert done.returncode == 0, done.stderr
    expected = {name: digest for name, digest in digests(usual).items() if name.startswith('sub-')}
    assert len(expected) > 25
    assert {name: found.get(name) for name in expected} == expected

    assert 'results of 2 participants' in run_block('ssl2-bids /data/bids .* group', home, data)
    assert (results / 'group_report.html').is_file()
    link = json.loads((results / 'dataset_description.json').read_text())['DatasetLinks']['raw']
    assert link == data.as_uri()  # no longer the folder of a job


def test_sessions_as_jobs(home, simulated, tmp_path):
    data = tmp_path / 'data'
    for number in ('01', '02'):
        for path in sorted((simulated / f'sub-{number}' / 'anat').iterdir()):
            name = path.name.replace(f'sub-{number}', f'sub-01_ses-{number}')
            target = data / 'sub-01' / f'ses-{number}' / 'anat' / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    shutil.copy(simulated / 'dataset_description.json', data)
    assert run_project(home, data, 'session').count('(exit code 0)') == 2
    results = home / 'results' / 'ssl2-bids'
    assert len(list(results.glob('sub-01/ses-0?/anat/*_label-L_mask.nii.gz'))) == 2
    output = run_block('ssl2-bids /data/bids .* participant', home, data)
    assert output.count('already finished') == 2, output
    page = (results / 'sub-01.html').read_text()
    assert 'ses-01' in page
    assert 'ses-02' in page
