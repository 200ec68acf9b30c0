"""What makes a simulated dataset what it is: settings, their checks, and what is read for them."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ssl2_bids.errors import DataError, UsageError
from ssl2_bids.files import sha256
from ssl2_bids.simulation.anatomy.anatomy import FIRST_EXTRACEREBRAL, Anatomy
from ssl2_bids.simulation.anatomy.label_maps import from_label_map, read_label_map
from ssl2_bids.simulation.anatomy.tissue_maps import from_mni_maps
from ssl2_bids.simulation.lesions.real import LesionShapes, read_shapes
from ssl2_bids.simulation.participant import MAX_LOAD, Habits
from ssl2_bids.simulation.scanner.protocols import WITH_PHASE, Scanner, read_scanner
from ssl2_bids.voxel_grid import bounding_box, shift_affine, start_of
from ssl2_bids.workflows.heads import image_files
from ssl2_bids.workflows.simulation.files import VisitNames

REFERENCES = ('UNIT1', 'T1w', 'FLAIR')  # the first one made is the App's reference image
THICK_T1W = 2.0  # mm; beyond, the App reads lesions on FLAIR
DEFAULT_FIELD = 3.0  # T
MNI = 'MNI152'
MNI_SIZE = 0.94  # MNI152 heads are larger than people's (doi 10.1002/hbm.20345)
MAX_SPREAD = 3.0
STREAM = b'anatomy'  # name of a stream of random numbers


@dataclass(frozen=True)
class SimulationPlan:
    """All that makes the images.

    Attributes
    ----------
    sessions : visits of each participant; 1 for a dataset without sessions.
    label_maps : whose heads are deformed; empty for the MNI152 template.
    lesion_masks : folder of real masks, or None.
    settings : all of this in words.
    """

    root: Path
    seed: int
    scanner: Scanner
    contrasts: tuple[str, ...]
    sessions: int
    habits: Habits
    label_maps: tuple[Path, ...]
    lesion_masks: Path | None
    whole_head: bool
    phase: bool
    settings: str = ''

    @property
    def reference(self) -> str:
        """Suffix of the App's reference image, on whose grid the truth is written."""
        edges = {name: max(g.voxel) for name, g in self.scanner.geometries.items()}
        present = [suffix for suffix in REFERENCES if suffix in self.contrasts]
        if present[:2] == ['T1w', 'FLAIR'] and THICK_T1W < edges['T1w'] >= edges['FLAIR']:
            return 'FLAIR'
        return present[0]

    def names(self, number: int, visit: int) -> VisitNames:
        """Names of one session's files; participants from 1, visits from 0."""
        session = f'{visit + 1}' if self.sessions > 1 else None
        return VisitNames(self.root, f'{number:02d}', session, self.reference)

    def label_map(self, number: int) -> Path | None:
        """Whose head a participant's is made from, None for MNI152; all are used equally often."""
        if not self.label_maps:
            return None
        order = np.random.default_rng([self.seed, *STREAM]).permutation(len(self.label_maps))
        return self.label_maps[int(order[(number - 1) % len(order)])]

    def check_label_maps(self, numbers: Iterable[int]) -> None:
        """Read the label maps of some participants, to find out early what is wrong with them.

        Raises
        ------
        DataError : one cannot be used.
        """
        for path in sorted({p for n in numbers if (p := self.label_map(n))}):
            labels = read_label_map(path)
            if self.whole_head and not (labels.data >= FIRST_EXTRACEREBRAL).any():
                raise DataError(
                    'the label map has nothing outside the brain',
                    advice='Leave --whole-head out, or give maps of whole heads; the numbers of '
                    'skull and scalp are in ssl2_bids/resources/label_map.toml.',
                    path=path,
                )

    def template(self, number: int) -> Anatomy:
        """The anatomy that is deformed into a participant's head.

        Raises
        ------
        DataError : its label map cannot be used.
        """
        path = self.label_map(number)
        if path is None:
            return tissue_maps()
        return from_label_map(path, skull_stripped=not self.whole_head)

    def shapes(self) -> LesionShapes | None:
        """Real lesions.

        Raises
        ------
        DataError, NoInputError : the masks cannot be used, or are missing.
        """
        return _read_shapes(self.lesion_masks) if self.lesion_masks else None

    def finished(self, number: int) -> bool:
        """Whether images and truth of a participant are complete."""
        visits = range(self.sessions)
        return all(self.names(number, visit).done_marker.is_file() for visit in visits)


@functools.lru_cache(maxsize=1)
def _read_shapes(folder: Path) -> LesionShapes:
    shapes = read_shapes(folder)
    if not shapes.components:
        raise DataError(
            'all lesion masks are empty', advice='Give masks with lesions.', path=folder
        )
    return shapes


@functools.cache
def tissue_maps() -> Anatomy:
    """The MNI152 template that nilearn carries, as an anatomy of 1 mm, cropped to the brain."""
    from nilearn import datasets

    template = datasets.load_mni152_template(resolution=1)
    maps = (
        datasets.load_mni152_wm_template(resolution=1),
        datasets.load_mni152_gm_template(resolution=1),
        template,
    )
    white, grey, brain = (image.get_fdata(dtype=np.float32) for image in maps)
    box = bounding_box(brain > 0, 2)
    affine = shift_affine(template.affine, start_of(box))
    return from_mni_maps(white[box], grey[box], brain[box] > 0, affine)


