"""What a scanner stores of a simulated head: grids, poses, coil gain, blur, noise, magnitudes."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from ssl2_bids.simulation.lesions import Lesions
from ssl2_bids.simulation.phantom import (
    Anatomy,
    individual,
    render,
    rigid,
    smooth_field,
    transmit_field,
)
from ssl2_bids.simulation.sequences import (
    PROTOCOLS,
    TISSUES,
    Tissue,
    lesion_tissue,
    signals,
    uniform,
)
from ssl2_bids.volume import Volume, resample

WHITE_MATTER = 600.0  # stored value of white matter
FULL_SCALE = 4095.0  # UNIT1 from -0.5 to 0.5 is stored as 0 to this
COIL_SPREAD = {3: 0.12, 7: 0.25}  # of the log of the receive gain; at 3T after normalisation
COIL_SCALE = 90.0  # mm between the knots of the receive gain
SIGNAL_TO_NOISE = (25, 50)  # of white matter


@dataclass(frozen=True)
class Geometry:
    """Voxel axes (towards), voxel edge in mm, and field of view in mm to the right, front, top."""

    axes: str
    edge: float
    extent: tuple[int, int, int]


GEOMETRIES = {
    'T1w': Geometry('LAS', 1.0, (180, 224, 196)),
    'FLAIR': Geometry('PSR', 1.0, (176, 216, 208)),
    'T2w': Geometry('RAS', 1.0, (184, 232, 192)),
    'UNIT1': Geometry('LAS', 0.8, (180, 224, 196)),
}


@dataclass(frozen=True)
class Head:
    """One participant in the scanner.

    Attributes
    ----------
    anatomy : with lesions.
    tissues : of each of its fractions.
    transmit : B1+ as a fraction of nominal, on the anatomy's grid.
    field : T.
    """

    anatomy: Anatomy
    tissues: dict[str, Tissue]
    transmit: np.ndarray
    field: int


def make_head(lesions: Lesions, random: np.random.Generator, *, field: int) -> Head:
    """Give an anatomy with lesions the tissues and the transmit field of one participant."""
    shape = lesions.damage.shape
    tissues = individual(TISSUES[field], random, shape)
    tissues['lesion'] = lesion_tissue(tissues['wm'], lesions.damage)
    transmit = transmit_field(lesions.anatomy, random, field=field)
    return Head(lesions.anatomy, tissues, transmit, field)


def place(head: Head, contrast: str, random: np.random.Generator) -> tuple[np.ndarray, Volume]:
    """Where a scan finds the head, and its grid: a few mm and degrees off, each scan anew.

    Returns
    -------
    pose : (4, 4), RAS+ mm of the anatomy to RAS+ mm of the scanner.
    grid : empty volume whose middle is near that of the brain, slightly oblique.
    """
    geometry = GEOMETRIES[contrast]
    pose = rigid(random, shift=3, angle=3)
    towards = nib.orientations.axcodes2ornt(geometry.axes)
    extent = [geometry.extent[int(axis)] for axis in towards[:, 0]]
    shape = tuple(round(length / geometry.edge) for length in extent)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (axis, sign) in enumerate(towards):
        affine[int(axis), column] = sign * geometry.edge
    affine = rigid(random, shift=0, angle=3) @ affine
    middle = pose[:3, :3] @ head.anatomy.centre + pose[:3, 3] + random.uniform(-2, 2, 3)
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return pose, Volume(np.broadcast_to(np.uint8(0), shape), affine, contrast)


def sample(values: np.ndarray, anatomy: Anatomy, grid: Volume, *, pose: np.ndarray) -> np.ndarray:
    """Values on an anatomy's grid, moved by a pose and sampled on a scan's grid."""
    image = Volume(values, anatomy.affine)
    return resample(image, grid.affine, grid.shape, transform=np.linalg.inv(pose)).data


def scan(
    head: Head, grid: Volume, random: np.random.Generator, *, pose: np.ndarray
) -> dict[str, Volume]:
    """Scan a head with the protocol of the grid's contrast.

    Returns
    -------
    One image as the scanner stores it (whole numbers), zero outside the brain; or, for UNIT1,
    ``UNIT1`` from 0 to 4095 and the magnitudes ``INV1`` and ``INV2``, all with the noise of the
    air around.
    """
    protocol = PROTOCOLS[head.field, grid.contrast]
    white = float(np.abs(signals(TISSUES[head.field]['wm'], protocol)[-1]))
    noise = white / random.uniform(*SIGNAL_TO_NOISE)
    gain = np.exp(
        COIL_SPREAD[head.field]
        * smooth_field(grid.shape, random, scale=COIL_SCALE / grid.spacing[0])
    )
    received = [
        receive(sample(image, head.anatomy, grid, pose=pose) * gain, random, noise=noise)
        for image in render(head.anatomy, head.tissues, protocol, head.transmit)
    ]
    magnitudes = [np.rint(np.abs(image) * WHITE_MATTER / white) for image in received]
    if len(received) == 1:
        brain = sample(head.anatomy.brain.astype(np.float32), head.anatomy, grid, pose=pose)
        return {grid.contrast: grid.with_data(magnitudes[0] * (brain >= 0.5))}
    stored = np.rint((uniform(*received) + 0.5) * FULL_SCALE)
    return {
        'UNIT1': grid.with_data(stored),
        'INV1': grid.with_data(magnitudes[0]),
        'INV2': grid.with_data(magnitudes[1]),
    }


def receive(image: np.ndarray, random: np.random.Generator, *, noise: float) -> np.ndarray:
    """Complex image with the scanner's blur and Gaussian noise (std of either component)."""
    parts = random.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(noise)
    return ndimage.gaussian_filter(image, 0.4) + parts[0] + 1j * parts[1]
