"""What identifies a run and its results: dataset files, sidecars, versions, hashes, links."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ssl2_bids import __date__, __version__
from ssl2_bids.bids.dataset import is_own_dataset, read_description, read_table, warn_once
from ssl2_bids.bids.outputs import output_name
from ssl2_bids.errors import DataError, Ssl2Error
from ssl2_bids.files import write_json, write_text
from ssl2_bids.locks import locked

log = logging.getLogger('ssl2_bids')

BRAIN_MASKS = 'brainmasks'  # in BIDS URIs, the folder of --brain-mask
BIDS_VERSION = '1.11.1'
CODE_URL = 'https://github.com/ssl2-bids/ssl2-bids'
DOI_PREFIX = re.compile(r'^(?:https?://(?:dx\.|www\.)?doi\.org/|doi:\s*)+', re.IGNORECASE)
BIDSIGNORE = """\
*.html
figures
models
group_*
*_xfm.*
*_morph.*
*_quality.json
*_cohort-*
*_space-within_*
*_long.*
.ssl2-bids-group.lock
.ssl2-bids-dataset.lock
"""
DESCRIPTIONS = {
    'preproc': 'bias-corrected image on the voxel grid of the raw reference image',
    'brain': 'brain mask',
    'denoised': 'UNIT1 prepared with its inversion images, as the JSON describes',
    'B1corr': 'map corrected for B1+',
    'uncorrected': 'map without correction for B1+',
    'scanner': 'map of the scanner, in s',
    'fit': 'map fitted to several echoes',
    'lesionfilled': 'image with lesions replaced by the white matter around',
    'meanecho': 'mean magnitude of several echoes',
    'lesions': 'lesions of several sessions, followed over time',
    'uncertainty': 'uncertainty of the lesion probability in bits, by the measure in the JSON',
    'adapted': 'result of a model that was adapted to the site',
    'calibrated': 'result of a model recalibrated on labelled participants',
}
README = """\
Lesion segmentation by ssl2-bids
================================

Lesion masks (label-L), probabilities, instances (seg-lesions) and volumes, with the preprocessed
images that they lie on. The space- entity names the suffix of the reference image.
Open sub-*.html for the reports. Methods text and citations: logs/CITATION.md.

