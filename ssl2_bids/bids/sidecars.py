"""JSON sidecars of the derivatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl2_bids import sidecar_values

SLOPPY = 'Sloppy'  # key of results of --sloppy
# keys of raw sidecars that stay true after reorientation and bias correction
KEPT = (
    'Modality',
    'MagneticFieldStrength',
    'Manufacturer',
    'ManufacturersModelName',
    'EchoTime',
    'RepetitionTime',
    'RepetitionTimePreparation',
    'RepetitionTimeExcitation',
    'InversionTime',
    'FlipAngle',
    'NumberShots',
    'MRAcquisitionType',
    'PulseSequenceType',
    'PulseSequenceDetails',
)


def image_sidecar(
    raw: dict[str, Any],
    *,
    description: str,
    sources: list[str],
    spatial_reference: str,
    skull_stripped: bool,
) -> dict[str, Any]:
    """Sidecar of a preprocessed image."""
    return {
        'Description': description,
        'Sources': sources,
        'SpatialReference': spatial_reference,
        'SkullStripped': skull_stripped,
    } | {
        key: value
        for key, value in kept_metadata(raw).items()
        if value is not None
        and not (key in sidecar_values.LIMITS and sidecar_values.faults(raw, key))
    }


def kept_metadata(raw: dict[str, Any]) -> dict[str, Any]:
    """What of a raw image's metadata stands in the sidecar of its preprocessed image too.

    :func:`image_sidecar` leaves out values that are missing, or that no scan can have.
    """
    return {key: raw[key] for key in KEPT if key in raw}


MAPS = {  # by the desc- of a map
    'fit': ('weighted straight line through the logarithm of the magnitudes', ''),
    'scanner': ('of the scanner', ''),
    'uncorrected': ('look-up of UNIT1, without B1+', 'doi:10.1016/j.neuroimage.2009.10.002'),
    'B1corr': ('look-up of UNIT1 and B1+', 'doi:10.1371/journal.pone.0069294'),
}


def map_keys(made: str) -> dict[str, str]:
    """Keys of a quantitative map's sidecar; ``made``: its ``desc-``."""
    algorithm, reference = MAPS[made]
    return {'Units': 's', 'EstimationAlgorithm': algorithm} | (
        {'EstimationReference': reference} if reference else {}
    )


def segmentation_sidecar(
    kind: str,
    *,
    description: str,
    sources: list[str],
    spatial_reference: str,
    model: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Sidecar of a mask (``kind`` Brain or Lesion), probability or instance map.

    ``model`` holds Model, Threshold and so on, for what a network made.
    """
    content = {
        'Description': description,
        'Type': kind,
        'Manual': False,
        'Sources': sources,
        'SpatialReference': spatial_reference,
    }
    return content | (model or {})


def is_sloppy(sidecar: Mapping[str, Any]) -> bool:
    """Whether the sidecar of a mask has the mark of a run with ``--sloppy``."""
    return bool(sidecar.get(SLOPPY))
