"""The finished sessions of a participant as visits: in order of time, and what they left."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np

from ssl2_bids.bids.dates import acquisition_time, as_date, not_a_date
from ssl2_bids.steps import preprocess
from ssl2_bids.volume import Volume, resample
from ssl2_bids.workflows.participant.plan import Plan, channels_of, field_strength
from ssl2_bids.workflows.participant.planned_outputs import preproc_path
from ssl2_bids.workflows.raw_scan import read_scan
from ssl2_bids.workflows.segmentation_files import read_result, read_transform


@dataclass(frozen=True)
class Visit:
    """One finished session.

    Attributes
    ----------
    time : when it was scanned, as the dataset states it; None if unknown.
    """

    plan: Plan
    time: str | None = None

    @property
    def label(self) -> str:
        """Of the session, without ``ses-``."""
        return self.plan.session.session or ''

    @property
    def date(self) -> datetime | None:
        """The time as a date; None where it is unknown or not readable."""
        return as_date(self.time)

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Those that the model has seen."""
        return channels_of(self.plan.session)

    @property
    def reference(self) -> str:
        """Contrast of the reference image."""
        return self.plan.session.reference


@dataclass(frozen=True, eq=False)
class Findings:
    """What a session left on the grid of its reference, axes towards right, front and top."""

    image: Volume
    brain: Volume
    probability: Volume


def in_order(plans: list[Plan]) -> tuple[list[Visit], list[str]]:
    """The visits in order of time, and remarks on that.

    With a date of each visit the dates decide, else the labels of the sessions.
    """
    visits = [
        Visit(
            plan,
            acquisition_time(
                plan.settings.bids_dir,
                plan.session.subject,
                plan.session.session,
                plan.session.reference,
            ),
        )
        for plan in plans
    ]
    visits.sort(key=lambda visit: _by_number(visit.label))
    dated = [(visit.date, place) for place, visit in enumerate(visits) if visit.date]
    if len(dated) < len(visits):
        unread = [not_a_date(v.label, v.time) for v in visits if v.time and not v.date]
        if dated != sorted(dated):
            unread.append('the known dates of the sessions are in another order than their labels')
        remarks = [f'{text}; not all changes are given per year' for text in unread]
        return visits, remarks + _of_one_day(visits)
    by_date = [visits[place] for _, place in sorted(dated)]  # of one date by number
    remarks = []
    if by_date != visits:
        named = ', '.join(f'ses-{visit.label} ({visit.time})' for visit in by_date)
        remarks.append(
            f'the dates of the sessions are in another order than their labels; the dates decide: '
            f'{named}'
        )
    return by_date, remarks + _of_one_day(by_date)


def _of_one_day(visits: list[Visit]) -> list[str]:
    return [
        f'ses-{a.label} and ses-{b.label} have the same date: correct acq_time if it is wrong; '
        'there are no changes per year'
        for a, b in pairwise(visits)
        if on_one_day(a, b)
    ]


def _by_number(label: str) -> list[tuple[bool, int, str]]:
    """A key that puts M2 before M12."""
    parts = [part for part in re.split(r'(\d+)', label) if part]
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def on_one_day(one: Visit, other: Visit) -> bool:
    """Whether two visits have the same date, at any time: nothing can be given per year."""
    return bool(one.date and other.date and one.date.date() == other.date.date())


def years_between(one: Visit, other: Visit) -> float | None:
    """Time from a visit to a later one in years of 365.25 days.

    None where a date is unknown, or the second one is before the first.
    """
    if one.date is None or other.date is None or other.date < one.date:
        return None
    return (other.date - one.date).total_seconds() / (365.25 * 86_400)


def read_findings(visit: Visit) -> Findings:
    """The reference image, brain mask and lesion probability of a session.

    Raises
    ------
    DataError : a file is damaged.
    """
    plan, names = visit.plan, visit.plan.names
    return Findings(
        image=read_result(preproc_path(plan, visit.reference), contrast=visit.reference),
        brain=read_result(names.path('anat.brain_mask'), dtype=np.uint8),
        probability=read_result(names.path('anat.probability')),
    )


def image_within(
    visit: Visit, contrast: str, findings: Findings, grid: Volume, pose: np.ndarray
) -> Volume:
    """An image of a visit on the grid within the participant, by one resampling of its scan.

    The reference's preprocessed image lies on the voxels of its scan. Another contrast is read
    from its raw files and corrected for inhomogeneity again, because its preprocessed image was
    resampled already.

    Parameters
    ----------
    pose : (4, 4), RAS+ mm of the within-subject space to RAS+ mm of the reference.

    Raises
    ------
    DataError : a file is damaged, or has changed since the session was processed.
    """
    if contrast == visit.reference:
        return resample(findings.image, grid.affine, grid.shape, transform=pose)
    plan = visit.plan
    scan = plan.session.scans[contrast]
    digests = [digest for _, digest in plan.sources[contrast]]
    image = read_scan(scan, digests).image
    matrix = to_contrast(visit, contrast)
    if not scan.corrected:
        share = resample(
            findings.brain, image.affine, image.shape, transform=np.linalg.inv(matrix)
        )
        brain = share.with_data((share.data >= 0.5).astype(np.uint8))
        strength = field_strength(plan, contrast)
        image = preprocess.without_inhomogeneity(image, brain, field_strength=strength)
    return resample(image, grid.affine, grid.shape, transform=matrix @ pose)


def to_contrast(visit: Visit, contrast: str) -> np.ndarray:
    """The transform of a session that resamples a contrast onto the reference.

    Returns
    -------
    (4, 4), RAS+ mm of the reference to RAS+ mm of the contrast.
    """
    names = visit.plan.names
    return read_transform(names.path('anat.transform', source=contrast, target=visit.reference))
