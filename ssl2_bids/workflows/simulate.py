"""A simulated raw BIDS dataset with lesions of known truth, for demonstrations and tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids import __version__
from ssl2_bids.bids.outputs import output_name, sidecar_path, write_table
from ssl2_bids.bids.provenance import BIDS_VERSION, CODE_URL
from ssl2_bids.errors import CannotWriteError, UsageError
from ssl2_bids.files import write_json, write_text
from ssl2_bids.simulation.lesions import Lesions, paint
from ssl2_bids.simulation.phantom import Anatomy, deform
from ssl2_bids.simulation.scanner import make_head, place, sample, scan
from ssl2_bids.simulation.sequences import PROTOCOLS
from ssl2_bids.volume import Volume, write

TRUTH = Path('derivatives') / 'truth'
DEFAULT_CONTRASTS = {3: ('T1w', 'FLAIR'), 7: ('UNIT1', 'FLAIR')}
REFERENCES = ('UNIT1', 'T1w', 'FLAIR')  # the first one made is the App's reference image
LOAD = (9.0, 0.6, 3.0, 25.0)  # lesion volume in mL: median, spread of the log, least, most
README = """\
SIMULATED DATA. Nobody was scanned.

Heads made from the MNI152 tissue maps by random deformation, with white-matter lesions of known
truth, as MR sequences would show them. The true lesion masks stand in derivatives/truth, on the
grid of the {reference} images.

Made by: ssl2 simulate --subjects {subjects} --seed {seed} --field {field} --contrasts {contrasts}

