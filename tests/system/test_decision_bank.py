"""The table of the bank of sites, from the files that a run leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running_app import PROJECT

from ssl2_bids.training.adaptation.decision import ScorePair
from ssl2_bids.volume import Volume, write

sys.path.append(str(PROJECT / 'benchmarks'))
import bank_labels
import decision_bank
import decision_rules


def site(folder: Path, number: int, gains: dict[str, tuple[float, float]], **labels) -> None:
    """A finished site: by rung, the gain out of fold (of two people alike), and on others."""
    rungs = {
        rung: {
            'Pairs': [[p, 0.5, 0.5 + found, None, None] for p in ('01', '02')],
            'Further': [[0.5, 0.5 + true]],
        }
        for rung, (found, true) in gains.items()
    }
    content = {'Labels': {'shuffled': False} | labels, 'Rungs': rungs}
    (folder / f'site-{number:02d}.json').write_text(json.dumps(content))


def bank(*words: object) -> None:
    """The benchmark within this process."""
    decision_bank.main(list(map(str, words)))


def test_the_table_counts_what_a_rule_keeps_and_refuses(tmp_path):
    good, wrong = (0.05, 0.04), (0.05, -0.03)
    refused = (-0.01, 0.02)
    site(tmp_path, 0, {'recalibrated': good, 'whole': wrong})
    site(tmp_path, 1, {'recalibrated': refused, 'whole': refused})
    site(tmp_path, 2, {'recalibrated': (-0.1, 0.03), 'whole': (-0.1, 0.03)}, shuffled=True)
    site(tmp_path, 3, {'recalibrated': (0.01, -0.02), 'whole': (0.08, -0.02)})
    program = PROJECT / 'benchmarks' / 'decision_bank.py'
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), '--table'], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = {
        (line[:16].strip(), line[17:37].strip()): ' '.join(line[37:].split())
        for line in done.stdout.splitlines()[1:]
    }
    # sites 0 and 3 are taken; of the four, 0 and 1 could be helped
    assert lines['all', 'lowest within 1 SE'] == '4 2 1 of 2 (50%) 1 of 2 (50%) 0.0050'
    assert lines['right labels', 'lowest within 1 SE'].startswith('3 2 1 of 2 (50%) 1 of 2')
    assert lines['shuffled', 'lowest within 1 SE'] == '1 0 0 of 0 0 of 0 0.0000'
    assert lines['all', 'always the last'].startswith('4 4 2 of 4 (50%) 0 of 2 (0%)')


def test_the_former_rule_takes_the_highest_of_the_better_rungs():
    def two(dice: float, f1: float) -> list[ScorePair]:
        return [ScorePair(name, (0.5, dice), (0.6, f1)) for name in ('01', '02')]

    tests = {'half-way': two(0.55, 0.62), 'whole': two(0.60, 0.50)}  # that loses whole lesions
    choice = decision_rules.highest(tests)
    assert choice.decision.accepted
    assert choice.rung == 'half-way'
    assert decision_rules.highest(tests | {'whole': two(0.60, 0.62)}).rung == 'whole'
    refused = decision_rules.highest({'half-way': two(0.4, 0.6), 'whole': two(0.45, 0.6)})
    assert (refused.rung, refused.decision.accepted) == ('whole', False)


@pytest.mark.parametrize(
    ('name', 'words', 'option'),
    [
        ('site-00.json', ['--sites', 0], 'steps'),
        ('site-00.json', ['--sites', 0], 'unlabelled'),
        ('draw-0-0-0.json', ['--draws', 1, '--pools', 0], 'model'),
        ('trained-0-0-0.json', ['--draws', 1, '--train', '--pools', 0], 'further'),
        ('single-0-0-0.json', ['--single', '--pools', 0], 'model'),
    ],
)
def test_scores_of_other_settings_are_refused(tmp_path, name, words, option):
    value = 'committee-3t' if option == 'model' else 2
    made = {'Settings': {option: value}, 'Labels': {'shuffled': False}, 'Rungs': {}}
    path = tmp_path / name
    path.write_text(json.dumps(made))
    default = decision_bank.DEFAULTS[option]
    with pytest.raises(SystemExit) as refused:
        bank(tmp_path, *words)
    assert refused.value.code == (
        f'{path}: made with --{option} {value}, not {default}; choose another folder as BANK'
    )
    del made['Settings']  # an earlier version made it with the defaults
    path.write_text(json.dumps(made))
    with pytest.raises(SystemExit) as refused:
        bank(tmp_path, *words, f'--{option}', value)
    assert refused.value.code == (
        f'{path}: has no settings, and counts as made with --{option} {default}, not {value}; '
        'choose another folder as BANK'
    )


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('site-00.json', ['--sites', 1]),
        ('draw-0-0-0.json', ['--draws', 1, '--pools', 1]),
        ('single-0-0-0.json', ['--single', '--pools', 1]),
    ],
)
def test_a_bank_with_other_settings_is_refused_before_a_site_is_made(
    tmp_path, monkeypatch, name, words
):
    def fail(*given, **named):
        raise AssertionError('a site was begun')

    monkeypatch.setattr(decision_bank, 'simulate', fail)
    made = {'Settings': {'model': 'committee-3t'}, 'Labels': {'shuffled': False}, 'Rungs': {}}
    (tmp_path / name).write_text(json.dumps(made))
    with pytest.raises(SystemExit, match=f'{name}: made with --model committee-3t, not fast-3t'):
        bank(tmp_path, *words)


def test_sites_of_equal_settings_are_kept_and_counted(tmp_path, capsys):
    site(tmp_path, 0, {'recalibrated': (0.05, 0.04)})
    bank(tmp_path, '--sites', 0)
    content = json.loads((tmp_path / 'site-00.json').read_text())
    settings = decision_bank.DEFAULTS | {'steps': 7}
    (tmp_path / 'site-00.json').write_text(json.dumps(content | {'Settings': settings}))
    bank(tmp_path, '--sites', 0, '--steps', 7)
    bank(tmp_path, '--table')
    assert capsys.readouterr().out.count('site:') == 3
    site(tmp_path, 1, {'recalibrated': (0.05, 0.04)})  # one table is of equal settings
    with pytest.raises(SystemExit, match='site-01.json: .* made with --steps 100, not 7'):
        bank(tmp_path, '--table')


def test_a_training_without_draws_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        bank(tmp_path, '--train')
    assert '--train trains at draws: give --draws N' in capsys.readouterr().err


def test_sites_of_one_person_are_counted_by_what_is_annotated(tmp_path, capsys):
    for kind, labels in enumerate(({}, {'neighbours': 5}, {'sparse': True})):
        lowered = 20.0 if labels else None
        pair, true = ['01', 0.5, 0.55, None, None, None, lowered], -0.1 if labels else 0.03
        rungs = {'recalibrated': {'Pairs': [pair], 'Further': [[0.5, 0.5 + true]]}}
        content = {'Labels': {'shuffled': False} | labels, 'Rungs': rungs}
        (tmp_path / f'single-0-{kind}-0.json').write_text(json.dumps(content))
    bank(tmp_path, '--table')
    tables = capsys.readouterr().out.split('single, ')[1:]
    rows = {
        (table.partition(':')[0], rule): ' '.join(table.split(rule)[1].split()[:5])
        for table in tables
        for rule in ('lowest within 1 SE', 'any threshold')
    }
    assert rows == {
        ('whole', 'lowest within 1 SE'): '1 1 0 of 1',
        ('whole', 'any threshold'): '1 1 0 of 1',
        ('neighbouring slices', 'lowest within 1 SE'): '1 0 0 of 0',
        ('neighbouring slices', 'any threshold'): '1 1 1 of 1',
        ('slices that lie apart', 'lowest within 1 SE'): '1 0 0 of 0',
        ('slices that lie apart', 'any threshold'): '1 1 1 of 1',
    }


def test_sites_of_one_person_by_an_earlier_version_are_refused(tmp_path):
    pair = ['01', 0.5, 0.55, None, None, None]
    rungs = {'recalibrated': {'Pairs': [pair], 'Further': [[0.5, 0.6]]}}
    content = {'Labels': {'shuffled': False}, 'Rungs': rungs}
    (tmp_path / 'single-0-0-0.json').write_text(json.dumps(content))
    for words in (('--table',), ('--single', '--pools', 0)):
        with pytest.raises(SystemExit, match='single-0-0-0.json: an earlier version made it'):
            bank(tmp_path, *words)


def test_neighbouring_slices_of_one_person_are_of_three_places(tmp_path):
    mask = np.zeros((6, 6, 40), np.uint8)
    mask[2, 2, 5:35] = 1
    found = []
    for place in range(bank_labels.PLACES):
        folder = tmp_path / str(place)
        folder.mkdir()
        path = folder / 'sub-01_label-L_mask.nii.gz'
        write(Volume(mask, np.eye(4)), path, dtype=np.uint8)
        path.with_name('sub-01_label-L_mask.json').write_text('{}')
        bank_labels.keep_slices(folder, 5, place)
        content = json.loads(path.with_name('sub-01_label-L_mask.json').read_text())
        found += content['AnnotatedSlices']['Indices']
    assert found == sorted(set(found))
    assert len(found) == 15
    assert mask[2, 2, found].all()
