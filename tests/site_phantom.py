"""A site of small phantom brains: what the participant level would leave, labels, and a model.

Lesions are bright in FLAIR and dark in T1w. At the site there are also spots that are bright in
FLAIR alone, which the model from elsewhere takes for lesions: what an adaptation has to learn.
Everything is on 4 mm voxels, so that a network of a few thousand weights trains in seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ssl2_bids.bids.outputs import Result, UnitNames, sidecar_path
from ssl2_bids.bids.provenance import bids_uri, write_dataset_files
from ssl2_bids.bids.sidecars import image_sidecar, segmentation_sidecar
from ssl2_bids.files import write_json, write_text
from ssl2_bids.itk import to_itk
from ssl2_bids.networks.architectures.fast_unet import FastUNet
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.weights import load_network, read_card, write_model
from ssl2_bids.settings import ATLAS_SPACE
from ssl2_bids.steps.network_input import network_input
from ssl2_bids.training.adaptation.adapt import AdaptSettings, adapt
from ssl2_bids.training.data.participants import Participant
from ssl2_bids.volume import Volume, write
from ssl2_bids.workflows.adaptation.cases import Case
from ssl2_bids.workflows.adaptation.resegment import segment_case

SHAPE = (34, 40, 32)
VOXEL = 4.0
RADII = (13.0, 16.0, 12.0)
AFFINE = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
AFFINE[:3, 3] = [-66, -80, -50]
CARD = {
    'Name': 'phantom-3t',
    'Version': '1',
    'Network': {
        'Type': 'fast_unet',
        'InputChannels': 2,
        'Channels': [4, 8],
        'FullResolutionChannels': 2,
        'OutputChannels': 1,
    },
    'Channels': ['FLAIR', 'T1w'],
    'Required': [['FLAIR'], ['T1w']],
    'Absent': 'all-zero channel',
    'Orientation': 'RAS',
    'VoxelSize': [VOXEL] * 3,
    'Normalisation': {
        'Type': 'median-mad',
        'Region': 'brain',
        'Clip': [-6, 8],
        'Divide': 3,
        'Background': 0,
    },
    'Threshold': 0.5,
    'MinimumLesionVolume': 3,
    'Window': [32, 32, 32],
    'Overlap': 0.25,
    'TrainedOn': 'phantoms',
}


@dataclass(frozen=True)
class Head:
    """A phantom; arrays on the grid of ``AFFINE``."""

    flair: np.ndarray
    t1w: np.ndarray
    brain: np.ndarray
    lesion: np.ndarray


def head(seed: int, *, decoys: int = 6, lesions: int = 5) -> Head:
    """A brain with lesions, and bright spots in FLAIR that are none."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.indices(SHAPE), -1).astype(float)
    middle = (np.array(SHAPE) - 1) / 2
    brain = (((grid - middle) / RADII) ** 2).sum(-1) < 1
    centres: list[np.ndarray] = []
    while len(centres) < lesions + decoys:
        centre = middle + random.uniform(-0.65, 0.65, 3) * RADII
        if all(np.linalg.norm(centre - other) > 6 for other in centres):
            centres.append(centre)
    lesion, decoy = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    for number, centre in enumerate(centres):
        ball = np.linalg.norm(grid - centre, axis=-1) < random.uniform(1.5, 2.6)
        if number < lesions:
            lesion |= ball & brain
        else:
            decoy |= ball & brain
    noise = random.normal(0, 4, (2, *SHAPE))
    flair = 100 + 60 * (lesion | decoy) + noise[0]
    t1w = 120 - 45 * lesion + noise[1]
    return Head(*(np.where(brain, v, 0).astype(np.float32) for v in (flair, t1w)), brain, lesion)


