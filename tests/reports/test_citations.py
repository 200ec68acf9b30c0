"""Citations: numbering, three formats, and faults that must not pass."""

from __future__ import annotations

import re

import pytest

from ssl2_bids.reports import citations

SENTENCES = [
    'Lesions < 3 mm³ were dropped [@wang2023].',
    'The app [@gorgolewski2017; @wang2023] ran.',
]


def test_numbers_follow_first_citation():
    used = citations.collect(SENTENCES)
    assert [(r.number, r.key) for r in used] == [(1, 'wang2023'), (2, 'gorgolewski2017')]


def test_html_links_numbers_and_escapes_text():
    html, used = citations.render_html(SENTENCES, anchor='s1-ref-')
    assert 'Lesions &lt; 3 mm³' in html
    assert '<a href="#s1-ref-wang2023">1</a>, <a href="#s1-ref-gorgolewski2017">2</a>' in html
    assert '@' not in html
    assert all(reference.text and reference.doi for reference in used)


def test_plain_and_markdown_end_with_the_references():
    plain, markdown = citations.render_plain(SENTENCES), citations.render_markdown(SENTENCES)
    assert 'were dropped [1]. The app [1, 2] ran.' in plain
    assert re.search(r'^\[2\] Gorgolewski KJ.*doi:10\.1371/journal\.pcbi\.1005209$', plain, re.M)
    assert '2. Gorgolewski' in markdown
    assert '<https://doi.org/10.48550/arXiv.2303.05026>' in markdown


def test_bibtex_has_authors_title_year_and_doi():
    entry = citations.render_bibtex(['x [@gorgolewski2011].'])
    assert entry.startswith('@misc{gorgolewski2011,\n')
    assert 'author = {Gorgolewski, K. and Burns, C. D. and Madison, C. and others}' in entry
    assert 'title = {{Nipype: a flexible' in entry
    assert 'year = {2011}' in entry
    assert 'doi = {10.3389/fninf.2011.00013}' in entry


def test_every_known_reference_can_be_rendered():
    sentences = [f'x [@{key}].' for key in citations.known_references()]
    bibtex = citations.render_bibtex(sentences)
    assert bibtex.count('@misc{') == len(sentences)
    assert bibtex.count('{') == bibtex.count('}')
    for reference in citations.collect(sentences):
        assert reference.text.strip()
        assert not reference.doi.startswith('http')


def test_latex_characters_are_escaped(monkeypatch):
    works = {'x1': {'text': 'Doe J. Cats & 100 % {dogs}_a. Pets 2020;1:1.', 'doi': '10.1/a_b'}}
    monkeypatch.setattr(citations, 'known_references', lambda: works)
    entry = citations.render_bibtex(['[@x1]'])
    assert r'Cats \& 100 \% \{dogs\}\_a' in entry


def test_document_is_whole(tmp_path, read_page):
    path = tmp_path / 'CITATION.html'
    files = citations.documents(SENTENCES)
    assert sorted(files) == ['CITATION.bib', 'CITATION.html', 'CITATION.md']
    path.write_text(files['CITATION.html'], encoding='utf-8')
    page = read_page(path)
    assert page.unbalanced == []
    assert {'#ref-wang2023', '#ref-gorgolewski2017'} <= set(page.targets)
    assert {'ref-wang2023', 'ref-gorgolewski2017'} <= set(page.ids)


@pytest.mark.parametrize('sentence', ['x [@nobody1900].', 'x [@wang2023, @nobody1900].', 'x [@].'])
def test_unknown_or_misspelt_keys_are_internal_errors(sentence):
    for render in (
        citations.render_html, citations.render_plain, citations.render_markdown,
        citations.render_bibtex,
    ):  # fmt: skip
        with pytest.raises(citations.UnknownReferenceError):
            render([sentence])
    assert issubclass(citations.UnknownReferenceError, KeyError)


def test_no_sentence_gives_no_reference():
    html, used = citations.render_html([])
    assert used == []
    assert citations.render_bibtex([]) == ''
    assert html == '<p></p>'
