"""The container: what its files promise, and an image of it at work.

tests/running_image.py states how an image is named; what needs one is skipped without it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from running_app import PROJECT, digests, validate
from running_image import PYTHON, USER, mounted, users_folder

from ssl2_bids import __version__
from ssl2_bids.cli import app


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as pairs of instruction and argument."""
    text = (PROJECT / 'Dockerfile').read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith('#')]
    joined = '\n'.join(lines).replace('\\\n', ' ')
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def test_dockerfile_has_no_findings_of_hadolint():
    hadolint = Path(sys.executable).with_name('hadolint')
    done = subprocess.run(
        [hadolint, '--no-color', 'Dockerfile'], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_entry_point_is_absolute_and_needs_no_shell():
    program, *rest = json.loads(dict(instructions())['ENTRYPOINT'])
    assert (program, rest) == ('/opt/ssl2-bids/bin/ssl2-bids', [])


def test_both_stages_have_the_same_base_and_the_last_one_takes_a_folder_only():
    bases = [words.split()[0] for name, words in instructions() if name == 'FROM']
    assert bases == ['python:3.11-slim-bookworm'] * 2
    last = instructions()[[name for name, _ in instructions()].index('FROM', 1) :]
    assert [words for name, words in last if name in ('COPY', 'ADD')] == [
        '--from=build /opt/ssl2-bids /opt/ssl2-bids',
        '--from=build /opt/templateflow /opt/templateflow',
    ]


def test_templates_are_fetched_at_build_time(tmp_path):
    """The lines of the Dockerfile, with the download replaced: what is fetched, what is left."""
    text = (PROJECT / 'Dockerfile').read_text()
    lines = text.partition('RUN mkdir /opt/templateflow')[2].partition('\n\n')[0]
    lines = f'mkdir /opt/templateflow{lines}'
    names = next(w for n, w in instructions() if n == 'ARG' and w.startswith('TEMPLATES'))
    home = tmp_path / 'templateflow'
    replaced = (
        'import templateflow.client as client; '
        'client._s3_get = lambda config, path: path.write_text(str(path)); '
    )
    lines = lines.replace('/opt/templateflow', str(home))
    lines = lines.replace('/opt/ssl2-bids/bin/python', sys.executable)
    lines = lines.replace('from templateflow.api', replaced + 'from templateflow.api')
    assert lines.count(replaced) == 1
    subprocess.run(
        ['sh', '-c', f'{names}; {lines}'],
        check=True,
        env={**os.environ, 'PYTHONPATH': ':'.join(sys.path)},
    )
    assert sorted(path.name for path in home.rglob('*.nii.gz')) == sorted(
        f'tpl-{name}_res-0{number}_{kind}.nii.gz'
        for name in ('MNI152NLin2009cAsym', 'MNI152NLin6Asym')
        for number in (1, 2)
        for kind in ('T1w', 'desc-brain_mask')
    )


def test_tag_is_the_version_of_the_package():
    assert ('ARG', f'VERSION={__version__}') in instructions()
    definition = (PROJECT / 'Singularity.def').read_text()
    assert re.search(r'^From: (.*)$', definition, re.M)[1] == f'ssl2-bids:{__version__}'


def test_image_has_the_environment_that_others_rely_on():
    environment = shlex.split(' '.join(words for name, words in instructions() if name == 'ENV'))
    assert {
        'OMP_NUM_THREADS=1',
        'MKL_NUM_THREADS=1',
        'TEMPLATEFLOW_HOME=/opt/templateflow',
        'IS_DOCKER_8395080871=1',
        'SSL2_BIDS_DOCKER_TAG=$VERSION',
    } <= set(environment)
    labels = shlex.split(' '.join(words for name, words in instructions() if name == 'LABEL'))
    assert {label.split('=')[0].rpartition('.')[2] for label in labels} == {
        *('version', 'title', 'licenses', 'source', 'description'),
    }


def test_builder_is_sent_nothing_but_what_the_image_is_made_of():
    lines = (PROJECT / '.dockerignore').read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith('#')]
    assert patterns[0] == '*'
    taken = {pattern[1:] for pattern in patterns if pattern.startswith('!')}
    assert taken == {'LICENSE', 'README.md', 'constraints', 'pyproject.toml', 'ssl2_bids'}
    copied = [words.split()[:-1] for name, words in instructions() if name == 'COPY']
    outside = [words for words in copied if '--from=build' not in words]
    sources = {word.split('/')[0] for words in outside for word in words}
    assert sources == taken