Tissue maps: MNI ICBM 152, copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre,
Montreal Neurological Institute, McGill University (Fonov et al. 2011,
https://doi.org/10.1016/j.neuroimage.2010.07.033). As simulated data these images prove nothing
about the accuracy of a method on patients.
"""


@dataclass(frozen=True)
class Plan:
    """What makes a simulated dataset what it is."""

    root: Path
    seed: int
    field: int
    contrasts: tuple[str, ...]

    @property
    def reference(self) -> str:
        """Suffix of the App's reference image, on whose grid the truth is written."""
        return next(suffix for suffix in REFERENCES if suffix in self.contrasts)


def simulate(
    output_dir: Path,
    *,
    subjects: int,
    seed: int,
    field: int = 3,
    contrasts: tuple[str, ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a simulated raw BIDS dataset and, below ``derivatives/truth``, its true lesion masks.

    Parameters
    ----------
    output_dir : empty, missing, or holding the same simulation: finished participants are kept.
    subjects : number of participants; each depends on ``seed`` and its own number alone.
    field : 3 or 7 T.
    contrasts : BIDS suffixes; empty for T1w and FLAIR at 3 T, UNIT1 and FLAIR at 7 T. UNIT1
        brings the two inversion images along.
    progress : called after each participant with the number done and the number of all.

    Raises
    ------
    UsageError : an impossible number, field or contrast.
    CannotWriteError : the folder holds something else, or cannot be written.
    """
    plan = make_plan(output_dir, subjects=subjects, seed=seed, field=field, contrasts=contrasts)
    claim_folder(plan)
    text = README.format(
        subjects=subjects,
        reference=plan.reference,
        contrasts=' '.join(plan.contrasts),
        seed=seed,
        field=field,
    )
    write_text(plan.root / 'README', text)
    template = None
    for number in range(1, subjects + 1):
        if not sidecar_path(truth_path(plan, label(number))).is_file():
            template = template or tissue_maps()
            simulate_participant(plan, template, number)
        if progress:
            progress(number, subjects)
    write_participants(plan)


def make_plan(
    output_dir: Path, *, subjects: int, seed: int, field: int, contrasts: tuple[str, ...]
) -> Plan:
    """Check what was asked for.

    Raises
    ------
    UsageError : an impossible number, field or contrast.
    """
    if subjects < 1:
        raise UsageError(f'{subjects} participants cannot be simulated', advice='Give 1 or more.')
    if seed < 0:
        raise UsageError(f'the seed {seed} is negative', advice='Give 0 or more.')
    if field not in DEFAULT_CONTRASTS:
        raise UsageError(f'a field of {field} T cannot be simulated', advice='Give 3 or 7.')
    known = tuple(suffix for strength, suffix in PROTOCOLS if strength == field)
    chosen = tuple(dict.fromkeys(contrasts)) or DEFAULT_CONTRASTS[field]
    unknown = [suffix for suffix in chosen if suffix not in known]
    if unknown or not set(chosen) & set(REFERENCES):
        problem = f'no {" or ".join(unknown)}' if unknown else f'none of {", ".join(REFERENCES)}'
        raise UsageError(
            f'there is {problem} among the contrasts that can be simulated at {field} T',
            advice=f'Choose from {", ".join(known)}, one of {", ".join(REFERENCES)} among them.',
        )
    return Plan(Path(output_dir), seed, field, tuple(s for s in known if s in chosen))


def claim_folder(plan: Plan) -> None:
    """Write the dataset descriptions, unless the folder holds something else.

    Raises
    ------
    CannotWriteError : it does; nothing was written.
    """
    raw, truth = descriptions(plan)
    path = plan.root / 'dataset_description.json'
    if plan.root.exists() and not plan.root.is_dir():
        raise CannotWriteError('is a file', advice='Give a folder.', path=plan.root)
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding='utf-8')).get('GeneratedBy')
        except (ValueError, AttributeError):
            found = None
        if found != raw['GeneratedBy']:
            raise CannotWriteError(
                'the folder holds another dataset, or a simulation with other settings',
                advice='Choose an empty folder; nothing was changed.',
                path=plan.root,
            )
    elif plan.root.is_dir() and any(
        not entry.name.startswith('.tmp-') for entry in plan.root.iterdir()
    ):
        raise CannotWriteError(
            'the folder is not empty and holds no simulated dataset',
            advice='Choose an empty folder; nothing was changed.',
            path=plan.root,
        )
    write_json(path, raw)
    write_json(plan.root / TRUTH / 'dataset_description.json', truth)


def descriptions(plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content of both ``dataset_description.json``: raw, truth."""
    settings = f'seed {plan.seed}, {plan.field} T, {" ".join(plan.contrasts)}'
    generated = {'Version': __version__, 'Description': settings, 'CodeURL': CODE_URL}
    shared = {
        'BIDSVersion': BIDS_VERSION,
        'License': 'CC0',
        'Authors': ['The ssl2-bids developers'],
        'ReferencesAndLinks': ['https://doi.org/10.1016/j.neuroimage.2010.07.033'],
    }
    raw = {
        'Name': 'SIMULATED brains with lesions of known truth',
        'DatasetType': 'raw',
        'GeneratedBy': [{'Name': 'ssl2 simulate', **generated}],
    }
    # The specification wants the name of a nested derivative's maker in its folder's name.
    truth = {
        'Name': 'Known truth of the SIMULATED brains',
        'DatasetType': 'derivative',
        'GeneratedBy': [{'Name': 'truth', **generated}],
        'DatasetLinks': {'raw': '../..'},
    }
    return raw | shared, truth | shared


def tissue_maps() -> Anatomy:
    """White matter, grey matter and CSF of the MNI152 template that nilearn carries, 1 mm."""
    from nilearn import datasets

    template = datasets.load_mni152_template(resolution=1)
    brain = template.get_fdata(dtype=np.float32) > 0
    grey = datasets.load_mni152_gm_template(resolution=1).get_fdata(dtype=np.float32) * brain
    white = datasets.load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32) * brain
    fluid = np.clip(brain - grey - white, 0, 1).astype(np.float32)
    return Anatomy({'wm': white, 'gm': grey, 'csf': fluid}, template.affine)


def simulate_participant(plan: Plan, template: Anatomy, number: int) -> None:
    """Write one participant's images and, last of all, the sidecar of the truth."""
    random = np.random.default_rng([plan.seed, number])
    median, spread, least, most = LOAD
    load = float(np.clip(random.lognormal(np.log(median), spread), least, most))
    lesions = paint(deform(template, random), random, load=load)
    head = make_head(lesions, random, field=plan.field)
    subject = label(number)
    for suffix in plan.contrasts:
        # A stream of its own, so that a contrast does not depend on which others are made.
        random = np.random.default_rng([plan.seed, number, *suffix.encode()])
        pose, grid = place(head, suffix, random)
        for name, image in scan(head, grid, random, pose=pose).items():
            write_scan(plan, subject, name, image)
        if suffix == plan.reference:
            severity = sample(lesions.severity, lesions.anatomy, grid, pose=pose)
            truth = grid.with_data(severity >= 0.5)
    write(truth, truth_path(plan, subject), dtype=np.uint8)
    content = truth_sidecar(plan, subject, truth, lesions)
    write_json(sidecar_path(truth_path(plan, subject)), content)


def label(number: int) -> str:
    """Participant label: at least two digits."""
    return f'{number:02d}'


def raw_path(plan: Plan, subject: str, name: str) -> Path:
    """Path of a raw image; INV1 and INV2 are the two images of ``_MP2RAGE``."""
    suffix = {'INV1': 'inv-1_MP2RAGE', 'INV2': 'inv-2_MP2RAGE'}.get(name, name)
    return plan.root / f'sub-{subject}' / 'anat' / f'sub-{subject}_{suffix}.nii.gz'


def truth_path(plan: Plan, subject: str) -> Path:
    """Path of a true lesion mask."""
    return plan.root / TRUTH / output_name('anat.mask', subject=subject, space=plan.reference)


def write_scan(plan: Plan, subject: str, name: str, image: Volume) -> None:
    """Write a raw image and its sidecar."""
    path = raw_path(plan, subject, name)
    write(image, path, dtype=np.int16)
    write_json(sidecar_path(path), scan_sidecar(plan, name))


def scan_sidecar(plan: Plan, name: str) -> dict[str, Any]:
    """Sidecar of a raw image: what the sequence was, times in s, angles in degrees."""
    protocol = PROTOCOLS[plan.field, 'UNIT1' if name.startswith('INV') else name]
    content: dict[str, Any] = {
        'Description': 'SIMULATED',
        'MagneticFieldStrength': plan.field,
        'EchoTime': protocol.te,
        'SkullStripped': len(protocol.angles) < 2,
    }
    if len(protocol.angles) < 2:
        content['RepetitionTime'] = protocol.tr
        content['FlipAngle'] = protocol.angles[0] if protocol.angles else 90
        return content | ({'InversionTime': protocol.ti[0]} if protocol.ti else {})
    content['RepetitionTimePreparation'] = protocol.tr
    content['RepetitionTimeExcitation'] = protocol.spacing
    content['NumberShots'] = list(protocol.pulses)
    if name.startswith('INV'):
        train = int(name[-1]) - 1
        content['InversionTime'] = protocol.ti[train]
        content['FlipAngle'] = protocol.angles[train]
    return content


def truth_sidecar(plan: Plan, subject: str, truth: Volume, lesions: Lesions) -> dict[str, Any]:
    """Sidecar of a true lesion mask."""
    reference = raw_path(plan, subject, plan.reference).relative_to(plan.root).as_posix()
    return {
        'Description': 'Voxels of which a simulated lesion fills at least one half',
        'Type': 'Lesion',
        'Manual': False,
        'SpatialReference': f'bids:raw:{reference}',
        'Sources': [f'bids:raw:{reference}'],
        'LesionVolumeMm3': round(float(truth.data.sum()) * truth.voxel_volume, 1),
        'PaintedLesions': lesions.count,
    }


def write_participants(plan: Plan) -> None:
    """List the participants that stand in the folder."""
    rows = [
        {'participant_id': folder.name, 'group': 'simulated'}
        for folder in sorted(plan.root.glob('sub-*'))
    ]
    columns = {
        'participant_id': {'Description': 'label of the participant'},
        'group': {
            'Description': 'kind of participant',
            'Levels': {'simulated': 'simulated brain with white-matter lesions'},
        },
    }
    write_table(plan.root / 'participants.tsv', rows, columns)
