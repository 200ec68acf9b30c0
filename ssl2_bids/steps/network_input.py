"""Volumes into the tensor that a model's card asks for, and a probability back to a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl2_bids.errors import DataError, NoInputError, UnavailableError
from ssl2_bids.networks.cards import CARD_FILE, INPUT, Card, channel_of
from ssl2_bids.volume import Volume, reorient, resample

MARGIN = 4.0  # mm around the brain: no brain voxel at the border, where interpolation ends
SAME = 1e-3  # voxels; positions closer than this are one
TINY = 1e-6  # of the largest magnitude of an image
MAD_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation of a normal distribution


class UnusableContrastError(DataError):
    """An image of which no input of a network can be made; ``contrast`` is its suffix."""

    contrast = ''


@dataclass(frozen=True)
class NetworkInput:
    """Input of a network, on the model's grid.

    Attributes
    ----------
    tensor : (C, D, H, W) float32, normalised, zero outside the brain and where values are unknown.
    brain : (D, H, W) bool.
    affine : (4, 4), voxel indices of (D, H, W) to RAS+ millimetres.
    present : the contrast in each channel, ``None`` for a channel without one.
    coverage : for each contrast used, the share of the brain inside its field of view.
    """

    tensor: Tensor
    brain: Tensor
    affine: np.ndarray
    present: tuple[str | None, ...]
    coverage: Mapping[str, float]

    @property
    def contrasts(self) -> tuple[str, ...]:
        """The contrasts used, in the order of the channels."""
        return tuple(name for name in self.present if name is not None)


def choose_contrasts(available: Mapping[str, Any], card: Card) -> tuple[str | None, ...]:
    """The contrast for each channel of a card; one of the channel's own name goes first.

    Raises
    ------
    NoInputError : the images lack all alternatives that the card requires.
    """
    chosen: dict[str, str] = {}
    for contrast in sorted(available):
        channel = channel_of(contrast, card)
        if channel is not None and (contrast == channel or channel not in chosen):
            chosen[channel] = contrast
    if not any(set(names) <= chosen.keys() for names in card.required):
        alternatives = ' or '.join('+'.join(names) for names in card.required)
        raise NoInputError(
            f'the model {card.name} needs {alternatives}; given are '
            f'{", ".join(sorted(available)) or "no images"}',
            advice='Add one of these contrasts, or choose another model with --model.',
        )
    return tuple(chosen.get(channel) for channel in card.channels)


def network_input(
    images: Mapping[str, Volume],
    transforms: Mapping[str, np.ndarray],
    brain_mask: Volume,
    card: Card,
) -> NetworkInput:
    """Bring images onto a model's grid, each with one interpolation, and normalise them.

    The grid has the axes of the brain mask's (reordered to RAS+), the card's voxel size and
    spans the brain. Along an axis where the voxel sizes agree the voxels coincide.

    Parameters
    ----------
    images : bias-corrected images on their own grids, by contrast (BIDS suffix).
    transforms : per contrast (4, 4), RAS+ mm of the reference to RAS+ mm of the image; identity
        where absent.
    brain_mask : on the reference's grid; brain where above zero.

    Raises
    ------
    NoInputError : contrasts that the card requires are missing.
    DataError : the brain mask is empty.
    UnusableContrastError : a contrast does not overlap the brain mask, or is constant in it.
    UnavailableError : the card asks for something that this version cannot make.
    """
    for key, value in INPUT.items():
        if card.content.get(key, value) != value:
            raise _not_understood(card, key, card.content[key])
    present = choose_contrasts(images, card)
    mask = reorient(brain_mask.with_data((brain_mask.data > 0).astype(np.float32)))
    affine, shape = model_grid(mask, card.voxel_size)
    brain = onto_grid(add_frame(mask), affine, shape).data >= 0.5
    if not brain.any():
        raise DataError('the brain mask is empty on the grid of the model')
    tensor = torch.zeros((len(present), *shape))
    coverage = {}
    for channel, contrast in enumerate(present):
        if contrast is None:
            continue
        transform = transforms.get(contrast)
        values, known = sample(images[contrast], affine, brain, transform=transform)
        coverage[contrast] = float(known.sum() / brain.sum())
        try:
            tensor[channel] = normalise(values, known, card)
        except DataError as error:
            unusable = UnusableContrastError(f'{contrast}: {error.message}', advice=error.advice)
            unusable.contrast = contrast
            raise unusable from None
    return NetworkInput(tensor, torch.from_numpy(brain), affine, present, coverage)


def model_grid(
    mask: Volume, voxel_size: tuple[float, float, float]
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The affine and shape of a grid of ``voxel_size`` around a mask, along the mask's axes.

    Raises
    ------
    DataError : the mask is empty.
    """
    if not mask.data.any():
        raise DataError(
            'the brain mask is empty', advice='Look at the brain extraction in the report.'
        )
    start, step, counts = np.zeros(3), np.ones(3), []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(mask.data.any(axis=others))
        ratio = voxel_size[axis] / mask.spacing[axis]
        if abs(ratio - 1) * mask.shape[axis] < SAME:
            ratio = 1.0
        margin = int(np.ceil(MARGIN / mask.spacing[axis]))
        low, high = filled[0] - margin, filled[-1] + margin
        count = int(np.ceil((high - low + 1) / ratio - SAME))
        step[axis] = ratio
        start[axis] = (low + high) / 2 - (count - 1) / 2 * ratio
        counts.append(count)
    to_mask = np.diag([*step, 1.0])
    to_mask[:3, 3] = start
    return mask.affine @ to_mask, (counts[0], counts[1], counts[2])


