"""What the project's own settings must not hide."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssl2_bids import __version__

PROJECT = Path(__file__).resolve().parents[1]


def test_deprecations_of_our_own_code_are_errors(pytestconfig):
    filters = pytestconfig.getini('filterwarnings')
    assert 'error::DeprecationWarning:ssl2_bids' in filters
    assert not [one for one in filters if one.startswith('ignore')]


def test_no_comment_silences_a_rule_that_is_not_asked():
    ruff = Path(sys.executable).with_name('ruff')
    if not ruff.exists():
        pytest.skip('ruff is not installed')
    done = subprocess.run(
        [ruff, 'check', '--extend-select', 'RUF100', '--output-format', 'concise', PROJECT],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_citation_is_of_this_version():
    text = (PROJECT / 'CITATION.cff').read_text()
    assert re.search('^version: (.+)$', text, re.MULTILINE)[1] == __version__
