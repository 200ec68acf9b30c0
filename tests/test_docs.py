"""The documentation: its links, what it quotes of the code, and the site as a whole."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from ssl2_bids import errors
from ssl2_bids.bids import columns as known_columns
from ssl2_bids.training import strategies

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / 'docs'
PAGES = sorted(
    path
    for path in (
        *PROJECT.glob('*.md'),
        *DOCS.rglob('*.md'),
        *PROJECT.glob('ssl2_bids/resources/**/*.md'),
    )
    if not path.is_relative_to(DOCS / 'build') and path.parent.name != 'generated'
)


@cache
def module_of_docs(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tables() -> ModuleType:
    return module_of_docs('reference_tables')


@cache
def generated() -> dict[str, str]:
    return tables().parts()


@cache
def text_of(page: Path) -> str:
    """A page with what it includes, without its blocks of code."""
    text = page.read_text()

    def included(match: re.Match[str]) -> str:
        path = (page.parent / match[1]).resolve()
        if path.parent.name == 'generated':
            return generated()[path.stem]
        return re.sub('^#', '##', text_of(path), flags=re.MULTILINE)

    text = re.sub(r'```\{include\} (\S+)\n(?:.*\n)*?```', included, text)
    return re.sub(r'^(`{3,}).*?\n\1\n', '', text, flags=re.MULTILINE | re.DOTALL)


def links(text: str) -> Iterator[str]:
    for target in re.findall(r'\]\(([^()\s]+)\)', text):
        if not re.match(r'[a-z]+:', target):
            yield target


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    found = set()
    for heading in re.findall(r'^#+ (.+)$', text_of(page), re.MULTILINE):
        heading = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).strip().lower()
        found.add(re.sub(r'[^\w\- ]', '', heading).replace(' ', '-'))
    return found


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page):
    for link in links(page.read_text()):
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f'{page.name}: {link}'
        if anchor:
            assert anchor in anchors(target), f'{page.name}: {link}'


def test_tests_that_pages_name_exist():
    named = {
        (page, *match)
        for page in PAGES
        for match in re.findall(r'`(tests/[\w/]+\.py)::(\w+)`', page.read_text())
    }
    assert named
    for page, path, test in sorted(named):
        code = PROJECT / path
        assert code.is_file(), f'{page.name}: {path}'
        assert f'def {test}(' in code.read_text(), f'{page.name}: {path}::{test}'


def test_pages_are_found_from_the_index():
    listed = set(re.findall(r'^([\w/*-]+)$', (DOCS / 'index.md').read_text(), re.MULTILINE))
    for page in PAGES:
        if page.is_relative_to(DOCS) and page.name != 'index.md':
            name = page.relative_to(DOCS).with_suffix('').as_posix()
            assert any(Path(name).match(entry) for entry in listed), f'{name} is not in index.md'


def test_readme_lists_every_page():
    own = {'index.md', 'changelog.md', 'contributing.md'}  # of the site alone
    linked = set(links((PROJECT / 'README.md').read_text()))
    for page in PAGES:
        if page.is_relative_to(DOCS) and page.name not in own:
            name = page.relative_to(PROJECT).as_posix()
            assert name in linked, f'README.md does not name {name}'


def test_files_that_code_and_settings_name_exist():
    for path in subprocess.run(
        ['git', 'ls-files'], cwd=PROJECT, capture_output=True, text=True
    ).stdout.splitlines():
        if Path(path).suffix in ('.png', '.svg', '.gz', '.safetensors', '.webp'):
            continue
        for name in re.findall(r'docs/[\w/-]+\.(?:md|toml|py)\b', (PROJECT / path).read_text()):
            assert (PROJECT / name).is_file(), f'{path}: {name}'


# --- recipes


def recipes() -> dict[str, str]:
    """The recipes of CONTRIBUTING.md by heading."""
    _, _, text = (PROJECT / 'CONTRIBUTING.md').read_text().partition('\n## Recipes\n')
    return dict(re.findall(r'^## ((?:Add|Change) .+)\n((?:(?!## ).*\n)*)', text, re.MULTILINE))


def named_files(recipe: str) -> dict[str, list[Path]]:
    """The files that a recipe names, by the name: in full, in a folder, or as they are called."""
    package = PROJECT / 'ssl2_bids'
    found = {}
    for name in re.findall(r'`([\w./-]*(?:/|\.(?:py|toml|md|cff|html|def)))`', recipe):
        if 'NAME' in name:
            continue
        places = [root / name for root in (PROJECT, package) if (root / name).exists()]
        places = places or ([*package.rglob(name)] if '/' not in name else [])
        found[name] = [
            file
            for place in places
            for file in (place.rglob('*') if place.is_dir() else [place])
            if file.is_file() and file.suffix in ('.py', '.toml', '.md', '.cff', '.html', '.def')
        ]
    return found


def test_recipes_are_read():
    assert len(recipes()) > 12
    assert 'Add a step' in recipes()
    assert named_files('`graph.py`, `bids/`')['graph.py'][0].parent.name == 'participant'
    assert named_files('`bids/no_such.py`') == {'bids/no_such.py': []}


@pytest.mark.parametrize('heading', recipes())
def test_files_and_names_of_recipes_exist(heading):
    recipe = recipes()[heading]
    files = named_files(recipe)
    for name, found in files.items():
        assert found, name
    words = {
        word
        for file in {file for found in files.values() for file in found}
        for word in re.findall(r'\w+', file.read_text())
    }
    missing = set(re.findall(r'`(\w{3,})(?:\(\)|=)?`', recipe)) - words
    assert not missing, f'no file of the recipe has {missing}'


# --- messages


@cache
def strings_of_the_code() -> tuple[str, ...]:
    """Every text in the package, with ``…`` in place of what is filled in."""
    found = set()
    for path in (PROJECT / 'ssl2_bids').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else '…' for v in node.values)
                found.add(''.join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(re.sub(r'%(?:\.\d+)?[sdg]', '…', node.value))
    return tuple(found)


def quoted_messages() -> list[str]:
    text = (DOCS / 'troubleshooting.md').read_text()
    return re.findall(r'^### `(.+)`$', text, re.MULTILINE)


def test_messages_are_quoted_at_all():
    assert len(quoted_messages()) > 40


@pytest.mark.parametrize('message', quoted_messages())
def test_quoted_message_exists_in_the_code(message):
    pattern = re.compile('.*'.join(map(re.escape, message.split('…'))), re.DOTALL)
    assert any(pattern.search(text) for text in strings_of_the_code())


# --- commands


def commands() -> list[tuple[str, str]]:
    """Indented command lines of the App and its tools, with the page they are on."""
    found = []
    for page in PAGES:
        text = page.read_text().replace('\\\n', ' ')
        for line in re.findall(r'^ {4,}(ssl2(?:-bids)? .+)$', text, re.MULTILINE):
            if '...' not in line and '{' not in line:
                found.append((page.relative_to(PROJECT).as_posix(), line))
    return found


def test_commands_have_only_options_that_exist():
    assert len(commands()) > 40
    parsers = {script: tables().build_parser(script) for script in tables().scripts()}
    for page, line in commands():
        words = shlex.split(line, comments=True)
        try:
            with suppress(SystemExit):  # --version
                parsers[words[0]].parse_args(words[1:])
        except errors.UsageError as error:
            pytest.fail(f'{page}: {line}: {error}')


def test_notebook_runs_and_gives_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = DOCS / 'tutorials/notebook.md'
    blocks = re.findall(r'```pycon\n(.*?)```\n', page.read_text(), re.DOTALL)
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    case = doctest.DocTestParser().get_doctest('\n'.join(blocks), {}, page.name, str(page), 0)
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=flags, verbose=False).run(case, out=failures.append)
    assert not failures, ''.join(failures)
    assert (tmp_path / 'lesions.nii.gz').is_file()


def test_notebook_file_has_the_code_of_the_page():
    cells = json.loads(tables().notebook())['cells']
    code = '\n'.join(one['source'] for one in cells if one['cell_type'] == 'code')
    compile(code, 'notebook', 'exec')
    assert code.startswith('import ssl2_bids as s2')
    assert 'write_volume' in code
    assert 'download' not in json.dumps(cells)


# --- what is made from the code


def test_every_option_is_in_the_reference():
    for script in tables().scripts():
        parser = tables().build_parser(script)
        for name in re.findall(r'(?<!\w)--[a-z][a-z-]+', parser.format_help()):
            assert name in generated()[script], name


def test_every_strategy_is_named():
    page = (DOCS / 'how-to/adapt.md').read_text()
    _, _, section = page.partition('\n## Strategies\n')
    listed, _, _ = section.partition('Formulas')
    assert re.findall('`(.+?)`', listed) == list(strategies.available())


def test_every_exit_code_is_in_the_reference():
    for kind in errors.Ssl2Error.__subclasses__():
        assert f'| {kind.exit_code} | ' in generated()['exit-codes']


def test_a_missing_meaning_of_an_output_ends_the_build(monkeypatch):
    module = tables()
    full = module.tomllib.loads

    def without_mask(text: str) -> dict:
        content = full(text)
        if 'lesion mask' in text:
            content.get('anat', {}).pop('mask', None)
        return content

    monkeypatch.setattr(module.tomllib, 'loads', without_mask)
    with pytest.raises(ValueError, match='anat.mask'):
        module.outputs()


def test_a_section_of_outputs_without_a_heading_ends_the_build(monkeypatch):
    folders = {k: v for k, v in tables().FOLDERS.items() if k != 'model'}
    monkeypatch.setattr(tables(), 'FOLDERS', folders)
    with pytest.raises(ValueError, match='model'):
        tables().outputs()


def test_short_docstrings_get_the_form_of_numpydoc():
    def volumes(image: str, mask: str = '') -> tuple[float, float]: ...

    short = (
        'Volumes.|||Parameters|----------|image, mask : on one grid.|||Returns|-------|In mm^3.'
    )
    lines = short.split('|')
    module_of_docs('conf').complete_sections(None, 'function', 'volumes', volumes, None, lines)
    assert lines[5:] == [
        *('image', '    on one grid.', 'mask', '    on one grid.', '', ''),
        *('Returns', '-------', 'tuple[float, float]', '    In mm^3.'),
    ]
    whole = 'x : ndarray of shape (I, J, K)|    In mm.'.split('|')
    lines = ['Parameters', '----------', *whole]
    module_of_docs('conf').complete_sections(None, 'function', 'volumes', volumes, None, lines)
    assert lines[2:] == whole


def test_defaults_of_the_reference_are_a_configuration(tmp_path):
    from ssl2_bids.training.pretraining.config import Config, read_config

    text = generated()['training-configuration']
    written = ''
    for heading, section in re.findall(r'^## (.+)\n((?:(?!## ).*\n)*)', text, re.MULTILINE):
        rows = re.findall(r'^\| `(\w+)` \| (\S.*) \| (.*) \| .* \|$', section, re.MULTILINE)
        for table in re.findall(r'`\[(\w+)\]`', heading) or ['']:
            written += f'[{table}]\n' if table else ''
            for key, _, default in rows:
                of_this = re.search(rf'`([^`]+)` \(`{table}`\)', default)
                value = of_this[1] if of_this else default.strip('`')
                written += f'{key} = {value}\n' if value else ''
            if table == 'network':
                (keys,) = re.findall('Without the section: (.+)', section)
                written += ''.join(f'{pair}\n' for pair in re.findall('`(.+?)`', keys))
    path = tmp_path / 'all.toml'
    path.write_text(written)
    assert written.count(' = ') > 60
    assert '[randomisation]' in written
    assert read_config(path) == Config()


def test_every_key_of_a_training_configuration_has_a_meaning(monkeypatch):
    from ssl2_bids.synthesis.ranges import Randomisation

    monkeypatch.setattr(Randomisation, '__doc__', Randomisation.__doc__.replace('elastic :', ''))
    with pytest.raises(KeyError, match='elastic'):
        tables().training_configuration()


def columns_given_to_tables() -> list[tuple[Path, str]]:
    """The columns of each call of ``write_table``, as the code has them."""
    found = []
    for path in (PROJECT / 'ssl2_bids').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == 'write_table':
                found.append((path, ast.unparse(node.args[-1])))
    return found


def test_every_column_of_a_table_is_in_the_reference():
    from ssl2_bids.workflows.evaluation import scores

    shown = [list(columns) for _, columns in tables().described_tables().values()]
    made = {
        '*scores.table(result.cases)': scores.table([])[1],
        '*scores.lesion_free_table(result.brains)': scores.lesion_free_table([])[1],
        'scores.COMPARISON_COLUMNS': scores.COMPARISON_COLUMNS,
        'columns': known_columns.HISTORY_COLUMNS,  # and terms of strategies
    }
    given = columns_given_to_tables()
    assert len(given) > 10
    assert {'*scores.table(result.cases)', 'columns', 'LESION_COLUMNS'} <= {c for _, c in given}
    for path, columns in given:
        described = made.get(columns) or getattr(known_columns, columns)
        assert list(described) in shown, f'{path}: {columns}'


def test_every_column_of_the_reference_is_described():
    for title, (_, columns) in tables().described_tables().items():
        for column, entry in columns.items():
            assert entry['Description'], f'{title}: {column}'
            assert f'| `{column}` | ' in generated()['columns']


# --- the site


def test_site_is_built_without_a_warning(tmp_path):
    for name in ('sphinx', 'myst_parser', 'furo'):
        pytest.importorskip(name, reason=f'{name} is not installed (tools/environment docs)')
    done = subprocess.run(
        [sys.executable, '-m', 'sphinx', '--fail-on-warning', '--keep-going', '--quiet']
        + ['--builder', 'html', '--doctree-dir', tmp_path / 'trees', DOCS, tmp_path / 'html'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / 'html').rglob('*.html'):
        fetched = re.findall(
            r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', page.read_text()
        )
        assert not fetched, f'{page.name} fetches {fetched[0]}'


def test_sites_of_another_start_model_are_compared_by_its_label():
    page = (PROJECT / 'docs/evidence/adaptation.md').read_text()
    sites, _, default = page.partition('### 11. ')
    assert re.findall(r'ssl2 evaluate .*(?:--compare|--model) (?:.* )?default\b', sites) == []
    assert re.findall(r'ssl2 evaluate \S+ \S+(?: *\n|`)', sites) == []  # of the default model
    assert 'ssl2 evaluate out2 further/derivatives/truth --compare default adapted' in default
