"""The content of a rater's file: lesions, and the annotated extent.

The annotated extent is never derived from empty parts of the mask. It comes from a three-valued
file with its table, from a mask of the annotated extent, or from a list of slices, in this order;
without any of them the whole image counts as annotated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssl2_bids.errors import DataError
from ssl2_bids.volume import Volume, reorient
from ssl2_bids.voxel_grid import ROUNDING, describe_grid, same_grid

LESION, NOT_LESION, NOT_ANNOTATED = 'lesion', 'not lesion', 'not annotated'
BIDS_LESION_INDEX = '7'  # "Lesion" in the list of segmentation labels of the BIDS standard
EXTENTS = ('whole', 'mask', 'dseg', 'slices')


@dataclass(frozen=True)
class Annotation:
    """Label of one image; it has no lesion outside the extent.

    Attributes
    ----------
    label : uint8, 1 in lesions.
    extent : bool, annotated extent; same grid.
    rater : name, empty if unknown.
    unused : lesion voxels outside the listed slices, which are not in the label.
    """

    label: Volume
    extent: Volume
    rater: str = ''
    unused: int = 0

    @property
    def whole(self) -> bool:
        """Whether all of the image was annotated."""
        return bool(self.extent.data.all())


def read_label_values(
    volume: Volume,
    sidecar: Mapping[str, Any],
    *,
    table: Sequence[Mapping[str, str]] | None = None,
    extent: Volume | None = None,
    rater: str = '',
) -> Annotation:
    """Turn the values of a rater's file into lesions and annotated extent.

    Parameters
    ----------
    volume : as stored in the file, not reoriented: AnnotatedSlices counts its voxel axes.
    sidecar : its JSON; read are AnnotationExtent, AnnotatedSlices, AnnotationEncoding, Rater.
    table : rows of its ``dseg.tsv`` with ``index``, ``name`` and perhaps ``mapping``; None:
        the file is binary (0 and 1, or 0 and 255).
    extent : mask of the annotated extent; a lesion outside of it is known all the same.
    rater : used where the sidecar names none.

    Raises
    ------
    DataError : values that are not whole numbers or mean nothing, an extent on another grid,
        slices that the image does not have or that leave out all lesions, a sidecar that refers
        to a missing file or value.
    """
    values = _whole_numbers(volume.data)
    rows = table if table is not None else _encoding(sidecar)
    three_valued = rows is not None and any(meaning(row) == NOT_ANNOTATED for row in rows)
    _check_promise(sidecar, three_valued=three_valued, extent=extent)
    if rows is None:
        label, annotated = _binary(values, 'the mask'), np.ones(volume.shape, bool)
    else:
        label, annotated = _decode(values, rows)
    if not three_valued and extent is not None:
        annotated = _extent(extent, volume) | label
    elif not three_valued and 'AnnotatedSlices' in sidecar:
        annotated = _slices(sidecar['AnnotatedSlices'], volume.shape)
        _check_slices(label, annotated, sidecar['AnnotatedSlices']['Axis'])
    named = sidecar.get('Rater') or rater
    return Annotation(
        label=volume.with_data((label & annotated).astype(np.uint8)),
        extent=volume.with_data(annotated),
        rater=', '.join(map(str, named)) if isinstance(named, list) else str(named),
        unused=int(np.count_nonzero(label & ~annotated)),
    )


def meaning(row: Mapping[str, str]) -> str:
    """Meaning of a row of a ``dseg.tsv``: one of three words, or empty if unclear."""
    name = ' '.join((row.get('name') or '').lower().replace('_', ' ').replace('-', ' ').split())
    if name in (NOT_ANNOTATED, NOT_LESION):
        return name
    if name in ('lesion', 'lesions') or (row.get('mapping') or '').strip() == BIDS_LESION_INDEX:
        return LESION
    return 'background' if name == 'background' else ''


def reorient_annotation(annotation: Annotation) -> Annotation:
    """The same annotation with voxel axes as close to RAS+ as flips and permutations can."""
    return replace(
        annotation, label=reorient(annotation.label), extent=reorient(annotation.extent)
    )


def majority(annotations: Sequence[Annotation]) -> Annotation:
    """Combine raters: lesion where more than half of those who annotated the voxel drew one.

    Parameters
    ----------
    annotations : at least one, all on one grid.

    Raises
    ------
    DataError : they are on different grids.
    """
    first = annotations[0]
    if len(annotations) == 1:
        return first
    for other in annotations[1:]:
        if not same_grid(first.label, other.label):
            raise DataError(
                'the masks of the raters are on different grids: '
                f'{describe_grid(first.label)}; {describe_grid(other.label)}',
                advice='Keep one of them, or resample them to one grid.',
            )
    votes = np.sum([a.label.data for a in annotations], axis=0, dtype=np.int16)
    raters = np.sum([a.extent.data for a in annotations], axis=0, dtype=np.int16)
    return Annotation(
        label=first.label.with_data((2 * votes > raters).astype(np.uint8)),
        extent=first.extent.with_data(np.asarray(raters > 0)),
        rater=', '.join(a.rater for a in annotations if a.rater),
    )


def _whole_numbers(data: np.ndarray) -> np.ndarray:
    if data.dtype.kind in 'biu':
        return data
    if not np.isfinite(data).all():
        raise DataError('the label has voxels that are not finite (NaN)', advice='Set them to 0.')
    rounded = np.rint(data)
    worst = float(np.abs(data - rounded).max())
    if worst > ROUNDING:
        raise DataError(
            f'the label has fractional values (range {data.min():.3g} to {data.max():.3g})',
            advice='Give a mask of whole numbers: threshold a probability, and resample masks '
            'with nearest neighbour.',
        )
    return rounded.astype(np.int32)


def _present(values: np.ndarray) -> list[int]:
    nonzero = values[values != 0]
    return ([0] if nonzero.size < values.size else []) + np.unique(nonzero).tolist()


def _binary(values: np.ndarray, what: str) -> np.ndarray:
    present = _present(values)
    if not (set(present) <= {0, 1} or set(present) <= {0, 255}):
        raise DataError(
            f'{what} has the values {_list(present)} where 0 and 1 (or 0 and 255) are expected',
            advice='Give their meaning in a dseg.tsv or in AnnotationEncoding of its JSON.',
        )
    return values != 0


def _list(values: Sequence[int]) -> str:
    return ', '.join(map(str, values[:8])) + (', ...' if len(values) > 8 else '')


def _encoding(sidecar: Mapping[str, Any]) -> list[dict[str, str]] | None:
    encoding = sidecar.get('AnnotationEncoding')
    if encoding is None:
        return None
    if not isinstance(encoding, dict):
        raise DataError(
            'AnnotationEncoding does not map values to names',
            advice='For example {"0": "not annotated", "1": "lesion", "2": "not lesion"}.',
        )
    return [{'index': str(value), 'name': str(name)} for value, name in encoding.items()]


def _decode(
    values: np.ndarray, rows: Sequence[Mapping[str, str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Lesion and annotated, by a table."""
    meanings: dict[int, str] = {}
    for row in rows:
        try:
            meanings[int(row['index'])] = meaning(row)
        except (KeyError, TypeError, ValueError):
            raise DataError(
                f'the table of label values has a row without a whole index: {dict(row)}'
            ) from None
    separate = NOT_LESION in meanings.values()
    if not separate:
        # plain dseg: what is not drawn is background, and BIDS lets a table leave out 0
        meanings.setdefault(0, 'background')
        meanings = {v: NOT_LESION if m == 'background' else m for v, m in meanings.items()}
    present = _present(values)
    unclear = [v for v in present if meanings.get(v) not in (LESION, NOT_LESION, NOT_ANNOTATED)]
    if unclear:
        raise DataError(
            f'its table does not define the label values {_list(unclear)}',
            advice=f'Name each value "{LESION}", "{NOT_LESION}" or "{NOT_ANNOTATED}".',
        )
    lesion = np.isin(values, [v for v in present if meanings[v] == LESION])
    unknown = np.isin(values, [v for v in present if meanings[v] == NOT_ANNOTATED])
    return lesion, ~unknown


