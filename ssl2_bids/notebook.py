"""The steps for a notebook: functions on images, without datasets or file names.

Use these functions by ``import ssl2_bids as s2``. The App makes the same calls in the same order,
but for the brain mask of a session with two contrasts or more: the App votes it from the masks of
all contrasts, and a notebook takes the mask of the reference. So near the surface of the brain the
results may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssl2_bids.volume import Volume, reorient

if TYPE_CHECKING:
    from ssl2_bids.metrics.lesionwise import LesionScores
    from ssl2_bids.metrics.voxelwise import VoxelScores
    from ssl2_bids.networks.cards import Card
    from ssl2_bids.steps.lesions import Lesions


@dataclass(frozen=True)
class Preprocessed:
    """A preprocessed image.

    Attributes
    ----------
    image : without the receive field, axes as close to RAS+ as flips and permutations allow.
    brain_mask : uint8, on the grid of the image.
    warnings : remarks on the quality of the image.
    """

    image: Volume
    brain_mask: Volume
    warnings: tuple[str, ...] = ()

    @property
    def contrast(self) -> str:
        """BIDS suffix of the image."""
        return self.image.contrast


@dataclass(frozen=True)
class Scores:
    """Agreement of a lesion mask with a reference.

    Attributes
    ----------
    voxels : Dice, precision, volumes, surface distances; see
        :class:`ssl2_bids.metrics.voxelwise.VoxelScores`.
    lesions : sensitivity, precision and F1 of whole lesions, by the rule of the MSSEG challenge;
        see :func:`ssl2_bids.metrics.lesionwise.anima`.
    """

    voxels: VoxelScores
    lesions: LesionScores


@dataclass(frozen=True)
class SimulatedHead:
    """A simulated participant of known truth.

    Attributes
    ----------
    images : by BIDS suffix, each on its own grid.
    lesions, brain_mask : uint8, on the grid of ``images[reference]``.
    reference : BIDS suffix.
    """

    images: dict[str, Volume]
    lesions: Volume
    brain_mask: Volume
    reference: str


def read_volume(path: str | Path, *, contrast: str | None = None) -> Volume:
    """Read a NIfTI image.

    Parameters
    ----------
    contrast : BIDS suffix (``FLAIR``, ``T1w``, ``UNIT1``, ``T2w``, ``T2starw``); None: from the
        file name, ``sub-01_FLAIR.nii.gz``.

    Raises
    ------
    DataError : the file is missing, or cannot be used.
    """
    from ssl2_bids.volume import read

    if contrast is None:
        contrast = Path(path).name.partition('.')[0].rpartition('_')[2]
    return read(path, contrast=contrast)


def write_volume(volume: Volume, path: str | Path, *, dtype: str = 'float32') -> None:
    """Write an image as NIfTI: the whole file or none.

    Parameters
    ----------
    dtype : of the stored values; ``uint8`` for masks, ``uint16`` for numbered lesions.

    Raises
    ------
    CannotWriteError, StorageError : the file cannot be written.
    """
    from ssl2_bids.volume import write

    write(volume, path, dtype=np.dtype(dtype).type)


def preprocess(
    image: Volume,
    *,
    inversions: Sequence[Volume] = (),
    skull_strip: str = 'auto',
    field_strength: float | None = None,
    threads: int = 1,
) -> Preprocessed:
    """Check an image, extract the brain and correct the bias field (N4; of UNIT1 at 7T only).

    Parameters
    ----------
    image : with its ``contrast``, from :func:`read_volume`.
    inversions : INV1 and INV2 of an MP2RAGE, for the removal of background noise in UNIT1.
    field_strength : T; N4 is finer from 5 T on. None if unknown.
    skull_strip : ``auto``, ``skip`` (the image shows the brain only) or ``force``.
    threads : of the brain extraction.

    Raises
    ------
    DataError : the image cannot be used (empty, constant, not finite, no brain).
    """
    from ssl2_bids.steps import preprocess as steps
    from ssl2_bids.steps import quality

    scans = [steps.check_image(reorient(one)) for one in (image, *inversions)]
    made = steps.prepare_contrast([scans[0].image], [one.image for one in scans[1:]])
    mask, _, found, _ = steps.brain_mask(
        made.image,
        mode=skull_strip,
        stripped=None,
        source=made.brain_source,
        threads=threads,
    )
    warnings = [text for one in (*scans, made) for text in one.warnings]
    return Preprocessed(
        steps.without_inhomogeneity(made.image, mask, field_strength=field_strength),
        mask,
        (*warnings, *found, *quality.check_brain_volume(mask)),
    )


def register(fixed: Preprocessed, moving: Preprocessed, *, seed: int = 0) -> np.ndarray:
    """Rigid registration of two images of one head.

    Returns
    -------
    Matrix (4, 4): points of ``fixed`` to points of ``moving``, RAS+ mm.

    Raises
    ------
    DataError : a brain mask is empty.
    """
    from ssl2_bids.steps import registration

    found = registration.register_rigid(
        fixed.image,
        moving.image,
        fixed_mask=fixed.brain_mask,
        moving_mask=moving.brain_mask,
        seed=seed,
    )
    return found.matrix


def load_model(name: str | Path | None = None) -> Card:
    """The card of a model: channels, voxel grid, and folder of the weights.

    Parameters
    ----------
    name : of a bundled model, or the folder of a site's model; None is the default.

    Raises
    ------
    UnavailableError : there is no such model; the message lists the available ones.

    Examples
    --------
    >>> import ssl2_bids as s2
    >>> s2.load_model('fast-3t').channels
    ('FLAIR', 'T1w', 'T2w', 'T2starw')
    """
    from ssl2_bids.networks.weights import find_model

    return find_model(None if name is None else str(name), Path())


def segment(
    reference: Preprocessed,
    *others: Preprocessed,
    model: Card | None = None,
    device: str = 'auto',
    threshold: float | None = None,
    minimum_volume: float | None = None,
    mirror: bool = False,
    seed: int = 0,
) -> Lesions:
    """Segment the lesions of one head, on the grid of the reference image.

    Parameters
    ----------
    reference : image that defines the grid of the results.
    others : further contrasts of the same session; they are registered to the reference. The
        brain is that of the reference.
    model : of :func:`load_model`; None is the default one.
    device : ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    threshold : of the probability; None: that of the model for these contrasts.
    minimum_volume : mm^3, smaller lesions are removed; None: that of the model.
    mirror : average with the mirrored brain; doubles the time.
    seed : random seed of the registration.

    Raises
    ------
    UsageError : two images are of one contrast.
    NoInputError : the model needs a contrast that is missing.
    UnavailableError : the weights or the device are not available.
    """
    from ssl2_bids.device import choose_device
    from ssl2_bids.errors import UsageError
    from ssl2_bids.networks.weights import load_network
    from ssl2_bids.steps import segmentation

    contrasts = [one.contrast for one in (reference, *others)]
    if twice := sorted({one for one in contrasts if contrasts.count(one) > 1}):
        raise UsageError(
            f'two images are of the contrast {", ".join(one or "(none)" for one in twice)}',
            advice='Give one image of each contrast; read_volume(..., contrast=...) names it.',
        )
    model = load_model() if model is None else model
    device = choose_device(device)
    images = {one.contrast: one.image for one in (reference, *others)}
    transforms = {one.contrast: register(reference, one, seed=seed) for one in others}
    found = segmentation.segment(
        images,
        transforms,
        reference.brain_mask,
        model,
        load_network(model, device),
        device=device,
        mirror=mirror,
    )
    return find_lesions(
        found.probability,
        threshold=model.threshold_for(images) if threshold is None else threshold,
        minimum_volume=model.minimum_lesion_volume if minimum_volume is None else minimum_volume,
    )


def find_lesions(
    probability: Volume, *, threshold: float = 0.5, minimum_volume: float = 3.0
) -> Lesions:
    """Find the lesions in a lesion probability: mask, numbered lesions, table.

    Parameters
    ----------
    probability : 0 to 1, any grid; NaN is no lesion.
    threshold : lowest probability of a lesion voxel.
    minimum_volume : mm^3; smaller lesions are removed.

    Raises
    ------
    DataError : more lesions than can be numbered (65535).

    Examples
    --------
    >>> import numpy as np
    >>> import ssl2_bids as s2
    >>> probability = np.zeros((20, 20, 20), np.float32)
    >>> probability[4:8, 4:8, 4:8] = 0.9
    >>> probability[15, 15, 15] = 0.9  # 1 mm^3: dropped
    >>> lesions = s2.find_lesions(s2.Volume(probability, np.eye(4)))
    >>> [(lesion.index, lesion.volume_mm3) for lesion in lesions.table]
    [(1, 64.0)]
    """
    from ssl2_bids.steps import lesions

    return lesions.find_lesions(probability, threshold=threshold, minimum_volume=minimum_volume)


def evaluate(reference: Volume, mask: Volume, *, minimum_volume: float = 3.0) -> Scores:
    """Compare a lesion mask with a reference on the same grid.

    Parameters
    ----------
    reference, mask : above 0 in lesions; their voxel axes may be in different orders.
    minimum_volume : mm^3; smaller lesions do not count in the scores of lesions.

    Raises
    ------
    DataError : the grids differ.

    Examples
    --------
    >>> import numpy as np
    >>> import ssl2_bids as s2
    >>> drawn = np.zeros((20, 20, 20), np.uint8)
    >>> drawn[4:8, 4:8, 4:8] = 1
    >>> found = np.roll(drawn, 1, axis=0)
    >>> scores = s2.evaluate(s2.Volume(drawn, np.eye(4)), s2.Volume(found, np.eye(4)))
    >>> scores.voxels.dice, scores.lesions.f1
    (0.75, 1.0)
    """
    from ssl2_bids.errors import DataError
    from ssl2_bids.metrics import lesionwise, voxelwise
    from ssl2_bids.steps.lesions import label_instances
    from ssl2_bids.voxel_grid import describe_grid, same_grid

    reference, mask = reorient(reference), reorient(mask)
    if not same_grid(reference, mask):
        raise DataError(
            f'the grids differ: {describe_grid(reference)}; {describe_grid(mask)}',
            advice='Resample one of the masks to the grid of the other.',
        )
    drawn, found = reference.data > 0, mask.data > 0
    size = {'voxel_volume': reference.voxel_volume, 'minimum_volume': minimum_volume}
    return Scores(
        voxelwise.compare(drawn, found, spacing=reference.spacing),
        lesionwise.anima(label_instances(drawn, **size), label_instances(found, **size)),
    )


def simulate_head(
    seed: int = 1,
    *,
    field: float = 3.0,
    contrasts: Sequence[str] = ('T1w', 'FLAIR'),
    load: float = 9.0,
) -> SimulatedHead:
    """Simulate a head with lesions in a scanner (brain only, on the MNI152 template).

    Parameters
    ----------
    seed : another seed gives another head.
    field : 1.5, 3 or 7 (T).
    contrasts : BIDS suffixes that the scanner has a protocol for; the first is the reference.
    load : median lesion volume in mL.

    Raises
    ------
    UsageError : no scanner of this field, or it has no protocol of a contrast.
    """
    from ssl2_bids.errors import UsageError
    from ssl2_bids.simulation.participant import (
        Habits,
        draw_participant,
        knowledge,
        make_visits,
    )
    from ssl2_bids.simulation.scanner.protocols import read_scanner
    from ssl2_bids.simulation.scanner.scan import scan
    from ssl2_bids.workflows.simulation.plan import MNI_SIZE, tissue_maps

    scanner = read_scanner(field=field)
    unknown = sorted(set(contrasts) - set(scanner.protocols))
    if unknown or not contrasts:
        raise UsageError(
            f'the scanner of {field:g} T has no protocol for {", ".join(unknown) or "nothing"}',
            advice=f'Choose from {", ".join(sorted(scanner.protocols))}.',
        )
    reference = contrasts[0]
    habits = Habits(size=MNI_SIZE, load=load)
    draw = draw_participant(seed, 1, scanner, habits, contrasts=contrasts)
    (visit,) = make_visits(draw, tissue_maps(), scanner)
    scans = draw.visits[0].scans
    images = {}
    for suffix in contrasts:
        *_, image = scan(visit.head, scanner, suffix, scans[suffix])
        images[suffix] = image.volume
    known = knowledge(visit, scanner, reference, scans[reference])
    return SimulatedHead(
        images,
        Volume(known.lesions.mask.astype(np.uint8), known.grid.affine),
        Volume(known.brain.astype(np.uint8), known.grid.affine),
        reference,
    )
