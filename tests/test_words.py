"""The words that users read, held to the table "Words to avoid" of the glossary."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / 'ssl2_bids'
GLOSSARY = PROJECT / 'docs' / 'glossary.md'
PAGES = sorted(
    path
    for path in (
        *PROJECT.glob('*.md'),
        *PROJECT.glob('docs/**/*.md'),
        *PACKAGE.glob('resources/**/*.md'),
    )
    if path.parent.name != 'generated' and not path.is_relative_to(PROJECT / 'docs' / 'build')
)
TEMPLATES = sorted(
    (*PACKAGE.glob('reports/templates/*.html'), *PACKAGE.glob('reports/templates/*.js'))
)
TABLES = sorted(PROJECT.glob('docs/reference/*.toml'))  # meanings, for pages of the reference
MODULES = sorted((*PACKAGE.rglob('*.py'), *PROJECT.glob('docs/*.py')))
TESTS = sorted(PROJECT.glob('tests/**/*.py'))
BENCHMARKS = sorted(PROJECT.glob('benchmarks/**/*.py'))
# read whole, with their code
FILES = sorted(
    path
    for pattern in (
        'tools/*',
        '.ci/*',
        '.github/**/*.yml',
        '.pre-commit-config.yaml',
        'constraints/*',
        'pretraining/*',
        'pyproject.toml',
        'CITATION.cff',
        'Dockerfile',
        'Singularity.def',
        'ssl2_bids/resources/**/*.toml',
    )
    for path in PROJECT.glob(pattern)
    if path.is_file()
)

# names that stay, by their files
STORED = {
    # key of the records of simulated participants, which `ssl2 simulate --again` reads
    'ssl2_bids/simulation/participant.py': {'nuisances'},
}


def table(heading: str) -> dict[str, str]:
    """The rows of the first table below a heading of the glossary."""
    section = GLOSSARY.read_text().partition(f'{heading}\n')[2].partition('\n#')[0]
    rows = re.findall(r'^\| (.+?) \| (.+?) \|$', section, re.MULTILINE)
    return dict(row for row in rows if set(row[0]) != {'-'})


@cache
def avoided() -> dict[str, str]:
    """What is written instead of each phrase to avoid."""
    rows = table('## Words to avoid')
    rows.pop('avoid')
    return {phrase: better for row, better in rows.items() for phrase in row.split(', ')}


@cache
def pattern() -> re.Pattern[str]:
    phrases = (re.escape(phrase).replace(r'\ ', r'\s+') for phrase in avoided())
    return re.compile(rf'(?<![\w-])(?:{"|".join(phrases)})(?![\w-])', re.IGNORECASE)


def faults(text: str, line: int = 1) -> Iterator[str]:
    """Each phrase to avoid in a text that begins at this line, with what to write instead."""
    for match in pattern().finditer(text):
        phrase = ' '.join(match[0].split())
        where = line + text.count('\n', 0, match.start())
        yield f'line {where}: "{phrase}"; write: {avoided()[phrase.lower()]}'


def strings(module: Path, *, docstrings: bool) -> Iterator[tuple[int, str]]:
    """The prose in a module with its lines: docstrings, or all other texts of several words."""
    tree = ast.parse(module.read_text())
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node) is not None
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if (id(node) in documents) == docstrings and (docstrings or ' ' in node.value):
                yield node.lineno, without_names(node.value) if docstrings else node.value


def without_names(docstring: str) -> str:
    """A docstring without names of the code: in backquotes, and of described parameters."""
    return re.sub(r'`[^`]*`|^ *\w+(?:, \w+)* : ', '', docstring, flags=re.MULTILINE)


def comments(module: Path) -> Iterator[tuple[int, str]]:
    """The comments of a module with their lines; those that follow one another as one text."""
    texts: dict[int, str] = {}
    first = last = -1
    for token in tokenize.generate_tokens(io.StringIO(module.read_text()).readline):
        if token.type == tokenize.COMMENT:
            number, text = token.start[0], token.string.lstrip('# ')
            first = first if number == last + 1 else number
            texts[first] = f'{texts[first]}\n{text}' if first in texts else text
            last = number
    yield from texts.items()


def identifiers(module: Path, *, variables: bool) -> Iterator[tuple[int, str]]:
    """The words of each name that a module defines: of functions, classes, and parameters.

    Parameters
    ----------
    variables : also names of variables and fields; else only those of functions and classes.
    """
    for node in ast.walk(ast.parse(module.read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, words(name)
            case ast.ClassDef(name=name):
                yield node.lineno, words(name)
            case ast.arg(arg=name) if variables:
                yield node.lineno, words(name)
            case ast.Name(id=name, ctx=ast.Store()) if variables:
                yield node.lineno, words(name)


def words(name: str) -> str:
    """A name as words: ``readLabel`` and ``read_label`` are "read label"."""
    return ' '.join(re.findall(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+', name)).lower()


def prose(page: Path) -> str:
    """A page without code, addresses and what follows the heading of the words to avoid."""

    def blank(match: re.Match[str]) -> str:
        return '\n' * match[0].count('\n')

    text = page.read_text().partition('## Words to avoid\n')[0]
    text = re.sub(r'^(`{3,}).*?\n\1$', blank, text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r'^ {4,}.*$', '', text, flags=re.MULTILINE)
    return re.sub(r'\]\([^)]*\)|`[^`\n]*`', '', text)


def shown(template: Path) -> str:
    """A template without names that only the program sees: attributes, and code of scripts."""
    text = template.read_text()
    if template.suffix == '.js':
        quoted = re.findall(r"'(?:[^'\\\n]|\\.)*'|`[^`]*`", text)
        return '\n'.join(part for part in quoted if ' ' in part)
    return re.sub(r'\b(?:class|id|href)="[^"]*"', '', text)


def without_selectors(file: Path) -> str:
    """A file without the names of elements of a page."""
    return re.sub(r"(?<=')#\w+(?=')", '', file.read_text())


def listed(found: Iterator[tuple[Path, str]]) -> str:
    """Faults with their files, one on a line."""
    return '\n'.join(f'{path.relative_to(PROJECT)}, {fault}' for path, fault in found)


def test_the_table_is_read():
    assert len(avoided()) > 30
    assert list(faults('it goes\n on')) == [f'line 1: "goes on"; write: {avoided()["goes on"]}']
    assert list(faults('a\nreader', 5)) == [f'line 6: "reader"; write: {avoided()["reader"]}']
    assert not list(faults('the cargo on board, a screen-reader'))


def test_words_of_names():
    assert words('NuisanceDraw') == 'nuisance draw'
    assert words('_test_it_goes_on') == 'test it goes on'
    assert words('MP2RAGE') == 'mp 2 rage'


def test_comments_are_read(tmp_path):
    module = tmp_path / 'module.py'
    module.write_text("x = '# no'  # it goes\n# on\n\n# again\n")
    assert list(comments(module)) == [(1, 'it goes\non'), (4, 'again')]


def test_names_are_read(tmp_path):
    module = tmp_path / 'module.py'
    module.write_text('class Draw:\n    field: int\n\ndef run(values, *, more):\n    x = 1\n')
    assert list(identifiers(module, variables=False)) == [(1, 'draw'), (4, 'run')]
    found = {name for _, name in identifiers(module, variables=True)}
    assert found == {'draw', 'field', 'run', 'values', 'more', 'x'}


def test_terms_and_words_to_avoid_agree():
    terms = table('# Glossary')
    assert 'resume' in terms
    listed = [term.lower() for term in terms if term != 'term']
    assert listed == sorted(listed)
    for term, meaning in terms.items():
        assert not list(faults(f'{term} {meaning}')), term
    for phrase, better in avoided().items():
        assert not list(faults(better)), f'{phrase} and {better} are both to be avoided'


@pytest.mark.parametrize('docstrings', [False, True], ids=['messages', 'docstrings'])
def test_texts_of_the_code(docstrings):
    found = (
        (module, fault)
        for module in (*MODULES, *BENCHMARKS, *(TESTS if docstrings else ()))
        for line, text in strings(module, docstrings=docstrings)
        for fault in faults(text, line)
    )
    assert not (text := listed(found)), text


def test_comments():
    found = (
        (module, fault)
        for module in (*MODULES, *BENCHMARKS, *TESTS)
        for line, text in comments(module)
        for fault in faults(text, line)
    )
    assert not (text := listed(found)), text


def test_names():
    found = (
        (module, fault)
        for module in (*MODULES, *BENCHMARKS, *TESTS)
        for line, text in identifiers(module, variables=module not in TESTS)
        if text not in STORED.get(str(module.relative_to(PROJECT)), ())
        for fault in faults(text, line)
    )
    assert not (text := listed(found)), text


def test_kept_names_are_still_there():
    for name, kept in STORED.items():
        assert kept <= {text for _, text in identifiers(PROJECT / name, variables=True)}


def test_reports_and_reference():
    texts = {path: shown(path) for path in TEMPLATES}
    texts |= {path: path.read_text() for path in TABLES}
    found = ((path, fault) for path, text in texts.items() for fault in faults(text))
    assert not (text := listed(found)), text


def test_tools_and_settings():
    assert {'environment', 'digests', 'Dockerfile', 'fast-3t.toml', 'label_map.toml'} <= {
        path.name for path in FILES
    }
    found = ((path, fault) for path in FILES for fault in faults(without_selectors(path)))
    assert not (text := listed(found)), text


def test_pages():
    found = ((page, fault) for page in PAGES for fault in faults(prose(page)))
    assert not (text := listed(found)), text
