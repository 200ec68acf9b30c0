"""Labelled people of a scanner twin: drawn, taken through the participant level, prepared.

All of it lies in the work folder, under a hash of what decides it: a former run's people are taken
up again, and a run that was ended resumes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ssl2_bids import __version__
from ssl2_bids.bids.outputs import find_results
from ssl2_bids.errors import DataError
from ssl2_bids.files import write_text
from ssl2_bids.networks.cards import Card
from ssl2_bids.progress import ShowLine
from ssl2_bids.settings import GroupSettings, ParticipantSettings
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.training.checkpoint import fingerprint
from ssl2_bids.wording import counted
from ssl2_bids.workflows.adaptation import prepare as cache
from ssl2_bids.workflows.adaptation.cases import Case, find_cases
from ssl2_bids.workflows.adaptation.prepare import PreparedSession
from ssl2_bids.workflows.adaptation.read_labels import read_labels
from ssl2_bids.workflows.adaptation.twin.measure import (
    MEASURES,
    Site,
    measure_site,
    measured_of,
    measures_of,
)
from ssl2_bids.workflows.adaptation.twin.protocol import (
    DEFAULT_FIELD,
    Twin,
    first_twin,
    second_twin,
)
from ssl2_bids.workflows.heads import image_files
from ssl2_bids.workflows.simulation.files import TRUTH
from ssl2_bids.workflows.simulation.plan import MNI
from ssl2_bids.workflows.simulation.plan import fingerprint as folder_fingerprint

log = logging.getLogger('ssl2_bids')

PILOTS = 4  # people of the first protocol, for its correction
DRAWN = 16  # people of the twin
LEAST = 8  # of them that must come through the participant level
SEEDS = 104_729  # the people of a twin are not those of "ssl2 simulate --seed" of the same number
PROTOCOL = 'twin.toml'


@dataclass(frozen=True)
class DrawnTwin:
    """A twin and its people.

    Attributes
    ----------
    people : prepared for the training, each with the truth as its label.
    cases : of the same people, with their images.
    annotations : the truth, by name of the case.
    statistics : measures by contrast, of the people as of the site.
    """

    site: Site
    twin: Twin
    people: list[PreparedSession]
    cases: list[Case]
    annotations: dict[str, Annotation]
    statistics: dict[str, dict[str, tuple[float, float, float]]]
    heads: str


def draw_twin(
    settings: GroupSettings,
    cases: Sequence[Case],
    card: Card,
    root: Path,
    digest: Callable[[Path], str],
    show: ShowLine,
) -> DrawnTwin:
    """Fit a protocol to the scans of a site, and draw labelled people with it.

    Parameters
    ----------
    cases : of the site.
    root : folder of the adaptations below the work folder.
    digest : gives the SHA-256 of a file.

    Raises
    ------
    DataError : nothing can be measured, fitted or drawn.
    NoInputError : the folder of label maps is missing or empty.
    """
    site = measure_site(cases, settings.bids_dir, card)
    if site.field is None:
        log.warning(
            'scanner twin: no JSON file of the scans has MagneticFieldStrength; %g T is assumed '
            '(participant --field-strength gives another value)',
            DEFAULT_FIELD,
        )
    first = first_twin(site)
    heads = folder_fingerprint(image_files(settings.twin_heads)) if settings.twin_heads else MNI
    parts = [asdict(site), settings.random_seed, heads, PILOTS, DRAWN, card.identity, __version__]
    folder = root / 'twin' / fingerprint(parts)[:16]
    show(
        f'scanner twin: a protocol fitted to {counted(site.people, "person", "people")} '
        f'({", ".join(site.sequences)}); '
        f'{DRAWN} labelled people are drawn with it, and prepared as scans are, in {folder}'
    )
    for contrast, why in first.left_out.items():
        log.warning('scanner twin without %s: %s', contrast, why)
    pilots = _draw(settings, first, PILOTS, folder / 'pilot', offset=1)
    twin = second_twin(site, first, statistics_of(pilots, card))
    drawn = _draw(settings, twin, DRAWN, folder / 'people', offset=2)
    if len(drawn) < LEAST:
        raise DataError(
            f'only {len(drawn)} of {DRAWN} people of the twin came through the participant level',
            path=folder / 'people',
        )
    with _without_notes():
        read = read_labels(drawn, replace(settings, empty_labels='negative'))
    people, _ = cache.prepare_all(
        read.cases, read.annotations, card, folder / 'prepared', digest, simulated=True
    )
    show(f'scanner twin: {len(people)} people are ready')
    statistics = statistics_of(read.cases, card)
    return DrawnTwin(site, twin, people, read.cases, read.annotations, statistics, heads)


def _draw(
    settings: GroupSettings, twin: Twin, count: int, folder: Path, *, offset: int
) -> list[Case]:
    """People of a protocol after the participant level, each with the truth as its label."""
    from ssl2_bids.workflows.participant.run import run_participant_level
    from ssl2_bids.workflows.simulation.run import simulate

    protocol, raw, out = folder / PROTOCOL, folder / 'raw', folder / 'out'
    folder.mkdir(parents=True, exist_ok=True)
    if not protocol.is_file():
        write_text(protocol, twin.text)
    simulate(
        raw,
        subjects=count,
        seed=(settings.random_seed * 2 + offset * SEEDS) % 2**31,
        protocol=protocol,
        labels=settings.twin_heads,
        nprocs=settings.nprocs,
        progress=lambda done, all_: log.info('scanner twin: %d of %d drawn', done, all_),
    )
    participant = ParticipantSettings(
        raw,
        out,
        folder / 'work',
        check_dataset=False,
        clean_workdir=True,
        nprocs=settings.nprocs,
        omp_nthreads=settings.omp_nthreads,
        memory_gb=settings.memory_gb,
        random_seed=settings.random_seed,
        model=settings.model,
        device=settings.device,
    )
    run_participant_level(participant, show=log.info)
    labels = GroupSettings(raw, out, folder / 'work', labels=(raw / TRUTH,))
    with _without_notes():
        return find_cases(labels, find_results(out))


@contextmanager
def _without_notes() -> Iterator[None]:
    """No notes on the labels of simulated people, whose files this program wrote."""

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    log.addFilter(is_error)
    try:
        yield
    finally:
        log.removeFilter(is_error)


def statistics_of(
    cases: Sequence[Case], card: Card
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Measures by contrast, percentiles over people, as :class:`Site` has them."""
    metrics: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        for contrast, measures in measures_of(case, card).items():
            metrics.setdefault(contrast, []).append(measures)
    return {contrast: measured_of(rows) for contrast, rows in metrics.items()}