def test_singularity_definition_changes_nothing_in_the_image():
    definition = (PROJECT / 'Singularity.def').read_text()
    sections = re.findall(r'^%(\w+)', definition, re.M)
    assert sorted(sections) == ['environment', 'help', 'labels', 'runscript']
    assert 'exec /opt/ssl2-bids/bin/ssl2-bids "$@"' in definition
    assert 'unset PYTHONPATH' in definition


def test_in_a_container_caches_and_temporary_files_go_to_the_work_folder(monkeypatch, tmp_path):
    def no_temporary_folder() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, 'environ', {'SSL2_BIDS_DOCKER_TAG': '1', 'TORCH_HOME': '/missing'})
    monkeypatch.setattr('tempfile.gettempdir', no_temporary_folder)
    app._container_environment()
    assert 'TORCH_HOME' not in os.environ
    app._container_environment(tmp_path)
    assert os.environ['TMPDIR'] == str(tmp_path)
    assert os.environ['TORCH_HOME'] == str(tmp_path / 'cache' / 'torch_home')
    assert os.environ['USER']


@pytest.mark.container
def test_image_without_arguments_prints_its_help(run_image):
    done = run_image()
    assert done.returncode == 64
    assert 'usage: ssl2-bids BIDS_DIR OUTPUT_DIR' in done.stdout + done.stderr


@pytest.mark.container
def test_image_shows_its_version(run_image):
    assert run_image('--version').stdout == f'ssl2-bids v{__version__}\n'
    tag = run_image('/version', options=('--entrypoint', '/bin/cat')).stdout
    assert tag == f'{__version__}\n'


@pytest.mark.container
@pytest.mark.parametrize(
    ('folder', 'level', 'code'),
    [('data', 'session', 17), ('empty', 'participant', 16), ('nowhere', 'participant', 66)],
)
def test_mistakes_have_their_exit_codes(run_image, dataset, folder, level, code):
    options = mounted(dataset.parent, '/in')
    done = run_image(f'/in/{folder}', '/tmp/out', level, options=options)
    assert done.returncode == code, done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.container
def test_all_in_the_image_is_readable_and_no_tool_of_tests_is_there(run_image):
    words = ('/opt/ssl2-bids', '/version', '!', '-type', 'l', '!', '-perm', '-o=r')
    assert run_image(*words, options=('--entrypoint', '/usr/bin/find')).stdout == ''
    code = (
        'from importlib.util import find_spec as find; import pathlib, ssl2_bids as s; '
        'print([n for n in ("pytest", "mypy", "ruff", "deno", "pip") if find(n)], '
        'pathlib.Path(s.__file__).with_name("__pycache__").is_dir())'
    )
    done = run_image('-I', '-c', code, options=('--entrypoint', PYTHON))
    assert done.stdout == '[] True\n', done.stderr


@pytest.mark.container
def test_both_levels_run_read_only_without_network_as_a_nameless_user(
    run_image, dataset, tmp_path
):
    out, foreign = users_folder(tmp_path / 'out'), users_folder(tmp_path / 'foreign')
    for name in ('numpy', 'nibabel', 'ssl2_bids', 'sitecustomize'):
        (foreign / f'{name}.py').write_text('raise SystemExit("a package of the host")\n')
    before = digests(dataset)
    options = (
        *mounted(dataset, '/data'),
        *mounted(out, '/out', 'rw'),
        *mounted(foreign, '/foreign'),
        *('--env', 'PYTHONPATH=/foreign'),
    )
    for level in ('participant', 'group'):
        words = ('/data', '/out', level, '--nprocs', 2, '--participant-label', '01')
        done = run_image(*words, options=options)
        assert done.returncode == 0, done.stderr
    assert digests(dataset) == before
    assert {path.stat().st_uid for path in out.rglob('*')} == {USER}
    assert (out / 'sub-01' / 'anat' / 'sub-01_space-T1w_label-L_mask.nii.gz').is_file()
    description = json.loads((out / 'dataset_description.json').read_text())
    container = description['GeneratedBy'][0]['Container']
    assert container == {'Type': 'docker', 'Tag': __version__}
    assert validate(out) == []
