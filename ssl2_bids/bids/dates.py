"""When a session was scanned, as the tables of a dataset state it."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from ssl2_bids.bids.dataset import optional_table

FRACTION = re.compile(r'(?<=:\d\d)\.(\d+)')  # of a second


def acquisition_time(
    bids_dir: Path, subject: str, session: str | None, contrast: str
) -> str | None:
    """``acq_time`` of ``sessions.tsv``, else of an image in ``scans.tsv``; None if unknown.

    The image of this contrast goes before the others, for a contrast may be computed from them. A
    time that can be read goes before one that cannot.

    Parameters
    ----------
    subject, session : labels without prefix.
    contrast : suffix of the image.
    """
    person = f'sub-{subject}'
    found: list[str | None] = []
    for row in optional_table(bids_dir / person / f'{person}_sessions.tsv', 'session_id'):
        if session and row.get('session_id', '').strip().removeprefix('ses-') == session:
            found.append(_known(row.get('acq_time')))
    folder = bids_dir / person / (f'ses-{session}' if session else '')
    scans = folder / (f'{person}_ses-{session}_scans.tsv' if session else f'{person}_scans.tsv')
    rows = [row for row in optional_table(scans, 'filename') if row.get('filename')]
    rows.sort(key=lambda row: f'_{contrast}.' not in row['filename'])
    found += [_known(row.get('acq_time')) for row in rows]
    known = [text for text in found if text]
    return next((text for text in known if as_date(text)), known[0] if known else None)


def _known(text: str | None) -> str | None:
    return None if text in (None, '', 'n/a') else text


def as_date(text: str | None) -> datetime | None:
    """A time of a table, without a zone; None where it is missing or not written as BIDS asks.

    Fractions of a second have one to six digits in BIDS; Python 3.10 takes three or six alone.
    """
    stated = (text or '').strip().removesuffix('Z')
    stated = FRACTION.sub(lambda found: f'.{found[1][:6]:0<6}', stated)
    try:
        return datetime.fromisoformat(stated).replace(tzinfo=None)
    except ValueError:
        return None


def not_a_date(session: str, text: str) -> str:
    """That the time of a session cannot be read, and how BIDS writes it."""
    return f'acq_time of ses-{session} is "{text}", and not a date such as 2021-05-31T10:00:00'