def twin_facts(drawn: DrawnTwin) -> dict[str, Any]:
    """What card and page report of a twin: medians over people, of the site and of the twin."""
    rows = []
    for contrast in drawn.twin.fitted:
        one = drawn.site.sequences[contrast]
        there, here = one.measured, drawn.statistics.get(contrast, {})
        rows += [
            {
                'Contrast': contrast,
                'Quantity': text,
                'Site': round(there[name][1], 4) if name in there else None,
                'Twin': round(here[name][1], 4) if name in here else None,
            }
            for name, text in MEASURES.items()
            if name in there or name in here
        ]
        geometry = drawn.twin.table['sequences'][one.suffix]['geometry']
        rows.append(
            {
                'Contrast': contrast,
                'Quantity': 'voxel (mm)',
                'Site': ' x '.join(f'{edge:g}' for edge in one.voxel),
                'Twin': ' x '.join(f'{edge:g}' for edge in geometry['voxel']),
            }
        )
        rows.append(
            {
                'Contrast': contrast,
                'Quantity': 'slice thickness (mm)',
                'Site': one.thickness or max(one.voxel),
                'Twin': geometry.get('thickness') or max(geometry['voxel']),
            }
        )
    return {
        'People': len(drawn.people),
        'Measured': drawn.site.people,
        'Field': drawn.twin.table['field'],
        'FieldKnown': drawn.site.field is not None,
        'Contrasts': list(drawn.twin.fitted),
        'NotDrawn': drawn.twin.left_out,
        'Heads': MNI if drawn.heads == MNI else 'label maps',
        'Statistics': rows,
    }
