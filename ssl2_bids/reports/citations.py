"""Methods sentences with their literature: as HTML, Markdown and BibTeX.

A sentence cites with ``[@key]`` or ``[@key; @other]``; the keys stand in
``resources/references.toml``. References are numbered in the order of their first citation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from ssl2_bids.tables import bundled_table

CITATION = re.compile(r'\[(@[\w:.-]+(?:\s*;\s*@[\w:.-]+)*)\]')
NUMBERS = re.compile(r'\[\d+(?:, \d+)*\]')  # what a citation is in a document
LATEX = {
    '\\': r'\textbackslash{}', '&': r'\&', '%': r'\%', '$': r'\$', '#': r'\#', '_': r'\_',
    '{': r'\{', '}': r'\}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}',
}  # fmt: skip


class UnknownReferenceError(KeyError):
    """A methods sentence cites a key that references.toml does not have: a fault of this code."""


@dataclass(frozen=True)
class Reference:
    """One cited work.

    Attributes
    ----------
    key : its table in references.toml.
    number : place in the reference list, from 1.
    text : the full reference line.
    doi : without ``https://doi.org/``; empty where there is none.
    """

    key: str
    number: int
    text: str
    doi: str


def known_references() -> dict[str, dict[str, str]]:
    """The tables of references.toml by key."""
    return bundled_table('references.toml')


def collect(sentences: Iterable[str]) -> list[Reference]:
    """The works cited, in the order of their first citation.

    Raises
    ------
    UnknownReferenceError : a key is not in references.toml, or a citation is misspelt.
    """
    known = known_references()
    found: dict[str, Reference] = {}
    for sentence in sentences:
        if re.search(r'\[[^\]]*@', CITATION.sub('', sentence)):
            raise UnknownReferenceError(f'not of the form [@key; @key]: {sentence}')
        for key in _keys(sentence):
            if key not in known:
                raise UnknownReferenceError(f'{key} is not in resources/references.toml')
            entry = known[key]
            found.setdefault(
                key, Reference(key, len(found) + 1, entry['text'], entry.get('doi', ''))
            )
    return list(found.values())


def render_html(
    sentences: Sequence[str], *, anchor: str = 'ref-'
) -> tuple[Markup, list[Reference]]:
    """The methods as one paragraph of HTML with linked numbers, and the works they point to.

    Parameters
    ----------
    anchor : begins the ``id`` that each number links to (``ref-wang2023``); a page with several
        methods texts needs several.

    Raises
    ------
    UnknownReferenceError : as in :func:`collect`.
    """
    used = collect(sentences)
    number = {reference.key: reference.number for reference in used}

    def links(match: re.Match[str]) -> str:
        numbers = sorted((number[key], key) for key in _keys(match.group()))
        inner = ', '.join(f'<a href="#{escape(anchor + key)}">{n}</a>' for n, key in numbers)
        return f'<span class="cite">[{inner}]</span>'

    text = CITATION.sub(links, str(escape(' '.join(s.strip() for s in sentences))))
    # Escaped above, but for the links made here.
    return Markup(f'<p>{text}</p>'), used  # noqa: S704


def render_plain(sentences: Sequence[str]) -> str:
    """The methods as plain text with numbers, then the numbered references."""
    used = collect(sentences)
    lines = [_with_numbers(sentences, used), '']
    lines += [f'[{r.number}] {r.text}{_doi(r)}' for r in used]
    return '\n'.join(lines).rstrip() + '\n'


def render_markdown(sentences: Sequence[str]) -> str:
    """The methods as Markdown with numbers, then the numbered references."""
    used = collect(sentences)
    lines = ['## Methods', '', _with_numbers(sentences, used), '']
    if used:
        lines += ['## References', '']
        lines += [
            f'{r.number}. {r.text}' + (f' <https://doi.org/{r.doi}>' if r.doi else '')
            for r in used
        ]
    return '\n'.join(lines).rstrip() + '\n'


def render_bibtex(sentences: Sequence[str]) -> str:
    """The works cited as BibTeX entries, in the order of their first citation."""
    return '\n'.join(_bibtex_entry(reference) for reference in collect(sentences))


def render_document(sentences: Sequence[str], *, title: str = 'How to cite') -> str:
    """A small HTML page of its own: methods and references."""
    text, used = render_html(sentences)
    items = ''.join(
        f'<li id="ref-{escape(r.key)}">{escape(r.text)}'
        + (f' <a href="https://doi.org/{escape(r.doi)}">doi:{escape(r.doi)}</a>' if r.doi else '')
        + '</li>\n'
        for r in used
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title>\n'
        '<style>:root{color-scheme:light dark}body{max-width:44rem;margin:2rem auto;'
        'padding:0 1rem;font:16px/1.6 system-ui,sans-serif}</style></head>\n'
        f'<body>\n<h1>{escape(title)}</h1>\n<h2>Methods</h2>\n{text}\n'
        f'<h2>References</h2>\n<ol>\n{items}</ol>\n</body>\n</html>\n'
    )


def contains(document: str, sentences: Iterable[str]) -> bool:
    """Whether the text of :func:`render_markdown` has all of some sentences, with any numbers."""
    text = NUMBERS.sub('', document)
    return all(CITATION.sub('', sentence).strip() in text for sentence in sentences)


def documents(sentences: Sequence[str]) -> dict[str, str]:
    """What ``logs/`` offers for citing: the text of each file by its name."""
    return {
        'CITATION.md': render_markdown(sentences),
        'CITATION.bib': render_bibtex(sentences),
        'CITATION.html': render_document(sentences),
    }


def _keys(text: str) -> list[str]:
    return [
        key.strip().lstrip('@')
        for match in CITATION.finditer(text)
        for key in match.group(1).split(';')
    ]


def _with_numbers(sentences: Sequence[str], used: Sequence[Reference]) -> str:
    number = {reference.key: reference.number for reference in used}

    def numbers(match: re.Match[str]) -> str:
        return (
            '[' + ', '.join(str(n) for n in sorted(number[k] for k in _keys(match.group()))) + ']'
        )

    return CITATION.sub(numbers, ' '.join(sentence.strip() for sentence in sentences))


def _doi(reference: Reference) -> str:
    return f' doi:{reference.doi}' if reference.doi else ''


def _bibtex_entry(reference: Reference) -> str:
    """An entry from the reference line: authors, title and where, split at sentence ends."""
    parts = re.split(r'(?<=[.?!])\s+', reference.text.strip(), maxsplit=2)
    fields: dict[str, str] = {}
    if len(parts) == 3:
        authors, title, where = (part.rstrip('.') for part in parts)
        fields = {'author': _bibtex_authors(authors), 'title': f'{{{_latex(title)}}}'}
        fields['howpublished'] = _latex(where)
    else:
        fields['title'] = f'{{{_latex(reference.text)}}}'
    year = re.search(r'\b(?:19|20)\d\d\b', parts[-1])
    if year:
        fields['year'] = year.group()
    if reference.doi:
        fields['doi'] = reference.doi
    body = ''.join(f',\n  {name} = {{{value}}}' for name, value in fields.items())
    return f'@misc{{{reference.key}{body}\n}}\n'


def _bibtex_authors(text: str) -> str:
    """``Wang J, Li H, et al`` as BibTeX names: family name, initials, joined by ``and``."""
    names = []
    for name in text.split(','):
        family, _, initials = name.strip().rpartition(' ')
        if name.strip() in ('et al', 'et al.'):
            names.append('others')
        elif family and initials.isupper():
            names.append(f'{_latex(family)}, {" ".join(f"{letter}." for letter in initials)}')
        else:
            names.append(f'{{{_latex(name.strip())}}}')
    return ' and '.join(names)


def _latex(text: str) -> str:
    return ''.join(LATEX.get(letter, letter) for letter in text)
