"""Patches of annotated and unannotated brains, in the views that a strategy compares.

A batch is a pure function of (seed, rank, step). If a batch has three labelled patches for each
unlabelled one, half of all patches are around an annotated lesion, a quarter where annotated
slices are free of lesions, and a quarter anywhere that is not annotated. The labelled patches are
the same for all strategies, with any number of unlabelled patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from ssl2_bids.errors import DataError
from ssl2_bids.steps.lesions import label_instances
from ssl2_bids.training.data.masking import spoil
from ssl2_bids.training.data.participants import Participant, intensities
from ssl2_bids.training.strategy import Batch

LEFT_RIGHT = 0  # axes of a participant's arrays, which are RAS+
AXIAL = 2
LABELLED, UNLABELLED = 0, 1  # streams of random numbers


@dataclass(frozen=True)
class ViewSettings:
    """How patches are drawn and changed.

    Attributes
    ----------
    patch : voxels, a multiple of what the network needs.
    labelled, unlabelled : patches in a batch; two unlabelled ones at least for strategies that
        mix them.
    on_lesion : share of the labelled patches around a lesion; the others lie in annotated slices
        without any.
    mirror : share of patches with left and right exchanged.
    moved : share of patches turned and scaled; the others keep the sharpness of the scan.
    angle : degrees, largest turn about any axis; more would tilt annotated slices away.
    scale : largest change of an edge, share.
    drop : probability that a contrast is left out of a labelled patch or a strong view; one is
        always left.
    simulated : share of the labelled patches that are of simulated people, where there are real
        and simulated ones; None treats all people alike.
    """

    patch: tuple[int, int, int] = (80, 80, 80)
    labelled: int = 6
    unlabelled: int = 2
    on_lesion: float = 2 / 3
    mirror: float = 0.5
    moved: float = 0.5
    angle: float = 15.0
    scale: float = 0.1
    drop: float = 0.2
    simulated: float | None = None


@dataclass(frozen=True, eq=False)
class Places:
    """Where patches of a participant may lie.

    Attributes
    ----------
    lesions : per annotated lesion (26-connected) its voxels (V, 3).
    brain : per axial slice the brain voxels.
    free : per axial slice the annotated brain voxels; of slices without lesion alone if there
        are any such.
    unannotated : number of brain voxels without annotation in each axial slice.
    """

    lesions: tuple[np.ndarray, ...]
    brain: np.ndarray
    free: np.ndarray
    unannotated: np.ndarray


@dataclass(frozen=True, eq=False)
class Patch:
    """What is cut out of a participant: image (C, D, H, W) and masks (1, D, H, W), float32."""

    image: Tensor
    brain: Tensor
    label: Tensor
    annotated: Tensor


def places_of(participant: Participant) -> Places:
    """Look once at a participant's masks."""
    brain, drawn, extent = masks_of(participant, (slice(None),) * 3)
    lesion = drawn & extent & brain
    pieces = label_instances(lesion, voxel_volume=1, minimum_volume=0)
    lesions = []
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        corner = [edge.start for edge in box]
        lesions.append((np.argwhere(pieces[box] == number) + corner).astype(np.int32))
    annotated = (brain & extent & ~lesion).sum((0, 1))
    free = annotated * ~lesion.any((0, 1))
    if not free.any():
        free = annotated
    return Places(tuple(lesions), brain.sum((0, 1)), free, (brain & ~extent).sum((0, 1)))


