"""What one model finds in one session, as BIDS derivatives: maps, lesions, tables, sidecars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids.bids.columns import LESION_COLUMNS, VOLUME_COLUMNS
from ssl2_bids.bids.outputs import UnitNames, sidecar_path, table_path, write_table
from ssl2_bids.bids.provenance import bids_uri
from ssl2_bids.bids.sidecars import SLOPPY, is_sloppy, segmentation_sidecar
from ssl2_bids.errors import DataError, ReadError
from ssl2_bids.files import read_text, write_json
from ssl2_bids.networks.calibration import UNCHANGED
from ssl2_bids.networks.cards import Card
from ssl2_bids.raw_grid import RawGrid, write_on
from ssl2_bids.volume import Volume, read, reorient

PROCESS_AGAIN = 'Run the participant level again with --overwrite.'
LESION_INDEX = 7  # "Lesion" among the labels that BIDS names
CONNECTIVITY = 26
ENTROPY = 'Uncertainty: binary entropy of the lesion probability, divided by ln 2.'
DISAGREEMENT = (
    'Uncertainty: disagreement of the members of the committee, that is the mutual information '
    'of label and member in bits: entropy of the mean probability minus mean entropy of the '
    'members (Houlsby et al. 2011, arXiv 1112.5745).'
)


@dataclass(frozen=True)
class SegmentationFiles:
    """The results of one model in one session.

    Attributes
    ----------
    grid : of the raw reference scan, on which the results are written.
    images : preprocessed images that the model was given, the reference first.
    brain_mask, probability, uncertainty, instances : on the preprocessed reference.
    table : one row per lesion, fields of :class:`ssl2_bids.steps.lesions.Lesion`.
    model : keys of the sidecars on the origin of the results, see :func:`model_keys`.
    is_committee : whether the uncertainty is the disagreement of members.
    remark : a sentence for the description of the probability.
    """

    names: UnitNames
    grid: RawGrid
    images: Sequence[Path]
    brain_mask: Volume
    probability: Volume
    instances: Volume
    table: Sequence[dict[str, Any]]
    model: dict[str, Any]
    uncertainty: Volume | None = None
    is_committee: bool = False
    remark: str = ''


def read_result(path: Path, *, contrast: str = '', dtype: type | None = np.float32) -> Volume:
    """Read an image that the App has written, axes towards right, front and top.

    Raises
    ------
    DataError : the file is missing or damaged.
    """
    try:
        return reorient(read(path, contrast=contrast, dtype=dtype))
    except DataError as error:
        if not isinstance(error, ReadError):
            error.advice = PROCESS_AGAIN  # it is not for the user to convert
        raise


def read_transform(path: Path) -> np.ndarray:
    """Read an affine transform that the App has written.

    Returns
    -------
    (4, 4), RAS+ mm, as :func:`ssl2_bids.itk.from_itk` gives it.

    Raises
    ------
    DataError : the file is missing or damaged.
    """
    from ssl2_bids.itk import from_itk

    try:
        return from_itk(read_text(path))
    except (OSError, DataError) as error:
        why = error.message if isinstance(error, DataError) else error.strerror
        raise DataError(
            f'not a readable transform ({why})', advice=PROCESS_AGAIN, path=path
        ) from None


def model_keys(
    card: Card,
    *,
    threshold: float | None,
    minimum_volume: float | None,
    channels: Sequence[str],
    device: str,
) -> dict[str, Any]:
    """The sidecar keys on the model and settings of a segmentation.

    Parameters
    ----------
    minimum_volume : mm^3.
    """
    return {
        'Model': card.reference,
        **calibration_keys(card),
        'Threshold': threshold,
        'MinimumLesionVolume': minimum_volume,
        'Connectivity': CONNECTIVITY,
        'Channels': list(channels),
        'Device': device,
    }


def keys_of_model(keys: dict[str, Any]) -> dict[str, Any]:
    """Those of a result without its hashes, which only the mask on the reference has."""
    hashes = ('PreprocessingHash', 'ConfigurationHash')
    return {key: value for key, value in keys.items() if key not in hashes}


def calibration_keys(card: Card) -> dict[str, Any]:
    """The sidecar key on the calibration of a model that was recalibrated at a site.

    The labelled participants of a model that has the calibration of its start model were not
    those of the fit: they are not named.
    """
    own = 'Recalibration' in card.content
    if not own and card.calibration == UNCHANGED:
        return {}
    calibration = {'Scale': card.calibration.scale, 'Shift': card.calibration.shift}
    labelled = card.content.get('Evidence', {}).get('Labelled') if own else None
    return {'Calibration': calibration | ({'Participants': labelled} if labelled else {})}


def adaptation_facts(card: Card) -> dict[str, Any] | None:
    """What a page states of a model that was adapted to a site; None for other models."""
    content = card.content
    if 'Rung' not in content or not content.get('Accepted'):
        return None
    evidence = content.get('Evidence', {})
    return {
        'Rung': content['Rung'],
        'Parent': content['Parent']['Name'],
        'Labelled': evidence.get('Labelled', []),
        'LeftOut': evidence.get('LeftOut', ''),
        'Dice': evidence.get('Dice', [None, None]),
        'LesionF1': evidence.get('LesionF1', [None, None]),
        'Recalibration': content.get('Recalibration', {}),
    }


def write_segmentation(found: SegmentationFiles) -> dict[str, Any]:
    """Write all but the sidecar of the lesion mask, whose content is returned.

    That sidecar is the done marker: the caller writes it when everything else stands.
    """
    names = found.names
    probability = names.path('anat.probability')
    remark = f' {found.remark}' if found.remark else ''
    _write_map(found, 'anat.probability', found.probability, f'Lesion probability.{remark}')
    if found.uncertainty is not None:
        text = DISAGREEMENT if found.is_committee else ENTROPY
        _write_map(found, 'anat.uncertainty', found.uncertainty, text)
    instances = names.path('anat.instances')
    write_on(found.grid, found.instances, instances, dtype=np.uint16)
    write_table(table_path(instances), lesion_rows(found.table), LESION_COLUMNS)
    numbered = _sidecar(found, 'Lesions, numbered by descending volume.', [probability])
    # image and table share their name, so they share this file: keys of both
    write_json(sidecar_path(instances), numbered | LESION_COLUMNS)
    rows = volume_rows(found.table, brain_volume(found.brain_mask))
    mark = {SLOPPY: True} if is_sloppy(found.model) else {}
    write_table(names.path('anat.volumes'), rows, VOLUME_COLUMNS, keys=mark)
    mask = lesion_mask(found.instances)
    write_on(found.grid, mask, names.path('anat.mask'), dtype=np.uint8)
    text = 'Lesion mask: probability at or above the threshold, minimum volume applied.'
    return _sidecar(found, text, [probability])


def _write_map(found: SegmentationFiles, kind: str, image: Volume, description: str) -> None:
    path = found.names.path(kind)
    write_on(found.grid, image, path)
    write_json(sidecar_path(path), _sidecar(found, description, found.images))


def _sidecar(
    found: SegmentationFiles, description: str, sources: Sequence[Path]
) -> dict[str, Any]:
    root = found.names.root
    return segmentation_sidecar(
        'Lesion',
        description=description,
        sources=[bids_uri(path, root) for path in sources],
        spatial_reference=bids_uri(found.images[0], root),
        model=found.model,
    )


def lesion_mask(instances: Volume) -> Volume:
    """1 in every lesion, 0 elsewhere."""
    return instances.with_data((instances.data > 0).astype(np.uint8))


def brain_volume(mask: Volume) -> float:
    """mm^3 of a brain mask."""
    return float((mask.data > 0).sum()) * mask.voxel_volume


def lesion_rows(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the ``dseg.tsv``, rounded to what they mean."""
    return [
        {
            'index': row['index'],
            'name': f'lesion {row["index"]}',
            'mapping': LESION_INDEX,
            'volume_mm3': round(row['volume_mm3'], 2),
            'voxel_count': row['voxel_count'],
            **{axis: round(row[axis], 1) for axis in 'xyz'},
            'probability_mean': round(row['probability_mean'], 3),
            'probability_max': round(row['probability_max'], 3),
            'region': row['region'],
        }
        for row in table
    ]


def volume_rows(table: Sequence[dict[str, Any]], brain_volume: float) -> list[dict[str, Any]]:
    """Rows of the ``morph.tsv``: the whole brain, then each region."""
    from ssl2_bids.steps import lesions

    *regions, whole = lesions.volumes_by_region(
        [lesions.Lesion(**row) for row in table], brain_volume
    )
    return [
        {
            'index': index,
            'name': row.name,
            'volume_mm3': _round(row.volume_mm3, 2),
            'lesion_count': row.lesion_count,
            'volume_largest_mm3': _round(row.volume_largest_mm3, 2),
            'brain_volume_mm3': round(brain_volume, 1),
            'lesion_load': _round(row.lesion_load, 7),
        }
        for index, row in enumerate([whole, *regions])
    ]


def _round(value: float | None, places: int) -> float | None:
    return None if value is None else round(value, places)