def as_participant(one: Head, name: str, card) -> Participant:
    """A phantom as the network sees it, wholly labelled."""
    images = {c: Volume(d, AFFINE, c) for c, d in (('FLAIR', one.flair), ('T1w', one.t1w))}
    given = network_input(images, {}, Volume(one.brain.astype(np.uint8), AFFINE), card)
    shift = np.rint((given.affine[:3, 3] - AFFINE[:3, 3]) / VOXEL).astype(int)
    label = np.zeros(given.brain.shape, np.uint8)
    low = np.maximum(shift, 0)
    high = np.minimum(shift + label.shape, SHAPE)
    inside = tuple(slice(a, b) for a, b in zip(low - shift, high - shift, strict=True))
    label[inside] = one.lesion[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return Participant(
        name, given.tensor.numpy(), (True, True), given.brain.numpy(), label, np.ones_like(label)
    )


def make_model(folder: Path) -> Path:
    """A model that knows lesions, but not the bright spots of the site."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = FastUNet(inputs=2, channels=(4, 8), full=2)
    card = write_model(folder / 'start', network, CARD)
    people = [as_participant(head(900 + n, decoys=0), f'3t-{n}', card) for n in range(6)]
    settings = AdaptSettings('supervised', 150, 1e-2, (32, 32, 32), 2, 0)
    trained, _ = adapt(network, people, settings, folder / 'training', device='cpu')
    write_model(folder / 'phantom-3t', trained, CARD)
    return folder / 'phantom-3t'


def make_low_model(folder: Path, shift: float, card: Mapping[str, object] = CARD) -> Card:
    """That of :func:`make_model` with a probability that is too low: the logit has a shift."""
    network = load_network(read_card(make_model(folder)))
    last = [value for name, value in network.named_parameters() if name.endswith('bias')][-1]
    assert last.shape == (1,)
    with torch.no_grad():
        last += shift
    return write_model(folder / 'low', network, dict(card))


def make_site(root: Path, model: Path, people: int, *, first_seed: int = 0) -> tuple[Path, Path]:
    """Raw dataset and output folder of a site, as after the participant level."""
    raw, out = root / 'data', root / 'out'
    description = {'Name': 'phantoms', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
    write_json(raw / 'dataset_description.json', description)
    write_text(raw / 'README', 'Made by a test.\n')
    card = replace(read_card(model), label='')
    network = load_network(card)
    write_dataset_files(out, raw)
    for number in range(1, people + 1):
        add_person(raw, out, f'{number:02d}', head(first_seed + number), card, network)
    return raw, out


def add_person(
    raw: Path, out: Path, subject: str, one: Head, card, network, *, session: str | None = None
) -> None:
    """A participant's raw images, preprocessed images and first results."""
    names = UnitNames(out, subject, session, 'T1w', card.label)
    unit = f'sub-{subject}' + (f'_ses-{session}' if session else '')
    images = {'T1w': one.t1w, 'FLAIR': one.flair}
    paths = {}
    reference = names.path('anat.preproc_reference', contrast='T1w')
    for contrast, data in images.items():
        source = raw / unit.replace('_', '/') / 'anat' / f'{unit}_{contrast}.nii.gz'
        write(Volume(data, AFFINE), source)
        kind = 'anat.preproc_reference' if contrast == 'T1w' else 'anat.preproc'
        paths[contrast] = names.path(kind, contrast=contrast)
        write(Volume(data, AFFINE), paths[contrast])
        sidecar = image_sidecar(
            {},
            description='A phantom.',
            sources=[bids_uri(source, raw, 'raw')],
            spatial_reference=bids_uri(reference, out),
            skull_stripped=True,
        )
        write_json(sidecar_path(paths[contrast]), sidecar)
    brain = names.path('anat.brain_mask')
    write(Volume(one.brain.astype(np.uint8), AFFINE), brain, dtype=np.uint8)
    content = segmentation_sidecar(
        'Brain',
        description='Brain mask.',
        sources=[bids_uri(reference, out)],
        spatial_reference=bids_uri(reference, out),
    )
    write_json(sidecar_path(brain), content)
    for source, target in (
        ('T1w', ATLAS_SPACE),
        (ATLAS_SPACE, 'T1w'),
        ('FLAIR', 'T1w'),
    ):
        write_text(names.path('anat.transform', source=source, target=target), to_itk(np.eye(4)))
    result = Result(names, {'ConfigurationHash': 'first', 'MinimumLesionVolume': 3.0})
    segment_case(Case(result, paths), card, network, device='cpu')


def put_label(
    folder: Path,
    subject: str,
    lesion: np.ndarray,
    *,
    affine: np.ndarray = AFFINE,
    session: str | None = None,
    **sidecar: object,
) -> Path:
    """A manual mask, as a rater would name it."""
    unit = f'sub-{subject}' + (f'_ses-{session}' if session else '')
    path = folder / unit.replace('_', '/') / 'anat' / f'{unit}_label-lesion_mask.nii.gz'
    write(Volume(lesion.astype(np.uint8), affine), path, dtype=np.uint8)
    if sidecar:
        path.with_name(f'{unit}_label-lesion_mask.json').write_text(json.dumps(sidecar))
    return path


def summarise(out: Path, subject: str, card: Card) -> None:
    """The summary that the participant level leaves of a session (the phantoms have none)."""
    names = UnitNames(out, subject, None, 'T1w', card.label)
    content = {
        'subject': subject, 'session': None, 'status': 'done', 'model': card.reference,
        'settings': {'threshold': 0.5}, 'warnings': [], 'methods': ['Phantoms were segmented.'],
        'viewer': None, 'reference': None, 'figures': [], 'lesions': [], 'volumes': [],
        'outputs': [], 'provenance': {},
    }  # fmt: skip
    write_json(names.path('report.summary'), content)
