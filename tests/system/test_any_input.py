"""Whatever stands in a dataset or a file of options: an exit code of the contract, no bug.

``SSL2_EXAMPLES`` is the number of examples of each property; ``tools/test --all`` takes 500.
"""

from __future__ import annotations

import json
import os
import string
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phantoms import brain_image

from ssl2_bids.bids.dataset import read_table
from ssl2_bids.bids.labels import find_labels
from ssl2_bids.cli.app import main
from ssl2_bids.cli.parser import build_parser
from ssl2_bids.errors import Ssl2Error
from ssl2_bids.itk import from_itk
from ssl2_bids.steps.preprocess import check_image
from ssl2_bids.volume import read, reorient

EXAMPLES = int(os.environ.get('SSL2_EXAMPLES', '50'))
ENDS = {0, 1, 16, 17, 18, 64, 65, 66, 69}  # of a dry run, bad input included; 70 is a bug

pytestmark = pytest.mark.filterwarnings('ignore')
examples = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)

numbers = st.one_of(st.integers(), st.floats(), st.booleans())
plain = st.one_of(st.none(), numbers, st.text(max_size=12))
anything = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
KEYS = (
    'MagneticFieldStrength', 'ImagingFrequency', 'EchoTime', 'RepetitionTime', 'InversionTime',
    'RepetitionTimePreparation', 'RepetitionTimeExcitation', 'FlipAngle', 'NumberShots',
    'SkullStripped', 'Units', 'ImageType', 'PartialFourier', 'B0FieldIdentifier', 'Description',
    'SpatialReference', 'Sources', 'Manual', 'AnnotationEncoding',
)  # fmt: skip
sidecars = st.dictionaries(st.sampled_from(KEYS), anything, max_size=6)
ENTITIES = (
    'ses-1', 'ses-a', 'acq-x', 'acq-7T', 'ce-gd', 'rec-norm', 'run-1', 'run-02', 'echo-1',
    'echo-2', 'inv-1', 'inv-2', 'part-mag', 'part-phase', 'space-T1w', 'space-MNI152',
    'desc-preproc', 'res-2', 'label-L', 'label-lesion', 'chunk-1', 'uni-x', 'UNI', 'x-', '-x', '',
    'task-rest', 'ä-ö',
)  # fmt: skip
SUFFIXES = (
    'T1w', 'FLAIR', 'T2w', 'UNIT1', 'MP2RAGE', 'T2starw', 'MEGRE', 'T1map', 'TB1map', 'TB1SRGE',
    'INV1', 'UNI', 'mask', 'dseg', 'roi', 'bold', 't1w', '',
)  # fmt: skip
names = st.builds(
    lambda entities, suffix, end: '_'.join(['sub-01', *entities, suffix]) + end,
    st.lists(st.sampled_from(ENTITIES), max_size=4, unique=True),
    st.sampled_from(SUFFIXES),
    st.sampled_from(['.nii.gz', '.nii', '.json', '.tsv', '.NII', '.nii.gz.part']),
)
IMAGE = brain_image(6.0)
BYTES = nib.Nifti1Image(np.asarray(IMAGE.dataobj, np.float32), IMAGE.affine).to_bytes()
HEADER = 352  # bytes


@pytest.fixture(scope='module')
def room(tmp_path_factory):
    """A function that gives an empty dataset, each time another one."""

    def empty() -> Path:
        root = tmp_path_factory.mktemp('any') / 'data'
        os.chdir(root.parent)  # options may name folders
        (root / 'sub-01' / 'anat').mkdir(parents=True)
        description = {'Name': 'any', 'BIDSVersion': '1.10.0'}
        (root / 'dataset_description.json').write_text(json.dumps(description))
        return root

    here = Path.cwd()
    yield empty
    os.chdir(here)


def dry_run(root: Path, *more: object) -> int:
    words = [root, root.parent / 'out', 'participant', '-w', root.parent / 'work', '--dry-run']
    code = main([str(word) for word in (*words, *more)])
    assert code in ENDS
    return code


def put(root: Path, name: str, content: bytes = BYTES) -> Path:
    path = root / 'sub-01' / 'anat' / name
    path.write_bytes(content)
    return path


@examples
@given(st.lists(st.tuples(st.integers(0, HEADER - 1), st.integers(0, 255)), max_size=8))
def test_any_header(room, changes):
    content = bytearray(BYTES)
    for place, value in changes:
        content[place] = value
    root = room()
    path = put(root, 'sub-01_FLAIR.nii', bytes(content))
    code = dry_run(root)
    assert code == 0 or bytes(content) != BYTES
    try:
        check_image(reorient(read(path)))
    except Ssl2Error:
        pass


@examples
@given(st.integers(0, len(BYTES)), st.binary(max_size=64))
def test_any_file_that_ends_early(room, length, tail):
    root = room()
    path = put(root, 'sub-01_FLAIR.nii', BYTES[:length] + tail)
    dry_run(root)
    try:
        read(path)
    except Ssl2Error:
        pass


@examples
@given(sidecars, st.lists(sidecars, max_size=3))
def test_any_sidecar(room, first, others):
    root = room()
    contents = [first, *others]
    for name, content in zip(
        ('FLAIR', 'UNIT1', 'inv-1_MP2RAGE', 'inv-2_MP2RAGE'), contents, strict=False
    ):
        put(root, f'sub-01_{name}.nii')
        put(root, f'sub-01_{name}.json', json.dumps(content).encode())
    dry_run(root)


@examples
@given(st.one_of(st.binary(max_size=80), anything.map(lambda x: json.dumps(x).encode())))
def test_any_content_of_json(room, content):
    root = room()
    put(root, 'sub-01_FLAIR.nii')
    put(root, 'sub-01_FLAIR.json', content)
    dry_run(root)
    (root / 'dataset_description.json').write_bytes(content)
    dry_run(root)
    path = root.parent / 'filter.json'
    path.write_bytes(content)
    dry_run(root, '--bids-filter-file', path)


@examples
@given(st.lists(names, min_size=1, max_size=6, unique=True))
def test_any_names(room, files):
    root = room()
    for name in files:
        put(root, name, BYTES if '.nii' in name else b'{}')
    dry_run(root)
    try:
        find_labels(root)
    except Ssl2Error:
        pass


OPTIONS = sorted({a.dest for a in build_parser()._actions} - {'help', 'version', 'bids_exec_spec'})


@examples
@given(
    st.dictionaries(st.sampled_from(OPTIONS), st.one_of(numbers, st.text(max_size=6)), max_size=4)
)
def test_any_options_of_a_file(room, options):
    import tomli_w

    root = room()
    put(root, 'sub-01_FLAIR.nii')
    path = root.parent / 'options.toml'
    path.write_text(tomli_w.dumps({'options': options} | options), encoding='utf-8')
    dry_run(root, '--config-file', path)


@examples
@given(st.lists(st.text(string.printable, max_size=8), max_size=4))
def test_any_words(room, words):
    root = room()
    put(root, 'sub-01_FLAIR.nii')
    if {'--version', '--help', '-h', '--bids-exec-spec'} & set(words):
        return
    dry_run(root, *words)


@examples
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode())))
def test_any_table_and_transform(room, content):
    root = room()
    path = root / 'participants.tsv'
    path.write_bytes(content)
    put(root, 'sub-01_FLAIR.nii')
    dry_run(root)
    try:
        read_table(path)
    except Ssl2Error:
        pass
    try:
        from_itk(content.decode('latin-1'))
    except (ValueError, Ssl2Error):  # what its callers catch
        pass