def _extent(extent: Volume, volume: Volume) -> np.ndarray:
    if not same_grid(extent, volume):
        raise DataError(
            'the mask of the annotated extent is on another grid than the label: '
            f'{describe_grid(extent)}; {describe_grid(volume)}',
            advice='Save both from the same image.',
        )
    return _binary(_whole_numbers(extent.data), 'the mask of the annotated extent')


def _slices(slices: Any, shape: tuple[int, ...]) -> np.ndarray:
    axis = slices.get('Axis') if isinstance(slices, dict) else None
    indices = slices.get('Indices') if isinstance(slices, dict) else None
    if axis not in ('i', 'j', 'k') or not isinstance(indices, list) or not indices:
        raise DataError(
            f'AnnotatedSlices is not valid: {slices}',
            advice='Write {"Axis": "k", "Indices": [88, 96]}: a voxel axis i, j or k of the '
            'file, and slices counted from 0.',
        )
    number = 'ijk'.index(axis)
    wrong = [
        n
        for n in indices
        if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < shape[number]
    ]
    if wrong:
        raise DataError(
            f'AnnotatedSlices names {_list(wrong)}, but the slices along {axis} are 0 to '
            f'{shape[number] - 1}',
            advice='Count slices from 0, as stored in the file.',
        )
    annotated = np.zeros(shape, bool)
    np.moveaxis(annotated, number, 0)[indices] = True
    return annotated


def _check_slices(label: np.ndarray, annotated: np.ndarray, axis: str) -> None:
    drawn = np.count_nonzero(label)
    if drawn and not (label & annotated).any():
        others = tuple({0, 1, 2} - {'ijk'.index(axis)})
        found = np.flatnonzero(label.any(axis=others)).tolist()
        raise DataError(
            f'{drawn} of {drawn} lesion voxels lie outside AnnotatedSlices (they lie in the '
            f'slices {_list(found)}); slices count from 0 along axis {axis}',
            advice='Correct the axis or the numbers of the slices, as stored in the file. If the '
            'listed slices have no lesion, set the mask to 0 in all others.',
        )


def _check_promise(
    sidecar: Mapping[str, Any], *, three_valued: bool, extent: Volume | None
) -> None:
    declared = sidecar.get('AnnotationExtent', 'whole')
    if declared not in EXTENTS:
        raise DataError(
            f'AnnotationExtent is "{declared}"', advice=f'Choose one of: {", ".join(EXTENTS)}.'
        )
    missing = {
        'mask': extent is None and 'the mask desc-annotated_mask is missing',
        'dseg': not three_valued and f'no table has a value for "{NOT_ANNOTATED}"',
        'slices': 'AnnotatedSlices' not in sidecar and 'AnnotatedSlices is missing',
    }.get(declared)
    if missing:
        raise DataError(
            f'AnnotationExtent is "{declared}", but {missing}',
            advice='Add the extent: without it the annotated region is unknown.',
        )
