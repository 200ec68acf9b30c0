"""The tools of a clone, called from other folders, and with what they refuse."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def clone(tmp_path) -> Path:
    """A folder with the tools and a stand-in of its environment, whose programs note calls."""
    root = tmp_path / 'clone'
    shutil.copytree(
        PROJECT / 'tools', root / 'tools', ignore=shutil.ignore_patterns('__pycache__')
    )
    for name in ('pyproject.toml', 'constraints/python3.11.txt'):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / name, root / name)
    note = f'#!/bin/sh\n[ "$1" = - ] || {{ echo "${{0##*/}} $@" >>{tmp_path}/calls; exit; }}\n'
    for name in ('python', 'ssl2', 'ssl2-bids'):
        program(root / '.venv' / 'bin' / name, f'{note}exec {sys.executable} "$@"\n')
    program(root / 'tools' / 'environment', '#!/bin/sh\n')
    return root


def program(path: Path, text: str) -> None:
    """A file that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def call(folder: Path, *words: object, **variables: str) -> subprocess.CompletedProcess:
    """A tool as called from a folder."""
    return subprocess.run(
        list(map(str, words)),
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {'PYTHONPATH': str(PROJECT)} | variables,
    )


def calls(folder: Path) -> list[str]:
    """What the programs of the stand-in were called with."""
    return (folder / 'calls').read_text().splitlines()


def test_docs_are_built_where_the_caller_is(clone, tmp_path):
    refused = call(tmp_path, 'clone/tools/docs', '--wrong')
    assert refused.returncode == 64
    assert refused.stderr.startswith('Build the documentation site: tools/docs')
    assert call(tmp_path, 'clone/tools/docs', '--to', 'site').returncode == 0
    assert calls(tmp_path)[-1].endswith(f' docs {tmp_path}/site')
    assert call(tmp_path, 'clone/tools/docs', '--to', tmp_path / 'other').returncode == 0
    assert calls(tmp_path)[-1].endswith(f' docs {tmp_path}/other')
    assert call(tmp_path, 'clone/tools/docs').returncode == 0
    assert calls(tmp_path)[-1].endswith(' docs docs/build/html')


def test_the_viewer_is_looked_for_where_the_caller_is(clone, tmp_path):
    here = tmp_path / 'viewer'
    here.mkdir()
    (here / 'VERSION').write_text('0')
    (here / 'niivue.umd.js').write_text('a program')
    tool = clone / 'tools' / 'fetch-viewer'
    digest = hashlib.sha256(b'a program').hexdigest()
    tool.write_text(re.sub('sha256=[0-9a-f]+', f'sha256={digest}', tool.read_text()))
    done = call(tmp_path, 'clone/tools/fetch-viewer', 'viewer', PATH='/usr/bin:/bin')
    assert done.returncode == 0, done.stderr  # it is there already


def test_a_python_is_looked_for_where_the_caller_is(clone, tmp_path):
    shutil.copy(PROJECT / 'tools' / 'environment', clone / 'tools' / 'environment')
    program(clone / '.venv' / 'bin' / 'python', '#!/bin/sh\nexit 1\n')  # of an old version
    program(tmp_path / 'own' / 'python', f'#!/bin/sh\necho "$@" >>{tmp_path}/own/calls\n')
    call(tmp_path, 'clone/tools/environment', PYTHON='own/python')
    assert (tmp_path / 'own' / 'calls').read_text().splitlines()[-1] == '-m venv --clear .venv'


@pytest.mark.parametrize(
    'words',
    [
        ('install-torch',),
        ('install-torch', '--help'),
        ('install-torch', 'python', 'another'),
        ('fetch-viewer', '--help'),
        ('fetch-viewer', 'here', 'there'),
        ('release', 'now'),
    ],
)
def test_a_tool_called_otherwise_than_stated_prints_how_it_is_called(clone, tmp_path, words):
    name, *rest = words
    done = call(tmp_path, f'clone/tools/{name}', *rest)
    assert (done.returncode, done.stdout) == (2, '')
    assert f': tools/{name}' in done.stderr.splitlines()[0]
    assert 'unbound' not in done.stderr
    assert 'set -' not in done.stderr
    assert not (tmp_path / 'calls').exists()


def test_pytorch_is_not_installed_beside_a_python_that_was_not_found(clone, tmp_path):
    done = call(tmp_path, 'clone/tools/install-torch', 'no/python')
    assert done.returncode == 2
    assert done.stderr == f'tools/install-torch: {tmp_path}/no/python was not found\n'


def test_an_extra_that_does_not_exist_is_refused(clone, tmp_path):
    shutil.copy(PROJECT / 'tools' / 'environment', clone / 'tools' / 'environment')
    for wrong in ('tests', 'keywords', 'classifiers', 'te.t'):
        done = call(tmp_path, 'clone/tools/environment', wrong)
        assert done.returncode == 1
        message = f'there is no extra {wrong}. Those of pyproject.toml are: test docs clients'
        assert done.stderr == f'tools/environment: {message}\n'
    done = call(tmp_path, 'clone/tools/environment', 'test', 'docs')
    assert done.returncode == 1
    assert done.stderr.endswith('one extra at a time: docs would be ignored.\n')
    assert not (tmp_path / 'calls').exists()


@pytest.mark.parametrize(
    ('options', 'label'),
    [([], 'default'), (['--model', 'fast-3t'], 'fast3t'), (['--model=fast-3t', '-v'], 'fast3t')],
)
def test_the_demo_compares_the_masks_of_its_model(clone, tmp_path, options, label):
    done = call(tmp_path, 'clone/tools/demo', *options)
    assert done.returncode == 0, done.stderr
    assert calls(tmp_path)[-1] == (
        f'ssl2 evaluate demo/out demo/data/derivatives/truth --model {label}'
    )


def test_mosaics_without_a_browser_are_refused_with_what_to_do(tmp_path):
    figure = tmp_path / 'out' / 'sub-01' / 'figures' / 'sub-01_desc-mosaic_FLAIR.svg'
    figure.parent.mkdir(parents=True)
    figure.write_text('<svg/>')
    tool = [sys.executable, PROJECT / 'tools' / 'make-mosaics']
    done = call(tmp_path, *tool, 'out', 'picture.webp', PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.endswith(
        'chromium was not found (Debian and Ubuntu: apt install chromium)\n'
    )
