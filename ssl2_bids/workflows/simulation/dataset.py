"""A simulated dataset as a whole: its descriptions, README, participants; whose folder it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl2_bids import __version__
from ssl2_bids.bids.columns import SIMULATED_PARTICIPANT_COLUMNS
from ssl2_bids.bids.dataset import read_table
from ssl2_bids.bids.outputs import write_table
from ssl2_bids.bids.provenance import BIDS_VERSION, CODE_URL
from ssl2_bids.errors import CannotWriteError
from ssl2_bids.files import PREFIX, read_object, write_json, write_text
from ssl2_bids.workflows.simulation.files import MANUAL, TRUTH

DESCRIPTION = 'dataset_description.json'
README = """\
SIMULATED DATA. No person was scanned.

Heads made by random deformation of {anatomy}, with white-matter lesions of known truth, in MR
images of a scanner of {field:g} T: {settings}.

derivatives/truth: lesions of all participants, numbered lesions, tissues and brain, on the grid
of the {reference} images. The JSON of each lesion mask holds all random values: with this JSON,
"ssl2 simulate NEW_FOLDER --again THAT.json" makes the same images again.
{manual}
{source}

Simulated images are no evidence of the accuracy of a method on patients.
"""
MANUAL_README = """
derivatives/manual: labels of some participants, similar to those of a site: drawn by a simulated
rater, with inexact borders, missed lesions and false lesions.
"""
TRUTH_README = """\
The truth about the SIMULATED images in the dataset above: lesions as painted. For real
scans no truth exists.
"""
MNI_SOURCE = """\
Tissue maps: MNI ICBM 152, copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre,
Montreal Neurological Institute, McGill University (Fonov et al. 2011,
https://doi.org/10.1016/j.neuroimage.2010.07.033)."""
LABELS_SOURCE = """\
Anatomies: label maps given by the user. If the label maps or lesion masks have a
licence and citation, add them here."""


def descriptions(settings: str, *, labels: str, given: bool) -> dict[Path, dict[str, Any]]:
    """Content of each ``dataset_description.json``, by folder: raw, truth, manual.

    Parameters
    ----------
    settings : what makes the images, in words; equal settings give equal images.
    labels : settings of the manual labels, empty for none.
    given : whether the anatomies were given by the user.
    """
    shared: dict[str, Any] = {
        'BIDSVersion': BIDS_VERSION,
        'Authors': ['The ssl2-bids developers'],
    }
    if not given:
        shared['License'] = 'CC0'
        shared['ReferencesAndLinks'] = ['https://doi.org/10.1016/j.neuroimage.2010.07.033']

    def described(name: str, kind: str, maker: str, text: str) -> dict[str, Any]:
        made = {'Version': __version__, 'Description': text, 'CodeURL': CODE_URL}
        content = {'Name': name, 'DatasetType': kind, 'GeneratedBy': [{'Name': maker, **made}]}
        links = {} if kind == 'raw' else {'DatasetLinks': {'raw': '../..'}}
        return content | links | shared

    # The specification wants the name of a nested derivative's maker in its folder's name.
    found = {
        Path(): described(
            'SIMULATED brains with lesions of known truth', 'raw', 'ssl2 simulate', settings
        ),
        TRUTH: described('Known truth of the SIMULATED brains', 'derivative', 'truth', settings),
    }
    if labels:
        found[MANUAL] = described(
            'Lesions of the SIMULATED brains as drawn by a simulated rater',
            'derivative',
            'manual',
            f'{settings}; {labels}',
        )
    return found


def claim_folder(root: Path, described: Mapping[Path, Mapping[str, Any]]) -> None:
    """Write the dataset descriptions, unless the folder holds something else.

    Raises
    ------
    CannotWriteError : it does; nothing was written.
    """
    if root.exists() and not root.is_dir():
        raise CannotWriteError('is a file', advice='Give a folder.', path=root)
    for folder, content in described.items():
        path = root / folder / DESCRIPTION
        if not path.exists():
            if folder == Path() and _is_occupied(root):
                raise CannotWriteError(
                    'the folder is not empty and holds no simulated dataset',
                    advice='Choose an empty folder; nothing was changed.',
                    path=root,
                )
            continue
        if _generated_by(path) != content['GeneratedBy']:
            raise CannotWriteError(
                'the folder holds another dataset, or a simulation with other settings',
                advice='Choose an empty folder; nothing was changed.',
                path=path.parent,
            )
    for folder, content in described.items():
        write_json(root / folder / DESCRIPTION, content)


def _is_occupied(root: Path) -> bool:
    return root.is_dir() and any(not entry.name.startswith(PREFIX) for entry in root.iterdir())


def _generated_by(path: Path) -> Any:
    try:
        return read_object(path).get('GeneratedBy')
    except (ValueError, OSError):
        return None


def write_readme(
    root: Path, *, field: float, settings: str, reference: str, given: bool, labelled: bool
) -> None:
    """Write the README of each dataset."""
    text = README.format(
        anatomy='the label maps of segmented heads' if given else 'the MNI152 tissue maps',
        field=field,
        settings=settings,
        reference=reference,
        manual=MANUAL_README if labelled else '',
        source=LABELS_SOURCE if given else MNI_SOURCE,
    )
    write_text(root / 'README', text)
    write_text(root / TRUTH / 'README', TRUTH_README)
    if labelled:
        write_text(root / MANUAL / 'README', MANUAL_README.lstrip())


def write_participants(root: Path, anatomies: Mapping[str, str]) -> None:
    """List the participants that stand in the folder.

    Parameters
    ----------
    anatomies : name of the template of each, by folder (``sub-01``); that of others stays.
    """
    path = root / 'participants.tsv'
    known = {row['participant_id']: row.get('anatomy') for row in read_table(path)}
    rows = [
        {
            'participant_id': folder.name,
            'group': 'simulated',
            'anatomy': anatomies.get(folder.name) or known.get(folder.name),
        }
        for folder in sorted(root.glob('sub-*'))
    ]
    write_table(path, rows, SIMULATED_PARTICIPANT_COLUMNS)
