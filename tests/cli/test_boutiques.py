"""The Boutiques descriptor: every option is in it, and its own tools accept it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ssl2_bids.cli.app import main
from ssl2_bids.cli.boutiques import descriptor
from ssl2_bids.cli.parser import build_parser

INVOCATION = {
    'bids_dir': '/data',
    'output_dir': '/out',
    'analysis_level': 'participant',
    'participant_label': ['01', '02'],
    'contrasts': ['flair', 't1w'],
    'threshold': 0.4,
    'nprocs': 4,
    'mem': '16G',
    'dry_run': True,
}


def test_the_option_prints_the_descriptor(capsys):
    with pytest.raises(SystemExit) as ended:
        main(['--bids-exec-spec'])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out) == descriptor(build_parser())


def test_every_option_of_the_help_is_an_input():
    parser = build_parser()
    found = descriptor(parser)
    shown = {a.dest for a in parser._actions if a.help != argparse.SUPPRESS}
    ids = [one['id'] for one in found['inputs']]
    assert len(ids) == len(set(ids))
    assert set(ids) == shown - {'help', 'version', 'bids_exec_spec'}
    assert {name for group in found['groups'] for name in group['members']} == set(ids)
    assert all(f'[{name.upper()}]' in found['command-line'] for name in ids)
    kinds = {one['id']: one for one in found['inputs']}
    assert kinds['analysis_level']['value-choices'] == ['participant', 'group']
    assert (kinds['nprocs']['type'], kinds['nprocs']['integer']) == ('Number', True)
    assert (kinds['threshold']['type'], kinds['mem']['type']) == ('Number', 'String')
    assert kinds['uncertainty']['type'] == 'Flag'
    assert kinds['contrasts']['list']


def bosh(*words: object) -> str:
    program = Path(sys.executable).with_name('bosh')
    if not program.exists():
        pytest.skip('boutiques is not installed (extra clients)')
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.client
def test_bosh_accepts_it_and_its_command_line_is_ours(tmp_path):
    path, invocation = tmp_path / 'descriptor.json', tmp_path / 'invocation.json'
    path.write_text(json.dumps(descriptor(build_parser())))
    invocation.write_text(json.dumps(INVOCATION))
    assert bosh('validate', path).strip() == 'OK'
    line = bosh('exec', 'simulate', path, '-i', invocation).strip().splitlines()[-1]
    program, *words = line.split()
    assert program == 'ssl2-bids'
    given = build_parser().parse_args(words)
    assert given.participant_label == ['01', '02']
    assert given.contrasts == ['flair', 't1w']
    assert (given.threshold, given.nprocs, given.mem, given.dry_run) == (0.4, 4, 16, True)
