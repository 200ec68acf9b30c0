"""``logs/CITATION.*`` has the methods of all participants; a job rarely reads all results."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from ssl2_bids.bids.outputs import output_name
from ssl2_bids.files import write_json
from ssl2_bids.reports import citations
from ssl2_bids.workflows.participant import pages

N4 = 'The T1w image was corrected for intensity inhomogeneity with N4 [@tustison2010].'
BRAIN = 'The brain was extracted from each image with deepbet [@fisch2024].'
FOREGROUND = 'The images showed the brain only; their foreground was used as the brain mask.'


def add(out, subject, *methods):
    path = out / output_name('report.summary', subject=subject)
    write_json(path, {'session': None, 'model': {'Label': ''}, 'methods': list(methods)})


def update(out, subject, former=()):
    """Whether all results were read, and the document."""
    with patch.object(pages, 'write_citation', wraps=pages.write_citation) as of_all:
        pages.update_citation(out, {subject}, list(former))
    return of_all.called, (out / 'logs' / 'CITATION.md').read_text()


@pytest.fixture
def out(tmp_path):
    add(tmp_path, '01', BRAIN, N4)
    add(tmp_path, '02', FOREGROUND)
    assert update(tmp_path, '01')[0]
    return tmp_path


def test_known_sentences_need_no_other_result(out):
    add(out, '03', N4, FOREGROUND)
    of_all, text = update(out, '03')
    assert not of_all
    assert 'N4 [2]' in text


def test_a_new_sentence_is_added_to_those_of_the_others(out):
    add(out, '03', 'Another sentence.')
    of_all, text = update(out, '03')
    assert of_all
    assert 'Another sentence.' in text
    assert FOREGROUND in text


def test_a_sentence_that_no_result_has_any_more_is_taken_away(out):
    add(out, '02', BRAIN)
    of_all, text = update(out, '02', former=[FOREGROUND])
    assert of_all
    assert FOREGROUND not in text


def test_a_lost_document_is_written_again(out):
    (out / 'logs' / 'CITATION.md').unlink()
    assert update(out, '02')[0]


def test_jobs_side_by_side_keep_the_sentences_of_each_other(tmp_path, monkeypatch):
    """One job ends after the other has read all summaries, and before it writes."""
    add(tmp_path, '01', N4)
    documents, ended = citations.documents, []

    def end_the_other(sentences):
        if not ended:
            ended.append('02')
            add(tmp_path, '02', FOREGROUND)
            pages.update_citation(tmp_path, {'02'}, [])
        return documents(sentences)

    monkeypatch.setattr(citations, 'documents', end_the_other)
    of_all, text = update(tmp_path, '01')
    assert of_all
    assert N4.split(' [')[0] in text
    assert FOREGROUND in text
