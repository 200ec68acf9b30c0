"""What the project's own settings must not hide."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssl2_bids import __version__
from ssl2_bids.bids.provenance import CODE_URL

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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


def test_address_of_the_code_is_the_same_everywhere():
    urls = tomllib.loads((PROJECT / 'pyproject.toml').read_text())['project']['urls']
    assert urls['Homepage'] == urls['Source'] == CODE_URL
    assert urls.keys() == {'Homepage', 'Source', 'Documentation', 'Issues', 'Changelog'}
    for name, branch in (('Documentation', 'tree/HEAD/'), ('Changelog', 'blob/HEAD/')):
        repository, _, path = urls[name].partition(f'/{branch}')
        assert repository == CODE_URL
        assert (PROJECT / path).exists(), urls[name]
    assert urls['Issues'] == f'{CODE_URL}/issues'
    image = (PROJECT / 'Dockerfile').read_text()
    assert re.search('image.source="(.+?)"', image)[1] == CODE_URL