def onto_grid(
    volume: Volume,
    affine: np.ndarray,
    shape: tuple[int, int, int],
    *,
    transform: np.ndarray | None = None,
) -> Volume:
    """Bring a volume onto a grid: copied where the voxels coincide, else resampled linearly.

    Zero outside the volume's field of view. Arguments as of :func:`ssl2_bids.volume.resample`.
    """
    transform = np.eye(4) if transform is None else transform
    mapping = np.linalg.inv(volume.affine) @ transform @ affine
    shift = np.rint(mapping[:3, 3]).astype(int)
    coincident = np.eye(4)
    coincident[:3, 3] = shift
    extent = np.array([*shape, 1])
    if (np.abs(mapping - coincident)[:3] @ extent).max() >= SAME:
        return resample(volume, affine, shape, transform=transform)
    data = np.zeros(shape, np.float32)
    low = np.maximum(shift, 0)
    high = np.maximum(np.minimum(shift + shape, volume.shape), low)
    target = tuple(slice(a, b) for a, b in zip(low - shift, high - shift, strict=True))
    data[target] = volume.data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return Volume(data, affine, volume.contrast)


def add_frame(volume: Volume) -> Volume:
    """A volume with one voxel of zeros on every side: interpolation reaches its edge."""
    affine = volume.affine.copy()
    affine[:3, 3] -= affine[:3, :3].sum(axis=1)
    return Volume(np.pad(volume.data, 1), affine, volume.contrast)


def sample(
    image: Volume, affine: np.ndarray, brain: np.ndarray, *, transform: np.ndarray | None
) -> tuple[Tensor, Tensor]:
    """Values of an image on the model's grid, and where in the brain they are known.

    Unknown are voxels outside the image's field of view (which ends half a voxel beyond the
    last centres), not finite, or exactly zero (the background of a stripped or padded image).
    Values near the edge are divided by the share of the interpolation inside the field of view.
    """
    ones = image.with_data(np.ones(image.shape, np.float32))
    values, share = (
        onto_grid(add_frame(volume), affine, brain.shape, transform=transform).data
        for volume in (image, ones)
    )
    inside = share >= 0.5
    values = np.where(inside, values / np.where(inside, share, 1), 0).astype(np.float32)
    known = brain & inside & np.isfinite(values) & (values != 0)
    return torch.from_numpy(values), torch.from_numpy(known)


def median_mad(values: Tensor, known: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """(x - median) / (1.4826 MAD + tiny) over the known voxels, clipped and divided.

    The small number is 1e-6, and below a largest value of 0.1 a share of that value: scans are
    stored in any unit.

    Raises
    ------
    DataError : more than half of the voxels have one value.
    """
    low, high = settings['Clip']
    inside = values[known]
    median = inside.median()
    deviation = (inside - median).abs().median()
    largest = inside.abs().max()
    if deviation <= TINY * largest:
        raise DataError(
            'the image is constant, or nearly so, within the brain',
            advice='Look at the image, or leave it out (ssl2-bids: --bids-filter-file).',
        )
    scaled = (values - median) / (MAD_TO_SIGMA * deviation + TINY * (10 * largest).clamp(max=1))
    normalised = scaled.clamp(low, high) / settings['Divide']
    return torch.where(known, normalised, float(settings['Background']))


NORMALISATIONS: dict[str, Callable[[Tensor, Tensor, Mapping[str, Any]], Tensor]] = {
    'median-mad': median_mad
}


def normalise(values: Tensor, known: Tensor, card: Card) -> Tensor:
    """Normalise an image by the rule of a card, over its known brain voxels; background elsewhere.

    Parameters
    ----------
    values : (D, H, W) float32.
    known : (D, H, W) bool.

    Raises
    ------
    DataError : no voxel is known, or the image is constant.
    UnavailableError : the card's normalisation is unknown, or a parameter of it is missing.
    """
    kind = card.normalisation['Type']
    if kind not in NORMALISATIONS or card.normalisation.get('Region', 'brain') != 'brain':
        raise _not_understood(card, 'Normalisation', card.normalisation)
    if not known.any():
        raise DataError(
            'no voxel of the image lies within the brain',
            advice='Look at the registration and the brain mask in the report.',
        )
    try:
        return NORMALISATIONS[kind](values, known, card.normalisation)
    except (KeyError, TypeError, ValueError) as error:
        raise _not_understood(card, 'Normalisation', f'{card.normalisation} ({error})') from None


def _not_understood(card: Card, key: str, value: Any) -> UnavailableError:
    return UnavailableError(
        f'"{key}" is {value}, which this version does not support',
        advice='Use a newer version of ssl2-bids, or another model.',
        path=card.folder / CARD_FILE,
    )


def to_reference(
    probability: Tensor | np.ndarray, affine: np.ndarray, reference: Volume
) -> Volume:
    """Bring a probability from the model's grid to a reference's: linear, clipped to 0..1.

    Where voxels coincide the values are copied.

    Returns
    -------
    Volume float32 on the grid of ``reference``, without contrast.
    """
    volume = Volume(np.asarray(probability, np.float32), affine)
    result = onto_grid(volume, reference.affine, reference.shape)
    return result.with_data(np.clip(result.data, 0, 1))


def methods(card: Card, contrasts: tuple[str, ...]) -> str:
    """The methods sentence for what :func:`network_input` did."""
    size = ' x '.join(f'{edge:g}' for edge in card.voxel_size)
    images = ', '.join(contrasts[:-1]) + (' and ' if contrasts[1:] else '') + contrasts[-1]
    scaling = ''
    if card.normalisation['Type'] == 'median-mad':
        scaling = ' and scaled by median and median absolute deviation within the brain'
    return (
        f'{images} {"were each" if contrasts[1:] else "was"} interpolated once (linearly) to a '
        f'{size} mm grid in RAS orientation around the brain, stripped{scaling}.'
    )
