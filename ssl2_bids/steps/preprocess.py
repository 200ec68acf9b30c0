"""From a raw image to a preprocessed one: the same for the App and for training.

Joins the steps before registration, so that this join exists once: :func:`check_image` for each
raw image, :func:`prepare_contrast` for those of one contrast, :func:`brain_mask`, :func:`even`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ssl2_bids.contrasts import CONTRASTS
from ssl2_bids.errors import DataError
from ssl2_bids.simulation.scanner.protocols import Protocol
from ssl2_bids.steps import brain, echoes, inhomogeneity, mp2rage, quality
from ssl2_bids.volume import Volume, reorient
from ssl2_bids.voxel_grid import same_grid


@dataclass(frozen=True)
class PreparedScan:
    """One contrast as one image, with facts and remarks.

    Attributes
    ----------
    image : checked, echoes averaged; UNIT1 from 0 to 4095, denoised if INV1 and INV2 exist.
    maps : quantitative maps on its grid, in s, 0 in air: ``T1map``, ``T2starmap``.
    brain_source : an image on its grid in which the brain is found better; None: it is its own.
    description : what was done with a UNIT1 and its inversions; empty for other images.
    """

    image: Volume
    warnings: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    maps: dict[str, Volume] = field(default_factory=dict)
    brain_source: Volume | None = None
    description: str = ''


def check_image(image: Volume) -> PreparedScan:
    """One raw image with finite values, and with 0 around it where its background is constant.

    Raises
    ------
    DataError : it cannot be used, see :func:`quality.check_image`.
    """
    found, warnings = quality.check_image(image)
    if found.contrast != 'UNIT1':  # there the scale has a lowest value
        found = quality.zero_background(found)
    return PreparedScan(found, warnings)


def check_map(image: Volume) -> PreparedScan:
    """A phase or a map with 0 where its values are not finite.

    Raises
    ------
    DataError : it cannot be used, see :func:`quality.check_image`.
    """
    return PreparedScan(*quality.check_image(image))


def prepare_contrast(
    images: Sequence[Volume],
    inversions: Sequence[Volume] = (),
    *,
    echo_times: Sequence[float] = (),
) -> PreparedScan:
    """One image of a contrast from its checked ones.

    Parameters
    ----------
    images : the image, or its echoes, each of shape (I, J, K).
    inversions : INV1 and INV2 of a UNIT1, magnitudes; or none.
    echo_times : of the echoes, s, for a map of T2*; none for no map.

    Raises
    ------
    DataError : the images do not share their grid, or the values are not those of a UNIT1.
    """
    first = images[0]
    if inversions:
        inv1, inv2 = inversions
        return prepare_mp2rage(first, (inv1, inv2))
    if len(images) > 1:
        methods = echo_methods(len(images), has_map=bool(echo_times))
        made = PreparedScan(echoes.mean_of_echoes(images), methods=methods)
        if echo_times:
            made.maps['T2starmap'] = echoes.fit_t2star(images, echo_times)
        return made
    return PreparedScan(mp2rage.on_full_scale(first) if first.contrast == 'UNIT1' else first)


def prepare_mp2rage(
    uniform: Volume | None,
    inversions: tuple[Volume, Volume],
    *,
    phases: Sequence[Volume] = (),
    protocol: Protocol | None = None,
    transmit: Volume | None = None,
    scanner_t1: Volume | None = None,
) -> PreparedScan:
    """UNIT1 without background noise, with a T1 map where this can be made.

    Parameters
    ----------
    uniform : UNIT1 of the scanner; None to compute it from the inversions and their phases.
    inversions, phases : INV1 and INV2.
    protocol : settings of the MP2RAGE, for the T1 map; None for no map.
    transmit : B1+ as a fraction of nominal, on any grid in the space of the scanner: T1 is read
        with it, and UNIT1 becomes what it would be at nominal B1+.
    scanner_t1 : T1 map of the scanner, in s, for where there is no protocol.

    Raises
    ------
    DataError : the images do not share their grid, or the values are not those of a UNIT1.
    """
    inv1, inv2 = inversions
    is_computed = uniform is None
    if uniform is None:
        uniform = mp2rage.combine(inv1, inv2, *phases)
    clean, level = mp2rage.remove_background_noise(uniform, inv1, inv2)
    head = mp2rage.head_of(inv2)
    maps = {}
    if protocol is not None:
        from ssl2_bids.steps import t1_mapping, transmit_field

        uni = mp2rage.to_signed(uniform.data.astype(np.float32))
        b1 = 1.0 if transmit is None else transmit_field.on_grid(transmit, uniform)
        t1 = t1_mapping.t1_map(uni, protocol, b1)
        if transmit is not None:
            change = np.where(head, t1_mapping.uniform_at_nominal(t1, protocol) - uni, 0)
            moved = clean.data + change * np.float32(mp2rage.FULL_SCALE)
            clean = clean.with_data(np.clip(moved, 0, mp2rage.FULL_SCALE).astype(np.float32))
        maps['T1map'] = uniform.with_data(np.where(head, t1, 0).astype(np.float32))
    elif scanner_t1 is not None:
        maps['T1map'] = scanner_t1
    methods = mp2rage_methods(
        is_computed=is_computed,
        noise_level=level,
        has_map=protocol is not None,
        has_transmit=transmit is not None,
    )
    description = uniform_description(
        noise_level=level, at_nominal=protocol is not None and transmit is not None
    )
    return PreparedScan(
        clean, methods=methods, maps=maps, brain_source=inv2, description=description
    )


def uniform_description(*, noise_level: float, at_nominal: bool) -> str:
    """What :func:`prepare_mp2rage` did with UNIT1, for the JSON beside it.

    Parameters
    ----------
    noise_level : of the background, 0 for none.
    at_nominal : the values in the head were replaced by those at nominal B1+.
    """
    done = 'without background noise (robust combination)'
    if noise_level <= 0:
        done = 'with the zero background of INV2, no noise removed'
    nominal = ', in the head the values at nominal B1+ (by the B1+ map)' if at_nominal else ''
    return f'UNIT1 {done}{nominal}, 0 to 4095.'


def echo_methods(count: int, *, has_map: bool) -> list[str]:
    """The methods sentences for the images of a contrast: one, or several echoes."""
    if count < 2:
        return []
    return [echoes.methods(count), *([echoes.map_methods(count)] if has_map else [])]


def mp2rage_methods(
    *, is_computed: bool, noise_level: float, has_map: bool, has_transmit: bool
) -> list[str]:
    """The methods sentences for what :func:`prepare_mp2rage` did.

    Parameters
    ----------
    is_computed : UNIT1 was computed from the inversions.
    noise_level : of the background, 0 for none.
    has_map : T1 was read from UNIT1; ``has_transmit``: with a map of B1+.
    """
    sentences = [mp2rage.COMBINED] if is_computed else []
    sentences.append(mp2rage.methods(noise_level))
    if has_map:
        from ssl2_bids.steps import t1_mapping

        sentences.append(t1_mapping.methods('B1+ map' if has_transmit else ''))
    return sentences


def brain_mask(
    image: Volume,
    *,
    mode: str,
    stripped: bool | None,
    source: Volume | None = None,
    threads: int = 1,
) -> tuple[Volume, bool, list[str], bool]:
    """The brain mask of a prepared image.

    Parameters
    ----------
    mode : ``skip``: the foreground; ``force``: brain extraction; ``auto``: depends on the image.
    stripped : ``SkullStripped`` of the image's sidecar; None if absent: the image decides.
    source : the image in which the brain is looked for instead, on the same grid: INV2 of a
        UNIT1, whose background is air and not noise.
    threads : of the extraction.

    Returns
    -------
    Mask, uint8, on the same grid; whether the image showed the brain only; what is doubtful about
    that; whether the brain was extracted from ``source``.

    Raises
    ------
    DataError : there is no brain.
    """
    brain_only = mode == 'skip' or (mode == 'auto' and stripped is True)
    doubts: list[str] = []
    mask = brain.mask_of_brain_only(image) if brain_only else None
    if mode == 'auto' and stripped is None and brain.may_be_brain_only(image):
        found = brain.find_brain(image, threads=threads)
        brain_only, doubts = found.brain_only, list(found.warnings)
        if brain_only or source is None:
            mask = found.mask
    in_source = False
    if mask is None:
        in_source = source is not None and not brain.is_brain_only(source, threads=threads)
        if source is not None and in_source:
            image = source
        elif image.contrast == 'UNIT1' and mp2rage.is_noisy(image):
            image = mp2rage.smooth_for_masking(image)
        mask = brain.extract_brain(image, threads=threads)
    return mask, brain_only, doubts, in_source


def shows_brain_only(image: Volume, *, mode: str, stripped: bool | None) -> bool:
    """Whether an image is taken for skull-stripped; see :func:`brain_mask`."""
    if mode == 'auto':
        return stripped if stripped is not None else brain.is_brain_only(image)
    return mode == 'skip'


def given_mask(
    image: Volume, mask: Volume, *, mode: str, stripped: bool | None
) -> tuple[Volume, bool, list[str]]:
    """The brain mask of a user on the axes of a prepared image.

    Parameters
    ----------
    mask : as stored, above 0 is brain; the grid of the image but for the order of axes.

    Returns
    -------
    Mask, uint8; whether the image shows the brain only; warnings.

    Raises
    ------
    DataError : it is empty, or on another grid.
    """
    upright = reorient(mask)
    if not same_grid(upright, image):
        raise DataError('the brain mask lies on another grid than the image')
    inside = np.nan_to_num(upright.data) > 0
    if not inside.any():
        raise DataError('the brain mask is empty', advice='Draw the brain, or leave the mask out.')
    found = Volume(inside.astype(np.uint8), image.affine)
    values = upright.data[inside]
    warnings = []
    if float(values.min()) != float(values.max()):
        warnings.append(
            'the brain mask has several values above 0: all of them are taken as brain'
        )
    return found, shows_brain_only(image, mode=mode, stripped=stripped), warnings


def needs_n4(contrast: str, field_strength: float | None) -> bool:
    """Whether N4 is for this contrast.

    In UNIT1 the receive field cancels, so N4 is for UNIT1 only where the transmit field is uneven
    (7T).

    Parameters
    ----------
    field_strength : T, None if unknown.
    """
    cancels = contrast in {one.suffix for one in CONTRASTS if not one.receive_field}
    return not cancels or inhomogeneity.is_strong(field_strength)


def without_inhomogeneity(
    image: Volume,
    mask: Volume,
    *,
    field_strength: float | None = None,
    iterations: int = inhomogeneity.ITERATIONS,
) -> Volume:
    """The image without the fields of the coils, where its contrast shows some.

    Parameters
    ----------
    mask : brain, on the same grid.
    field_strength : T, None if unknown.
    iterations : of N4, at each level.
    """
    if not needs_n4(image.contrast, field_strength):
        return image.with_data(np.asarray(image.data, np.float32))
    return inhomogeneity.correct_inhomogeneity(
        image, mask, field_strength=field_strength, iterations=iterations
    )
