"""The raw files of one contrast, read and prepared: what the App runs on and training packs."""

from __future__ import annotations

from collections.abc import Sequence

from ssl2_bids.bids.inputs import Scan
from ssl2_bids.errors import DataError, about
from ssl2_bids.files import sha256
from ssl2_bids.steps import preprocess
from ssl2_bids.steps.preprocess import PreparedScan
from ssl2_bids.volume import read, reorient


def read_scan(scan: Scan, digests: Sequence[str] = ()) -> PreparedScan:
    """One contrast as one checked image with RAS+ voxel axes; echoes averaged, UNIT1 denoised.

    Parameters
    ----------
    digests : SHA-256 of each of the scan's sources, as they were when the run was planned;
        none to take the files as they are.

    Raises
    ------
    DataError : a file cannot be used, or has changed since; it is named.
    """
    warnings: list[str] = []
    images = []
    for number, path in enumerate(scan.sources):
        with about(path):
            found = preprocess.check_image(reorient(read(path, contrast=scan.contrast)))
        if digests and sha256(path) != digests[number]:
            raise DataError(
                'the file was changed while the run was under way',
                advice='Run the same command again.',
                path=path,
            )
        images.append(found.image)
        warnings += [f'{path.name}: {text}' for text in found.warnings]
    count = len(scan.paths)
    with about(scan.paths[0]):
        made = preprocess.prepare_contrast(images[:count], images[count:])
    return PreparedScan(made.image, warnings + made.warnings, made.methods)
