"""Names, sidecars and tables of simulated images and of the truth about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids import __version__
from ssl2_bids.bids.columns import LABEL_COLUMNS, SIMULATED_LESION_COLUMNS
from ssl2_bids.bids.outputs import output_name, raw_name, sidecar_path, table_path, write_table
from ssl2_bids.bids.provenance import bids_uri
from ssl2_bids.files import write_json
from ssl2_bids.simulation.lesions.growth import PaintedLesion
from ssl2_bids.simulation.participant import Knowledge
from ssl2_bids.simulation.scanner.fields import HYDROGEN
from ssl2_bids.simulation.scanner.protocols import Scanner
from ssl2_bids.simulation.scanner.scan import Image
from ssl2_bids.volume import write

TRUTH = Path('derivatives') / 'truth'
MANUAL = Path('derivatives') / 'manual'
# Index of each tissue in the list of segmentation labels that BIDS names.
BIDS_LABELS = {
    'wm': 2,
    'gm': 8,
    'caudate': 9,
    'putamen': 9,
    'pallidum': 9,
    'thalamus': 9,
    'hippocampus': 9,
    'cerebellar_gm': 11,
    'brainstem': 10,
    'csf': 3,
    'skull': 4,
    'marrow': 4,
    'fat': 5,
    'muscle': 5,
    'skin': 5,
}
# PulseSequenceType, ScanningSequence and SequenceVariant of each kind of sequence
SEQUENCES = {
    'mprage': ('MPRAGE', ['GR', 'IR'], ['SP', 'MP']),
    'mp2rage': ('MP2RAGE', ['GR', 'IR'], ['SP', 'MP']),
    'flair': ('turbo spin echo with inversion', ['SE', 'IR'], ['SK']),
    'tse': ('turbo spin echo', ['SE'], ['SK']),
    'gre': ('spoiled gradient echo', ['GR'], ['SP']),
    'megre': ('multi-echo spoiled gradient echo', ['GR'], ['SP']),
}
THICK = 2.0  # mm, and times the shortest edge; thicker slices belong to a 2D sequence


@dataclass(frozen=True)
class VisitNames:
    """Names of one participant's session in a simulated dataset."""

    root: Path
    subject: str
    session: str | None
    reference: str

    def image(self, image: Image, *, magnitudes_marked: bool = False) -> Path:
        """Path of a raw image.

        Parameters
        ----------
        magnitudes_marked : whether those of a sequence with phases have ``part-mag``.
        """
        several = image.inversion or image.echo
        part = 'phase' if image.phase else 'mag' if several and magnitudes_marked else ''
        entities: dict[str, int | str] = {
            'echo': image.echo,
            'inv': image.inversion,
            'part': part,
        }
        name = raw_name(self.subject, self.session, image.volume.contrast, entities)
        return self.root / name

    def reference_image(self) -> Path:
        """Path of the image on whose grid the truth lies."""
        return self.root / raw_name(self.subject, self.session, self.reference, {})

    def path(self, dataset: Path, kind: str, **entities: str) -> Path:
        """Path of a file of ``derivatives/truth`` or ``derivatives/manual``."""
        name = output_name(
            kind,
            subject=self.subject,
            session=self.session,
            space=self.reference,
            **entities,
        )
        return self.root / dataset / name

    @property
    def done_marker(self) -> Path:
        """The sidecar of the truth, written last: where it stands, images and truth stand."""
        return sidecar_path(self.path(TRUTH, 'anat.mask'))

    def manual_marker(self, encoding: str) -> Path:
        """The sidecar of the manual label, written last."""
        return sidecar_path(self.manual(encoding))

    def manual(self, encoding: str) -> Path:
        """Path of the manual label."""
        if encoding == 'dseg':
            return self.path(MANUAL, 'anat.instances', desc='manual')
        return self.path(MANUAL, 'anat.mask')


def write_image(
    names: VisitNames,
    image: Image,
    scanner: Scanner,
    suffix: str,
    *,
    whole_head: bool,
    phase: bool,
) -> None:
    """Write a raw image and its sidecar.

    Parameters
    ----------
    suffix : of the scanner's sequence that gave the image.
    phase : whether phase images are written too.
    """
    path = names.image(image, magnitudes_marked=phase)
    write(image.volume, path, dtype=np.float32 if image.phase else np.int16)
    write_json(sidecar_path(path), image_sidecar(image, scanner, suffix, whole_head=whole_head))


