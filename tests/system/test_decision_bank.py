"""The table of the bank of sites, from the files that a run leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from running_app import PROJECT

from ssl2_bids.training.adaptation.decision import ScorePair

sys.path.append(str(PROJECT / 'benchmarks'))
import decision_bank


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
    choice = decision_bank.highest(tests)
    assert choice.decision.accepted
    assert choice.rung == 'half-way'
    assert decision_bank.highest(tests | {'whole': two(0.60, 0.62)}).rung == 'whole'
    refused = decision_bank.highest({'half-way': two(0.4, 0.6), 'whole': two(0.45, 0.6)})
    assert (refused.rung, refused.decision.accepted) == ('whole', False)
