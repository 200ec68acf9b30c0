"""One image of a session that is used, with the files that it and its maps are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl2_bids import sidecar_values

MIN_ECHOES = 3  # of a fit of T2*


@dataclass(frozen=True)
class Companion:
    """A file that is needed beside an image to make this image, or a map of it.

    Attributes
    ----------
    role : ``INV1``, ``INV2``, ``TB1map``, ``SA2RAGE 1``, ``SA2RAGE 2``, with `` phase`` behind it
        for a phase image; or ``T1map``.
    metadata : sidecar keys, inherited ones included.
    """

    role: str
    path: Path
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scan:
    """One image that is used, of one contrast.

    Attributes
    ----------
    contrast : its suffix (``FLAIR``, ``T1w``, ``UNIT1``, ``T2w``, ``T2starw``).
    paths : the image, or its echoes; INV2 of a UNIT1 that is computed.
    companions : the other files that it, or a map, is made from.
    entities : entities of the file name, without subject and session.
    metadata : sidecar keys, inherited ones included.
    spacing : voxel edges in mm, from the header; empty if it cannot be read.
    voxels : how many, of one file; 0 if unknown.
    echo_times : s, of several echoes, if known for all.
    dataset : name of the dataset of ``-d`` that it comes from; empty for a raw image.
    within : whether its name has no session, so that it lies in a space of the participant.
    shared : whether it is that of several sessions.
    corrected : whether the fields of the coils were corrected already.
    channel : whether it is an input of the model; else a brain mask lies on it.
    """

    contrast: str
    paths: tuple[Path, ...]
    entities: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    companions: tuple[Companion, ...] = ()
    spacing: tuple[float, ...] = ()
    echo_times: tuple[float, ...] = ()
    dataset: str = ''
    within: bool = False
    shared: bool = False
    corrected: bool = False
    channel: bool = True
    voxels: int = 0

    @property
    def sources(self) -> tuple[Path, ...]:
        """Every raw file that this image is made from."""
        return self.paths + tuple(companion.path for companion in self.companions)

    @property
    def inversions(self) -> tuple[Path, ...]:
        """INV1 and INV2 of a UNIT1 that the scanner computed; empty otherwise."""
        found = {companion.role: companion.path for companion in self.companions}
        return (found['INV1'], found['INV2']) if {'INV1', 'INV2'} <= set(found) else ()

    @property
    def is_computed(self) -> bool:
        """Whether this is a UNIT1 that is computed from magnitudes and phases."""
        return any(companion.role == 'INV1 phase' for companion in self.companions)

    @property
    def has_inversions(self) -> bool:
        """Whether this is a UNIT1 with INV1 and INV2, of the scanner or computed."""
        return bool(self.inversions) or self.is_computed

    @property
    def field_strength(self) -> float | None:
        """Tesla, from the sidecar, else from those of the inversions of UNIT1.

        None if unknown, or no field strength at all.
        """
        of_inversions = [c.metadata for c in self.companions if c.role.startswith('INV')]
        for metadata in (self.metadata, *of_inversions):
            value = metadata.get('MagneticFieldStrength')
            if not sidecar_values.fault('MagneticFieldStrength', value):
                return value  # as written: it is part of the hash
        return None

    @property
    def maps(self) -> dict[str, str]:
        """Quantitative maps that are made with this image: suffix, and how (the ``desc-``)."""
        if len(self.paths) >= MIN_ECHOES and len(set(self.echo_times)) == len(self.paths):
            return {'T2starmap': 'fit'}
        roles = {companion.role for companion in self.companions}
        if 'T1map' in roles:
            return {'T1map': 'scanner'}
        if self.contrast != 'UNIT1' or not self.companions:
            return {}
        from ssl2_bids.steps import t1_mapping  # only where there is an MP2RAGE

        if not t1_mapping.protocol_of(*self.inversion_metadata):
            return {}
        corrected = {'TB1map', 'SA2RAGE 1'} & roles
        return {'T1map': 'B1corr' if corrected else 'uncorrected'}

    @property
    def inversion_metadata(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Sidecar keys of INV1 and INV2; of an INV2 that stands for UNIT1, those of the scan."""
        first = self.metadata_of('INV1')
        second = self.metadata_of('INV2') or self.metadata_of('INV2 phase')
        return first, second

    def metadata_of(self, role: str) -> dict[str, Any]:
        """Sidecar keys of a companion; none without it."""
        return next((one.metadata for one in self.companions if one.role == role), {})
