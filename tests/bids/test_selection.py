"""Which file is taken for each contrast."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssl2_bids.bids.selection import choose, matches

FULL = ('FLAIR', 'T1w', 'T2w', 'T2starw', 'UNIT1')
LONG = {'acq': 'acquisition', 'ce': 'ceagent', 'rec': 'reconstruction'}


def entries(folder: Path, *names: str, metadata: dict | None = None) -> list[dict]:
    """What the index gives for file names, with empty files behind them."""
    found = []
    for name in names:
        path = folder / f'sub-01_{name}.nii.gz'
        path.touch()
        *pairs, suffix = name.split('_')
        entities = dict(pair.split('-') for pair in pairs)
        entities = {LONG.get(k, k): v for k, v in entities.items()}
        given = (metadata or {}).get(name, {})
        found.append({**entities, 'suffix': suffix, 'path': path, 'metadata': given})
    return found


def chosen(files: list[dict], *, accepted: tuple[str, ...] = FULL, filters=None, wanted=None):
    return choose(files, filters or {}, accepted=accepted, wanted=wanted)


def names_of(choice) -> dict[str, list[str]]:
    return {
        pick.suffix: [p.name.removeprefix('sub-01_').removesuffix('.nii.gz') for p in pick.paths]
        for pick in choice.picked
    }


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['T1w', 'FLAIR'], {'T1w': ['T1w'], 'FLAIR': ['FLAIR']}),
        (['run-2_T1w', 'run-1_T1w'], {'T1w': ['run-1_T1w']}),
        (['ce-gad_T1w', 'T1w'], {'T1w': ['T1w']}),
        (['ce-gad_T1w'], {'T1w': ['ce-gad_T1w']}),
        (['part-mag_FLAIR', 'part-phase_FLAIR'], {'FLAIR': ['part-mag_FLAIR']}),
        (['UNIT1', 'T1w'], {'UNIT1': ['UNIT1']}),
        (['acq-x_UNIT1', 'rec-denoised_UNIT1'], {'UNIT1': ['rec-denoised_UNIT1']}),
        (['chunk-1_T1w', 'FLAIR'], {'FLAIR': ['FLAIR']}),
        (
            ['echo-1_T2starw', 'echo-2_T2starw', 'echo-1_MEGRE'],
            {'T2starw': ['echo-1_T2starw', 'echo-2_T2starw']},
        ),
        (['echo-2_MEGRE', 'echo-1_MEGRE'], {'T2starw': ['echo-1_MEGRE', 'echo-2_MEGRE']}),
        (['T2starw', 'echo-1_MEGRE'], {'T2starw': ['T2starw']}),
    ],
)
def test_one_image_per_contrast(tmp_path, names, expected):
    assert names_of(chosen(entries(tmp_path, *names))) == expected


def test_unit1_with_its_inversions_is_preferred_to_a_denoised_one(tmp_path):
    files = entries(tmp_path, 'UNIT1', 'rec-denoised_UNIT1', 'inv-1_MP2RAGE', 'inv-2_MP2RAGE')
    pick = chosen(files).picked[0]
    assert pick.paths[0].name == 'sub-01_UNIT1.nii.gz'
    assert [p.name for p in pick.inversions] == [
        'sub-01_inv-1_MP2RAGE.nii.gz',
        'sub-01_inv-2_MP2RAGE.nii.gz',
    ]


def test_inversions_of_another_acquisition_are_not_taken(tmp_path):
    files = entries(tmp_path, 'UNIT1', 'acq-b_inv-1_MP2RAGE', 'acq-b_inv-2_MP2RAGE')
    choice = chosen(files)
    assert choice.picked[0].inversions == ()
    assert any('background noise' in text for text in choice.warnings)


def test_late_echoes_are_left_out(tmp_path):
    times = {'echo-1_MEGRE': {'EchoTime': 0.02}, 'echo-2_MEGRE': {'EchoTime': 0.07}}
    choice = chosen(entries(tmp_path, *times, metadata=times))
    assert names_of(choice) == {'T2starw': ['echo-1_MEGRE']}
    assert dict(choice.dropped)[tmp_path / 'sub-01_echo-2_MEGRE.nii.gz'] == 'echo after 60 ms'


def test_a_contrast_that_the_model_does_not_take_is_dropped_with_the_reason(tmp_path):
    choice = chosen(entries(tmp_path, 'FLAIR', 'T2starw'), accepted=('FLAIR', 'T1w'))
    assert names_of(choice) == {'FLAIR': ['FLAIR']}
    assert 'does not take T2starw' in choice.dropped[0][1]


def test_unit1_takes_the_t1w_channel(tmp_path):
    assert names_of(chosen(entries(tmp_path, 'UNIT1'), accepted=('T1w',))) == {'UNIT1': ['UNIT1']}


def test_contrasts_option_narrows(tmp_path):
    choice = chosen(entries(tmp_path, 'UNIT1', 'T1w', 'FLAIR'), wanted=('t1w',))
    assert names_of(choice) == {'T1w': ['T1w']}


def test_a_dangling_link_is_absent(tmp_path):
    files = entries(tmp_path, 'FLAIR', 'T1w')
    files[1]['path'].unlink()
    files[1]['path'].symlink_to(tmp_path / 'annex' / 'nowhere')
    choice = chosen(files)
    assert names_of(choice) == {'FLAIR': ['FLAIR']}
    assert 'datalad get' in choice.dropped[0][1]


@pytest.mark.parametrize(
    ('pattern', 'expected'),
    [
        ({'acquisition': 'mprage'}, True),
        ({'acq': ['x', 'mprage']}, True),
        ({'acquisition': None}, False),
        ({'acquisition': '*'}, True),
        ({'reconstruction': None}, True),
        ({'run': 2}, True),
        ({'run': '2'}, False),
        ({'suffix': 'T2w'}, False),
    ],
)
def test_filter_dialect(pattern, expected):
    file = {'suffix': 'T1w', 'acquisition': 'mprage', 'run': '02'}
    assert matches(file, 't1w', pattern) is expected


def test_misnamed_unit1_through_the_filter(tmp_path):
    files = entries(tmp_path, 'acq-UNI_T1w', 'FLAIR')
    filters = {'unit1': {'suffix': 'T1w', 'acquisition': 'UNI'}}
    assert names_of(chosen(files, filters=filters))['UNIT1'] == ['acq-UNI_T1w']