For research use only: not a medical device, not for diagnosis or treatment.
"""


def write_dataset_files(
    output_dir: Path,
    bids_dir: Path,
    links: Mapping[str, Path] | None = None,
    models: Mapping[str, str] | None = None,
) -> None:
    """Write the files of the dataset as a whole; the same bytes whoever writes them.

    Runs that work side by side write them one after another.

    Parameters
    ----------
    links : further datasets by the names that BIDS URIs have for them; those that are linked
        already stay.
    models : names of models by the ``desc`` of their results; those of before stay.
    """
    with _alone(output_dir):
        _write_dataset_files(output_dir, bids_dir, links or {}, models or {})


@contextmanager
def _alone(output_dir: Path) -> Iterator[None]:
    """Hold the files of the dataset: what another run adds to them in between would be lost.

    Where the file system has no locks, or the lock cannot be made, nothing is held.
    """
    path = output_dir / output_name('group.dataset_lock')
    with ExitStack() as held:
        try:
            held.enter_context(locked(path, [], waited_for=['dataset']))
            held.callback(_remove, path)  # while it is held
        except Ssl2Error as error:
            log.debug('%s', error)
        yield


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _write_dataset_files(
    output_dir: Path, bids_dir: Path, links: Mapping[str, Path], models: Mapping[str, str]
) -> None:
    path = output_dir / 'dataset_description.json'
    content = describe_dataset(output_dir, bids_dir)
    before = read_description(output_dir)
    if before and is_own_dataset(output_dir) and before.get('Name') != content['Name']:
        warn_once(
            f'{output_dir}: holds results of another dataset ("{before.get("Name")}"; now '
            f'"{content["Name"]}"): results of participants with equal labels are replaced. For '
            'another dataset give another output folder'
        )
    found = before.get('DatasetLinks')
    former = found if isinstance(found, dict) else {}
    more = {name: raw_link(output_dir, folder) for name, folder in links.items()}
    for name, link in more.items():
        if former.get(name, link) != link and not re.fullmatch(r'labels\d*', name):
            warn_once(
                f'{output_dir}: the dataset {name} was {former[name]} and is now {link}. If it is '
                'another one, the Sources of earlier results are wrong: give it another name '
                '(-d NAME=FOLDER), or use another output folder'
            )
    content['DatasetLinks'] = {
        **former,
        **content['DatasetLinks'],
        **more,
    }
    write_json(path, content)
    write_text(output_dir / '.bidsignore', BIDSIGNORE)
    write_text(output_dir / 'README.md', README)
    write_text(
        output_dir / 'CHANGES',
        f'{__version__} {__date__}\n  - made by this version of ssl2-bids\n',
    )
    table = output_dir / 'descriptions.tsv'
    lines = [f'{key}\t{value}' for key, value in _meanings(table, models).items()]
    write_text(table, '\n'.join(['desc_id\tdescription', *lines]) + '\n')
    write_json(
        output_dir / 'descriptions.json',
        {
            'Description': 'Meaning of the desc- labels of this dataset.',
            'desc_id': {'Description': 'value of the desc entity, with its key'},
            'description': {'Description': 'meaning of the label'},
        },
    )


def _meanings(table: Path, models: Mapping[str, str]) -> dict[str, str]:
    fixed = {f'desc-{key}': value for key, value in DESCRIPTIONS.items()}
    try:
        found = {row.get('desc_id'): row.get('description') for row in read_table(table)}
    except DataError as error:  # it is written again
        log.warning('%s', error)
        found = {}
    former = {key: value for key, value in found.items() if key and value}
    now = {f'desc-{key}': f'result of the model {name}' for key, name in models.items() if key}
    return fixed | {
        key: value for key, value in sorted((former | now).items()) if key not in fixed
    }


def describe_dataset(output_dir: Path, bids_dir: Path) -> dict[str, Any]:
    """Content of the output's ``dataset_description.json``."""
    raw = read_description(bids_dir)
    generated: dict[str, Any] = {
        'Name': 'ssl2-bids',
        'Version': __version__,
        'CodeURL': CODE_URL,
    }
    tag = os.environ.get('SSL2_BIDS_DOCKER_TAG')
    sif = os.environ.get('APPTAINER_CONTAINER') or os.environ.get('SINGULARITY_CONTAINER')
    if sif:
        generated['Container'] = {'Type': 'apptainer', 'URI': Path(sif).name}
    elif tag:
        generated['Container'] = {'Type': 'docker', 'Tag': tag}
    content: dict[str, Any] = {
        'Name': f'Lesion segmentation of {raw.get("Name", bids_dir.name)}',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'derivative',
        'GeneratedBy': [generated],
        'DatasetLinks': {'raw': raw_link(output_dir, bids_dir)},
        'HowToAcknowledge': 'Cite the works listed in logs/CITATION.md.',
    }
    if isinstance(raw.get('Authors'), list) and raw['Authors']:
        content['Authors'] = raw['Authors']
    if isinstance(raw.get('License'), str):
        content['License'] = raw['License']
    if isinstance(raw.get('ReferencesAndLinks'), list) and raw['ReferencesAndLinks']:
        content['ReferencesAndLinks'] = raw['ReferencesAndLinks']
    if isinstance(raw.get('DatasetDOI'), str):
        doi = DOI_PREFIX.sub('', raw['DatasetDOI'].strip())
        content['SourceDatasets'] = [{'DOI': f'doi:{doi}'}]
    return content


def raw_link(output_dir: Path, bids_dir: Path) -> str:
    """Where ``bids:raw:`` points: a relative path if the output lies in the dataset."""
    out, raw = output_dir.resolve(), bids_dir.resolve()
    if out.is_relative_to(raw):
        return Path(*['..'] * len(out.relative_to(raw).parts)).as_posix()
    return raw.as_uri()


def bids_uri(path: Path, root: Path, dataset: str = '') -> str:
    """``bids:<dataset>:<path>`` of a file; the empty name is the output dataset itself."""
    return f'bids:{dataset}:{quote(path.relative_to(root).as_posix())}'


def software_versions() -> dict[str, str]:
    """Versions of what computes the results."""
    names = (
        'deepbet',
        'monai',
        'nibabel',
        'nilearn',
        'nipype',
        'numpy',
        'pybids',
        'scipy',
        'SimpleITK',
        'torch',
    )
    return {'ssl2-bids': __version__, 'python': platform.python_version()} | {
        name: metadata.version(name) for name in names
    }


def configuration_hash(parts: Mapping[str, Any]) -> str:
    """A short hash of all that decides a result: settings, model, inputs, version."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
