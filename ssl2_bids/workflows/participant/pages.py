"""Pages and citations, from the summaries of sessions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from ssl2_bids import __version__
from ssl2_bids.bids.outputs import find_summaries, output_name
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


def write_citation(output_dir: Path) -> None:
    """``logs/CITATION.*``: the methods of all finished sessions below an output folder."""
    from ssl2_bids.reports import citations

    subjects = sorted(p.name[4:] for p in output_dir.glob('sub-*') if p.is_dir())
    sentences: dict[str, None] = {}
    for subject in subjects:
        for summary in find_summaries(output_dir, subject):
            sentences.update(dict.fromkeys(summary['methods']))
    if sentences:
        for name, text in citations.documents(list(sentences)).items():
            write_text(output_dir / 'logs' / name, text)
