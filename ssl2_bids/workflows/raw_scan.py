"""The raw files of one contrast, read and prepared: what the App runs on and training packs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ssl2_bids.bids.scan import Scan
from ssl2_bids.errors import DataError, about
from ssl2_bids.files import sha256
from ssl2_bids.steps import preprocess, quality
from ssl2_bids.steps.preprocess import PreparedScan
from ssl2_bids.volume import Volume, read, reorient, thin


def read_scan(
    scan: Scan, digests: Sequence[str] = (), *, working_voxel: float = 0.0
) -> PreparedScan:
    """One contrast as one checked image with RAS+ voxel axes; echoes averaged, UNIT1 computed
    where the scanner gave none, and denoised; maps of T1 and T2* where these can be made.

    Parameters
    ----------
    digests : SHA-256 of each of the scan's sources, as they were when the run was planned;
        none to take the files as they are.
    working_voxel : mm; each image is thinned to edges of about that length, see
        :func:`ssl2_bids.volume.thin`; 0 for all its voxels.

    Raises
    ------
    DataError : a file cannot be used, or has changed since; it is named.
    """
    warnings: list[str] = []
    images: list[Volume] = []
    helpers: dict[str, Volume] = {}
    roles = [''] * len(scan.paths) + [companion.role for companion in scan.companions]
    for number, (role, path) in enumerate(zip(roles, scan.sources, strict=True)):
        stored = reorient(read(path, contrast=scan.contrast))
        if working_voxel:
            stored = thin(stored, working_voxel)
        with about(path):
            # of a phase or a map, the zero is a value
            plain = role in ('', 'INV1', 'INV2')
            found = preprocess.check_image(stored) if plain else preprocess.check_map(stored)
            if role == 'T1map':
                in_seconds, remarks = quality.in_seconds(found.image)
                found = replace(found, image=in_seconds, warnings=found.warnings + remarks)
        if digests and sha256(path) != digests[number]:
            raise DataError(
                'the file was changed while the run was under way',
                advice='Run the same command again.',
                path=path,
            )
        if role:
            helpers[role] = found.image
        else:
            images.append(found.image)
        warnings += [f'{path.name}: {text}' for text in found.warnings]
    with about(scan.paths[0]):
        made = _prepare(scan, images, helpers)
    return replace(made, warnings=warnings + made.warnings)


def _prepare(scan: Scan, images: list[Volume], helpers: dict[str, Volume]) -> PreparedScan:
    """One image, and its maps, from the checked ones of a contrast."""
    if not scan.has_inversions:
        is_fitted = 'T2starmap' in scan.maps
        made = preprocess.prepare_contrast(images, echo_times=scan.echo_times if is_fitted else ())
        if 'T1map' in helpers:
            made.maps['T1map'] = helpers['T1map']
        return made
    from ssl2_bids.steps import t1_mapping

    (image,) = images
    computed = scan.is_computed
    inv2 = image if computed else helpers['INV2']
    transmit, warnings = _transmit_field(scan, helpers, inv2)
    made = preprocess.prepare_mp2rage(
        None if computed else image,
        (helpers['INV1'], inv2),
        phases=[helpers['INV1 phase'], helpers['INV2 phase']] if computed else (),
        protocol=t1_mapping.protocol_of(*scan.inversion_metadata),
        transmit=transmit,
        scanner_t1=helpers.get('T1map'),
    )
    return replace(made, warnings=warnings + made.warnings)


def _transmit_field(
    scan: Scan, helpers: dict[str, Volume], inv2: Volume
) -> tuple[Volume | None, list[str]]:
    """The B1+ field as a fraction of nominal, on the grid of its map, or None; and warnings."""
    from ssl2_bids.steps import mp2rage, transmit_field

    for companion in scan.companions:
        with about(companion.path):
            found = None
            if companion.role == 'TB1map':
                found = transmit_field.as_fraction(helpers['TB1map'])
            elif companion.role == 'SA2RAGE 1':
                names = ('SA2RAGE 1', 'SA2RAGE 2')
                known = transmit_field.sa2rage_protocol([scan.metadata_of(n) for n in names])
                if known:
                    found = transmit_field.from_sa2rage(
                        [helpers[n] for n in names], [helpers[f'{n} phase'] for n in names], known
                    )
            if found is not None:
                texts = transmit_field.check_coverage(found, inv2, mp2rage.head_of(inv2))
                return found, [f'{companion.path.name}: {text}' for text in texts]
    return None, []
