"""What the project's own settings must not hide."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ssl2_bids import __date__, __version__
from ssl2_bids.bids.provenance import CODE_URL

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / 'ssl2_bids'
ARCHITECTURE = (PROJECT / 'docs' / 'explanation' / 'architecture.md').read_text()


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


def tracked_texts() -> dict[str, str]:
    """The documents and settings in git, by name."""
    listed = subprocess.run(
        ['git', 'ls-files', '*.md', '*.toml', '*.cff', '*.yml', '*.def', 'Dockerfile', 'tools'],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: (PROJECT / name).read_text() for name in listed.stdout.splitlines()}


def test_every_tag_of_the_image_is_this_version():
    found = {
        (name, tag)
        for name, text in tracked_texts().items()
        for tag in re.findall(r'ssl2-bids:(\d[\w.-]*)', text)
    }
    assert {'README.md', 'Singularity.def', 'docs/how-to/containers.md'} <= {n for n, _ in found}
    other = sorted(f'{name}: {tag}' for name, tag in found if tag != __version__)
    assert not other, other


def test_changelog_has_this_version_with_its_date():
    text = (PROJECT / 'CHANGELOG.md').read_text()
    released = dict(re.findall(r'^## (\d[\d.]*) - (\d{4}-\d\d-\d\d)$', text, re.MULTILINE))
    coming = text.partition('## Unreleased\n')[2].partition('\n## ')[0]
    if f'{__version__}, has not been released' in coming:
        assert __version__ not in released
    else:
        assert released.get(__version__) == __date__


def test_python_tools_use_the_environment_of_the_clone():
    for tool in sorted((PROJECT / 'tools').iterdir()):
        if tool.is_file() and tool.read_text().startswith('#!/usr/bin/env python3'):
            assert '\nuse_own_python(' in tool.read_text(), tool.name
            code = tool.read_text().partition('\nuse_own_python(')[0]
            imported = re.findall(r'^(?:import|from) (\w+)', code, re.MULTILINE)
            strange = set(imported) - sys.stdlib_module_names - {'own_python'}
            assert not strange, f'{tool.name} imports {strange} before it is in .venv'


def test_an_extra_that_another_one_contains_is_not_installed_again(tmp_path):
    clone = tmp_path / 'clone'
    for name in ('pyproject.toml', 'constraints/python3.11.txt', 'tools/environment'):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, clone / name)
    installed = tmp_path / 'installed'
    python = f'#!/bin/sh\n[ "$2" != pip ] || {{ echo "$@" >>{installed}; exit; }}\n'
    programs = {
        '.venv/bin/python': f'{python}exec {sys.executable} "$@"\n',  # pip installs nothing
        'tools/install-torch': '#!/bin/sh\n',
        'tools/fetch-viewer': '#!/bin/sh\n',
    }
    for name, text in programs.items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(text)
        (clone / name).chmod(0o755)

    def install(*extra: str) -> int:
        subprocess.run([clone / 'tools' / 'environment', *extra], check=True, capture_output=True)
        return len(installed.read_text().splitlines())

    assert install('test') == 1
    assert install('test') == install('docs') == install() == 1
    assert install('clients') == 2
    assert install('docs') == 2


def test_light_checks_are_those_of_each_commit():
    hooks = (PROJECT / '.pre-commit-config.yaml').read_text()
    lines = (PROJECT / 'tools' / 'test').read_text().splitlines()
    checks = [line for line in lines if re.match(r'(ruff|lint-imports|mypy|hadolint)\b', line)]
    assert {check.split()[0] for check in checks} == set(
        re.findall(r'entry: \.venv/bin/([\w-]+)', hooks)
    )
    assert len(checks) == hooks.count('entry: ')


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


def contract(name: str) -> dict[str, list[str]]:
    """A contract of import-linter by the beginning of its name."""
    settings = tomllib.loads((PROJECT / 'pyproject.toml').read_text())
    contracts = settings['tool']['importlinter']['contracts']
    (found,) = (one for one in contracts if one['name'].startswith(name))
    return found


def test_layers_of_the_page_are_those_of_the_contract():
    _, _, section = ARCHITECTURE.partition('\n## Who may import whom\n')
    (shown,) = re.findall(r'\n\n((?: {4}.+\n)+)\nWithin', section)
    layers = [layer.replace('ssl2_bids.', '') for layer in contract('Layers')['layers']]
    assert [line.strip() for line in shown.splitlines()] == layers


def test_tree_of_the_page_has_every_module_once():
    tree = ARCHITECTURE.partition('\nssl2_bids/\n')[2].partition('\ntests/')[0]
    shown = Counter(re.findall(r'\b\w+\.py\b', tree))
    in_one_line = ('strategies', 'pretext')  # folders of many small files of one kind
    there = Counter(
        path.name
        for path in PACKAGE.rglob('*.py')
        if path.parent.name not in in_one_line
        and (path.name != '__init__.py' or path.parent == PACKAGE)
    )
    assert not shown - there, 'the page has modules that do not exist, or one twice'
    assert not there - shown, 'the page lacks modules'


def test_bids_reads_no_voxels():
    of_headers = {'describe_grid', 'read_grid', 'same_grid'}
    for path in (PACKAGE / 'bids').glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == 'ssl2_bids.volume':
                assert {alias.name for alias in node.names} <= of_headers, path.name
            if isinstance(node, ast.Attribute):
                assert node.attr not in ('get_fdata', 'get_data', 'as_reoriented'), path.name