def image_sidecar(
    image: Image, scanner: Scanner, suffix: str, *, whole_head: bool
) -> dict[str, Any]:
    """Sidecar of a raw image: what the sequence was, times in s, angles in degrees."""
    protocol, geometry = scanner.protocols[suffix], scanner.geometries[suffix]
    name, sequence, variant = SEQUENCES[protocol.kind]
    thick = max(geometry.voxel) > THICK * max(min(geometry.voxel), 1.0)
    combined = image.volume.contrast == 'UNIT1'
    content: dict[str, Any] = {
        'Description': 'SIMULATED',
        'Modality': 'MR',
        'Manufacturer': 'simulated',
        'ManufacturersModelName': scanner.name,
        'SoftwareVersions': f'ssl2-bids {__version__}',
        'SequenceName': suffix,
        'MagneticFieldStrength': _number(scanner.field),
        'ImagingFrequency': _number(round(HYDROGEN * scanner.field, 4)),
        'ImageType': [
            'DERIVED' if combined else 'ORIGINAL',
            'PRIMARY',
            'P' if image.phase else 'UNI' if combined else 'M',
        ],
        'PulseSequenceType': name,
        'ScanningSequence': sequence,
        'SequenceVariant': variant,
        'MRAcquisitionType': '2D' if thick else '3D',
        'SliceThickness': _number(geometry.thickness or max(geometry.voxel)),
        'PhaseEncodingAxis': geometry.phase,
        'SkullStripped': not whole_head and protocol.kind != 'mp2rage',
    }
    if geometry.thickness:
        content['SpacingBetweenSlices'] = _number(max(geometry.voxel))
    if image.phase:
        content['Units'] = 'rad'
    if protocol.bandwidth:
        content['PixelBandwidth'] = _number(protocol.bandwidth)
    if protocol.preparation:
        content['PulseSequenceDetails'] = f'T2 preparation of {protocol.preparation:g} s'
    te = protocol.echo_times[image.echo - 1] if image.echo else protocol.te
    content['EchoTime'] = _number(protocol.nominal_te or te)
    if protocol.kind in ('mprage', 'mp2rage'):
        content['RepetitionTimeExcitation'] = _number(protocol.spacing)
        content['RepetitionTimePreparation'] = _number(protocol.tr)
        content['NumberShots'] = list(protocol.pulses)
    if protocol.kind != 'mp2rage':
        content['RepetitionTime'] = _number(protocol.tr)
        content['FlipAngle'] = _number(protocol.angles[0] if protocol.angles else 90)
        if protocol.ti:
            content['InversionTime'] = _number(protocol.ti[0])
    elif image.inversion:
        content['FlipAngle'] = _number(protocol.angles[image.inversion - 1])
        content['InversionTime'] = _number(protocol.ti[image.inversion - 1])
    return content


def _number(value: float) -> float | int:
    """A number as people write it: 7, not 7.0."""
    return int(value) if float(value).is_integer() else float(value)


def write_truth(
    names: VisitNames,
    known: Knowledge,
    table: Sequence[PaintedLesion],
    tissues: Sequence[str],
    record: Mapping[str, Any],
) -> None:
    """Write all that is known of a session, and last of all the sidecar that marks it finished.

    Parameters
    ----------
    table : the lesions painted.
    tissues : names of the numbers, from 1, in the map of tissues.
    record : everything random of it, as JSON.
    """
    common = {'Manual': False, **references(names)}
    grid, lesions = known.grid, known.lesions
    path = names.path(TRUTH, 'anat.instances')
    write(grid.with_data(lesions.instances), path, dtype=np.uint16)
    counts = np.bincount(lesions.instances.ravel(), minlength=max(len(table) + 1, 1))
    rows = [lesion_row(lesion, counts) for lesion in table]
    write_table(table_path(path), rows, SIMULATED_LESION_COLUMNS)
    describe_image(path, 'True lesions, numbered', common, SIMULATED_LESION_COLUMNS)
    path = names.path(TRUTH, 'simulated.tissues')
    write(grid.with_data(known.tissues), path, dtype=np.uint8)
    rows = [{'index': 0, 'name': 'air', 'mapping': 0}] + [
        {'index': number, 'name': name, 'mapping': BIDS_LABELS.get(name)}
        for number, name in enumerate(tissues, start=1)
    ]
    write_table(table_path(path), rows, LABEL_COLUMNS)
    text = 'Tissue that fills most of the voxel; at a lesion, the tissue that the lesion replaced'
    describe_image(path, text, common, LABEL_COLUMNS)
    path = names.path(TRUTH, 'simulated.brain_mask')
    write(grid.with_data(known.brain), path, dtype=np.uint8)
    describe_image(path, 'Brain with the fluid around it', {'Type': 'Brain', **common})
    if lesions.ignore.any():
        path = names.path(TRUTH, 'simulated.ambiguous')
        write(grid.with_data(lesions.ignore), path, dtype=np.uint8)
        text = 'Lesion mimics like those of ageing, not annotated as lesions'
        describe_image(path, text, {'Type': 'ROI', **common})
    path = names.path(TRUTH, 'anat.mask')
    write(grid.with_data(lesions.mask), path, dtype=np.uint8)
    content = {
        'Type': 'Lesion',
        **common,
        'LesionVolumeMm3': round(float(lesions.mask.sum()) * grid.voxel_volume, 1),
        'PaintedLesions': sum(lesion.change != 'vanished' for lesion in table),
        'Simulation': {**record, 'Lesions': [asdict(lesion) for lesion in table]},
    }
    describe_image(path, 'Voxels of which a simulated lesion fills at least one half', content)


def references(names: VisitNames) -> dict[str, Any]:
    """What a label lies on and was made from."""
    image = bids_uri(names.reference_image(), names.root, 'raw')
    return {'SpatialReference': image, 'Sources': [image]}


def lesion_row(lesion: PaintedLesion, counts: np.ndarray) -> dict[str, Any]:
    """A lesion's row in the table of instances."""
    return {
        'index': lesion.index,
        'name': f'lesion {lesion.index}',
        'mapping': 7,
        'volume_mm3': round(lesion.volume_mm3, 2),
        'voxel_count': int(counts[lesion.index]) if lesion.index < len(counts) else 0,
        'place': lesion.place,
        'damage': round(lesion.appearance.damage, 3),
        'change': lesion.change,
    }


def describe_image(
    image: Path, text: str, content: Mapping[str, Any], columns: Mapping[str, Any] | None = None
) -> None:
    """Write the sidecar of an image; with columns it explains those of its table too."""
    write_json(sidecar_path(image), {'Description': text, **content, **(columns or {})})
