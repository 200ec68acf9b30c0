"""Pages and citations, from the summaries of sessions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ssl2_bids import __version__
from ssl2_bids.bids.outputs import UnitNames, find_summaries, output_name
from ssl2_bids.files import write_text

if TYPE_CHECKING:
    from ssl2_bids.reports.participant import Summary


def write_pages(output_dir: Path, subjects: set[str]) -> list[Path]:
    """Write the page of each participant from its summaries; the pages written."""
    from ssl2_bids.reports import participant

    pages = []
    for subject in sorted(subjects):
        summaries = find_summaries(output_dir, subject)
        if summaries:
            page = output_dir / output_name('report.page', subject=subject)
            participant.render(
                cast('list[Summary]', summaries), page, subject=subject, version=__version__
            )
            pages.append(page)
    return pages


def write_citation(
    output_dir: Path, expected: Mapping[UnitNames, list[str]] | None = None
) -> list[Path]:
    """``logs/CITATION.*``: the methods of all finished sessions below an output folder.

    Parameters
    ----------
    expected : sentences on sessions that are not processed yet, in place of those of their
        former results.

    Returns
    -------
    The files written; none where there are no sentences.
    """
    from ssl2_bids.reports import citations

    expected = expected or {}
    renewed = {(names.subject, names.session, names.desc) for names in expected}
    subjects = {p.name[4:] for p in output_dir.glob('sub-*') if p.is_dir()}
    subjects |= {names.subject for names in expected}
    sentences: dict[str, None] = {}
    for subject in sorted(subjects):
        for summary in find_summaries(output_dir, subject):
            if (subject, summary['session'], summary['model']['Label']) not in renewed:
                sentences.update(dict.fromkeys(summary['methods']))
        for names, methods in expected.items():
            if names.subject == subject:
                sentences.update(dict.fromkeys(methods))
    if not sentences:
        return []
    documents = citations.documents(list(sentences))
    for name, text in documents.items():
        write_text(output_dir / 'logs' / name, text)
    return [output_dir / 'logs' / name for name in documents]