def masks_of(
    participant: Participant, box: tuple[slice, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Brain, label and annotated extent within a box (bool); nothing is annotated without them."""
    brain = np.asarray(participant.brain[box]) > 0
    if participant.label is None or participant.annotated is None:
        return brain, np.zeros_like(brain), np.zeros_like(brain)
    return (
        brain,
        np.asarray(participant.label[box]) > 0,
        np.asarray(participant.annotated[box]) > 0,
    )


class Views:
    """``views[step]`` is the batch of a step.

    Parameters
    ----------
    participants : all of the training, labelled or not. One with an annotated voxel is labelled;
        one with an unannotated brain voxel belongs to the unlabelled part.
    seed, rank : of the training, and the number of this process.

    Raises
    ------
    DataError : no participant, or they differ in their channels; a label without its extent.
    """

    def __init__(
        self,
        participants: Sequence[Participant],
        settings: ViewSettings,
        *,
        seed: int,
        rank: int = 0,
    ):
        if len({len(p.present) for p in participants}) != 1:
            raise DataError(
                'there is no participant to train with'
                if not participants
                else 'the participants differ in their number of channels',
                advice='Prepare all of them for the same model.',
            )
        for participant in participants:
            if (participant.label is None) != (participant.annotated is None):
                raise DataError(
                    f'{participant.name} has a label without extent, or an extent without label'
                )
        self.participants, self.settings = tuple(participants), settings
        self.seed, self.rank = seed, rank
        self.places = [places_of(p) for p in participants]
        self.with_lesions = [i for i, p in enumerate(self.places) if p.lesions]
        self.annotated = [i for i, p in enumerate(self.places) if p.lesions or p.free.any()]
        self.unannotated = [i for i, p in enumerate(self.places) if p.unannotated.any()]

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, on the CPU."""
        wanted = self.settings.labelled if self.annotated else 0
        labelled = [self.labelled_view(self.random(step, LABELLED, n)) for n in range(wanted)]
        wanted = self.settings.unlabelled if self.unannotated else 0
        unlabelled = [
            self.unlabelled_views(self.random(step, UNLABELLED, n)) for n in range(wanted)
        ]
        xl, yl, ml, bl, cl = self.stacked(labelled, 'image mask mask mask present')
        xu, xs, bu, cu = self.stacked(unlabelled, 'image image mask present')
        return Batch(xl, yl, ml, bl, xu, xs, bu, cl, cu)

    def random(self, step: int, part: int, number: int) -> np.random.Generator:
        """The random numbers of one patch."""
        return np.random.default_rng((self.seed, self.rank, step, part, number))

    def stacked(self, rows: list[tuple[Tensor, ...]], kinds: str) -> list[Tensor]:
        """Columns of rows as batches; empty ones of the right shape without rows."""
        if rows:
            return [torch.stack(column) for column in zip(*rows, strict=True)]
        channels = len(self.participants[0].present)
        empty = {
            'image': torch.zeros(0, channels, *self.settings.patch),
            'mask': torch.zeros(0, 1, *self.settings.patch),
            'present': torch.zeros(0, channels, dtype=torch.bool),
        }
        return [empty[kind] for kind in kinds.split()]

    def labelled_view(self, random: np.random.Generator) -> tuple[Tensor, ...]:
        """Image, label, annotated extent, brain, contrasts present."""
        on_lesion = bool(self.with_lesions) and random.random() < self.settings.on_lesion
        among = self.among(self.with_lesions if on_lesion else self.annotated, random)
        index = int(random.choice(among))
        participant, places = self.participants[index], self.places[index]
        if on_lesion or not places.free.any():
            voxel = lesion_voxel(places, random)
        else:
            voxel = voxel_of(participant, places.free, random, annotated=True)
        patch = self.cut(participant, voxel, random)
        image, present = self.strong(patch, participant.present, random)
        return image, patch.label, patch.annotated, patch.brain, present

    def among(self, numbers: list[int], random: np.random.Generator) -> list[int]:
        """Of some people the real ones or the simulated ones, where their shares are settled."""
        share = self.settings.simulated
        kinds: list[list[int]] = [[], []]
        for number in numbers:
            kinds[self.participants[number].simulated].append(number)
        if share is None or not all(kinds):
            return numbers
        return kinds[bool(random.random() < share)]

    def any_view(self, random: np.random.Generator) -> tuple[int, Patch]:
        """The number of a participant, and a patch of it whatever is annotated.

        As often as a labelled patch lies around a lesion, so does this one, where there are any.
        """
        index = int(random.integers(len(self.participants)))
        participant, places = self.participants[index], self.places[index]
        if places.lesions and random.random() < self.settings.on_lesion:
            voxel = lesion_voxel(places, random)
        else:
            voxel = voxel_of(participant, places.brain, random)
        return index, self.cut(participant, voxel, random)

    def unlabelled_views(self, random: np.random.Generator) -> tuple[Tensor, ...]:
        """Weak view, strong view, unannotated brain, contrasts present."""
        index = int(random.choice(self.unannotated))
        participant, places = self.participants[index], self.places[index]
        voxel = voxel_of(participant, places.unannotated, random, annotated=False)
        patch = self.cut(participant, voxel, random)
        strong, _ = self.strong(patch, participant.present, random)
        unannotated = patch.brain * (1 - patch.annotated)
        return patch.image, strong, unannotated, torch.tensor(participant.present)

    def strong(
        self, patch: Patch, present: Sequence[bool], random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """The image with other intensities and perhaps fewer contrasts, and which are left."""
        there = np.array(present)
        left = there & (random.random(len(there)) >= self.settings.drop)
        if not left.any():
            left = there
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        image = patch.image * torch.from_numpy(left)[:, None, None, None]
        return spoil(image[None], patch.brain[None], generator)[0], torch.from_numpy(left)

    def cut(
        self, participant: Participant, voxel: np.ndarray, random: np.random.Generator
    ) -> Patch:
        """A patch with a voxel in its central half, mirrored, rotated and scaled at random."""
        size = np.array(self.settings.patch)
        spare = np.array(participant.brain.shape) - size
        start = voxel - size // 2 + random.integers(-(size // 4), size // 4 + 1)
        start = np.where(spare >= 0, np.clip(start, 0, np.maximum(spare, 0)), spare // 2)
        mirrored, moved = random.random(2) < (self.settings.mirror, self.settings.moved)
        matrix = motion(random, self.settings) if moved else None
        image, masks = sample_box(participant, start, self.settings.patch, matrix)
        if mirrored:
            image, masks = image.flip(1 + LEFT_RIGHT), masks.flip(1 + LEFT_RIGHT)
        brain, label, annotated = masks.split(1)
        return Patch(image * brain, brain, label * annotated, annotated)


def lesion_voxel(places: Places, random: np.random.Generator) -> np.ndarray:
    """A voxel of an annotated lesion; a small lesion is as likely as a large one."""
    lesion = places.lesions[int(random.integers(len(places.lesions)))]
    return lesion[int(random.integers(len(lesion)))]


def voxel_of(
    participant: Participant,
    counts: np.ndarray,
    random: np.random.Generator,
    *,
    annotated: bool | None = None,
) -> np.ndarray:
    """A brain voxel, all equally likely.

    Parameters
    ----------
    counts : how many there are per axial slice.
    annotated : True for one that is annotated and no lesion, False for one that is not annotated.
    """
    number = int(random.integers(counts.sum()))
    k = int(np.searchsorted(np.cumsum(counts), number, side='right'))
    brain, drawn, extent = masks_of(participant, (slice(None), slice(None), slice(k, k + 1)))
    if annotated is not None:
        brain = brain & (extent & ~drawn if annotated else ~extent)
    voxels = np.argwhere(brain)
    i, j, _ = voxels[number - int(counts[:k].sum())]
    return np.array([i, j, k])


def motion(random: np.random.Generator, settings: ViewSettings) -> np.ndarray:
    """A turn about an axis of any direction, after scaling: (3, 3), patch to participant."""
    axis = random.standard_normal(3)
    angle = np.deg2rad(settings.angle) * random.uniform(-1, 1)
    turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
    return turn @ np.diag(1 + settings.scale * random.uniform(-1, 1, 3))


def sample_box(
    participant: Participant,
    start: np.ndarray,
    size: tuple[int, int, int],
    matrix: np.ndarray | None,
) -> tuple[Tensor, Tensor]:
    """Image (C, D, H, W) and brain, label and annotated extent (3, D, H, W) of a box.

    Parameters
    ----------
    start : (3,), the voxel that the box begins with; may lie outside, where all is zero.
    matrix : (3, 3), or None to copy: the offset from the centre of the box of what comes to an
        offset from its centre. The image is interpolated linearly, the masks are those of the
        nearest voxel: never half annotated.
    """
    if matrix is None:
        return box_of(participant, start, np.array(size))
    centre = start + (np.array(size) - 1) / 2
    reach = np.abs(matrix) @ ((np.array(size) - 1) / 2)
    low = np.floor(centre - reach).astype(int)
    extent = np.ceil(centre + reach).astype(int) - low + 1
    image, masks = box_of(participant, low, extent)
    axes = [torch.arange(edge) - (edge - 1) / 2 for edge in size]
    offsets = torch.stack(torch.meshgrid(*axes, indexing='ij'), -1).double()
    voxels = offsets @ torch.from_numpy(matrix.T) + torch.from_numpy(centre - low)
    # torch counts from -1 at the first voxel to 1 at the last, and names the last axis first
    grid = (2 * voxels / torch.from_numpy(np.maximum(extent - 1, 1)) - 1).flip(-1).float()[None]
    return (
        functional.grid_sample(image[None], grid, mode='bilinear', align_corners=True)[0],
        functional.grid_sample(masks[None], grid, mode='nearest', align_corners=True)[0],
    )


def box_of(participant: Participant, start: np.ndarray, size: np.ndarray) -> tuple[Tensor, Tensor]:
    """Image (C, D, H, W) and the three masks (3, D, H, W) of a box, zeros beyond the scan."""
    shape = np.array(participant.brain.shape)
    low, high = np.clip(start, 0, shape), np.clip(start + size, 0, shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    inside = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
    image = torch.zeros(len(participant.present), *size.tolist())
    masks = torch.zeros(3, *size.tolist())
    image[(slice(None), *inside)] = intensities(participant.image[(slice(None), *box)])
    masks[(slice(None), *inside)] = torch.from_numpy(
        np.stack(masks_of(participant, box)).astype(np.float32)
    )
    return image, masks