def make_plan(
    root: Path,
    *,
    seed: int,
    field: float | None,
    protocol: Path | None,
    contrasts: tuple[str, ...],
    sessions: int,
    habits: Habits,
    labels: Path | None,
    lesion_masks: Path | None,
    whole_head: bool,
    phase: bool,
) -> SimulationPlan:
    """Check what was asked for, and read the small things.

    Raises
    ------
    UsageError : an impossible number, field, contrast or combination.
    NoInputError, DataError : what was given to read is missing or cannot be used.
    """
    check_numbers(seed, sessions, habits)
    habits = replace(habits, size=1.0 if labels else MNI_SIZE)
    scanner = read_scanner(protocol, (field or DEFAULT_FIELD) if protocol is None else field)
    if whole_head and not labels:
        raise UsageError(
            'the MNI152 tissue maps have no skull and no scalp',
            advice='Give label maps of whole heads with --labels, or leave --whole-head out.',
        )
    plan = SimulationPlan(
        root=Path(root),
        seed=seed,
        scanner=scanner,
        contrasts=chosen_contrasts(scanner, contrasts, everything=protocol is not None),
        sessions=sessions,
        habits=habits,
        label_maps=tuple(image_files(labels)) if labels else (),
        lesion_masks=Path(lesion_masks) if lesion_masks else None,
        whole_head=whole_head,
        phase=phase,
        settings='',
    )
    plan.shapes()
    return plan


def check_phase(plan: SimulationPlan) -> None:
    """Check that phase images are asked for where there are any.

    Raises
    ------
    UsageError : no sequence of the plan has phase images.
    """
    kinds = {plan.scanner.protocols[suffix].kind for suffix in plan.contrasts}
    if plan.phase and not kinds.intersection(WITH_PHASE):
        raise UsageError(
            f'none of {", ".join(plan.contrasts)} has phase images',
            advice='Add UNIT1 or MEGRE to --contrasts, or leave --phase out.',
        )


def check_numbers(seed: int, sessions: int, habits: Habits) -> None:
    """Check the numbers that make a simulation.

    Raises
    ------
    UsageError : one is impossible.
    """
    limits = (
        ('the seed', seed, 0, 2**31 - 1),
        ('the number of sessions', sessions, 1, 50),
        ('the lesion load in mL', habits.load, 0, MAX_LOAD),
        ('the spread of the lesion load', habits.spread, 0, MAX_SPREAD),
        ('the share of scans with motion', habits.motion, 0, 1),
        ('the share of scans with spikes', habits.spikes, 0, 1),
    )
    for name, value, low, high in limits:
        if not (math.isfinite(value) and low <= value <= high):
            raise UsageError(f'{name} is {value:g}', advice=f'Give {low:g} to {high:g}.')


def chosen_contrasts(
    scanner: Scanner, wanted: tuple[str, ...], *, everything: bool
) -> tuple[str, ...]:
    """The scanner's sequences to make, in its order.

    Parameters
    ----------
    wanted : suffixes; empty for UNIT1 (else T1w) and FLAIR.
    everything : empty means all.

    Raises
    ------
    UsageError : one that the scanner does not have, or none that the App could use alone.
    """
    known = tuple(scanner.protocols)
    usual = [name for name in REFERENCES if name in known]
    if 'UNIT1' in usual and 'T1w' in usual:
        usual.remove('T1w')
    chosen = tuple(wanted) or (known if everything else tuple(usual))
    unknown = [suffix for suffix in chosen if suffix not in known]
    if unknown or not set(chosen) & set(REFERENCES):
        problem = f'no {" or ".join(unknown)}' if unknown else f'none of {", ".join(REFERENCES)}'
        raise UsageError(
            f'there is {problem} among the contrasts that can be simulated at '
            f'{scanner.field:g} T by "{scanner.name}"',
            advice=f'Choose from {", ".join(known)}, one of {", ".join(REFERENCES)} among them.',
        )
    return tuple(suffix for suffix in known if suffix in chosen)


def settings_of(plan: SimulationPlan, *, own_protocol: bool) -> str:
    """All that makes the images, in words; equal words mean equal images."""
    usual, habits = Habits(), plan.habits
    words = [f'seed {plan.seed}', f'{plan.scanner.field:g} T', ' '.join(plan.contrasts)]
    if own_protocol:
        content = json.dumps(asdict(plan.scanner), sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        words.append(f'protocol "{plan.scanner.name}" {digest[:12]}')
    if plan.sessions > 1:
        words.append(f'{plan.sessions} sessions')
    if plan.label_maps:
        words.append(f'{len(plan.label_maps)} label maps {fingerprint(plan.label_maps)}')
    if plan.lesion_masks:
        words.append(f'lesion masks {fingerprint(image_files(plan.lesion_masks))}')
    if (habits.load, habits.spread) != (usual.load, usual.spread):
        words.append(f'lesions {habits.load:g} mL, spread {habits.spread:g}')
    for name in ('motion', 'spikes'):
        if getattr(habits, name):
            words.append(f'{name} {getattr(habits, name):g}')
    words += [w for w, given in (('whole heads', plan.whole_head), ('phase', plan.phase)) if given]
    return ', '.join(words)


def fingerprint(paths: Iterable[Path]) -> str:
    """Short hash of the names and contents of files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f'{path.name} {sha256(path)}\n'.encode())
    return digest.hexdigest()[:12]
