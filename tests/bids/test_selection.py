"""Which file is taken for each contrast."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import brain_image

from ssl2_bids.bids.filters import matches
from ssl2_bids.bids.selection import choose

SMALL = brain_image(12)
FULL = ('FLAIR', 'T1w', 'T2w', 'T2starw', 'UNIT1')
LONG = {'acq': 'acquisition', 'ce': 'ceagent', 'rec': 'reconstruction'}


def entries(folder: Path, *names: str, metadata: dict | None = None, image=None) -> list[dict]:
    """What the index gives for file names, with small images behind them."""
    found = []
    for name in names:
        path = folder / f'sub-01_{name}.nii.gz'
        (image or SMALL).to_filename(path)
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
        pick.contrast: [p.name.removeprefix('sub-01_').removesuffix('.nii.gz') for p in pick.paths]
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


def test_echoes_stored_twice_count_once_and_their_mean_has_no_echo_time(tmp_path):
    times = {f'echo-{n}_MEGRE': {'EchoTime': 0.005 * n} for n in (1, 2, 3)}
    files = entries(tmp_path, *times, metadata=times)
    for file in list(files):
        plain = file['path'].with_suffix('')
        SMALL.to_filename(plain)
        files.append({**file, 'path': plain})
    choice = chosen(files)
    (pick,) = choice.picked
    assert len(pick.paths) == 3
    assert pick.echo_times == (0.005, 0.01, 0.015)
    assert 'EchoTime' not in pick.metadata
    assert sum('is used' in why for _, why in choice.dropped) == 3


def test_of_several_runs_of_echoes_a_line_has_the_filter_for_another(tmp_path):
    names = [f'run-{run}_echo-{echo}_T2starw' for run in (1, 2) for echo in (1, 2)]
    files = entries(tmp_path, *names, 'echo-1_MEGRE')
    choice = chosen(files)
    (line,) = [text for text in choice.warnings if 'several' in text]
    assert 'used sub-01_run-1_echo-1_T2starw.nii.gz (first by name), left out sub-01_run-2' in line
    assert 'MEGRE' not in line
    recipe = json.loads(line.partition('--bids-filter-file with ')[2])
    assert names_of(chosen(files, filters=recipe)) == {'T2starw': names[2:]}
    (line,) = [text for text in chosen(files[1:]).warnings if 'several' in text]  # no first echo
    assert '(first by name)' in line
    recipe = json.loads(line.partition('--bids-filter-file with ')[2])
    assert len(names_of(chosen(files[1:], filters=recipe))['T2starw']) > 0
    assert 'echo' not in recipe['t2starw']


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
    assert choice.dropped[0][1] == 'its content is absent'
    assert choice.absent == (files[1]['path'],)


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


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['acq-INV1_T1w', 'acq-mprage_T1w'], 'acq-mprage_T1w'),
        (['acq-b1map_T1w', 'rec-T1map_T1w', 'acq-scout_T1w', 'acq-z_T1w'], 'acq-z_T1w'),
        (['acq-UNI_T1w', 'acq-z_T1w'], 'acq-z_T1w'),
        (['task-nodding_T1w', 'task-still_T1w'], 'task-still_T1w'),
        (['task-nodding_acq-PMCon_T1w', 'task-still_acq-PMCoff_T1w'], 'task-still_acq-PMCoff_T1w'),
        (['task-still_acq-PMCoff_T1w', 'task-still_acq-PMCon_T1w'], 'task-still_acq-PMCon_T1w'),
        (['acq-headmotion1_T1w', 'acq-standard_T1w'], 'acq-standard_T1w'),
        (['acq-headmotion1_T1w', 'acq-motioncorrected_T1w'], 'acq-motioncorrected_T1w'),
        (['run-10_T1w', 'run-2_T1w'], 'run-2_T1w'),
        (['space-MNIInfant+1_T1w', 'space-anat_desc-preproc_T1w'], 'space-anat_desc-preproc_T1w'),
        (['T1w', 'desc-preproc_T1w'], 'desc-preproc_T1w'),
        (['desc-brain_T1w', 'T1w'], 'T1w'),
        (['echo-1_T1w', 'rec-rms_T1w'], 'rec-rms_T1w'),
    ],
)
def test_a_stated_rule_goes_before_the_alphabet(tmp_path, names, expected):
    for order in (names, names[::-1]):
        assert names_of(chosen(entries(tmp_path, *order)))['T1w'] == [expected]


@pytest.mark.parametrize(
    'names',
    [['acq-INV2_T1w'], ['acq-mp2rageInv1_T1w'], ['inv-1_T1w'], ['acq-fieldmap_T1w'],
     ['acq-T1map_T1w'], ['space-MNI152NLin6Asym_T1w'], ['inv-2_UNIT1']],
)  # fmt: skip
def test_another_kind_of_image_by_its_name_is_never_the_t1w(tmp_path, names):
    choice = chosen(entries(tmp_path, *names))
    assert choice.picked == ()
    assert len(choice.dropped) == 1


def test_a_filter_takes_what_the_name_forbids_and_the_reason_is_its_recipe(tmp_path):
    files = entries(tmp_path, 'acq-INV2_T1w')
    reason = chosen(files).dropped[0][1]
    recipe = json.loads(reason.partition('--bids-filter-file with ')[2])
    assert names_of(chosen(files, filters=recipe)) == {'T1w': ['acq-INV2_T1w']}


def test_a_filter_on_something_else_does_not_take_what_the_name_forbids(tmp_path):
    files = entries(tmp_path, 'acq-INV1_run-1_T1w', 'acq-mprage_run-1_T1w', 'space-MNI_run-1_T1w')
    (pick,) = chosen(files, filters={'t1w': {'run': 1}}).picked
    assert pick.entities == {'acq': 'mprage', 'run': '1'}
    (pick,) = chosen(files, filters={'t1w': {'acquisition': '*'}}).picked
    assert pick.entities == {'acq': 'mprage', 'run': '1'}


def test_labels_that_only_look_like_inversions_or_maps_are_taken(tmp_path):
    for name in ('acq-invivo_T1w', 'acq-mapped3_T1w', 'acq-university_T1w', 'acq-b1corrected_T1w'):
        folder = tmp_path / name
        folder.mkdir()
        assert names_of(chosen(entries(folder, name))) == {'T1w': [name]}


def test_3d_then_finest_voxels(tmp_path):
    coarse, fine = brain_image(4), brain_image(3)
    slices = brain_image(3).slicer[:, :, ::3]
    files = [
        *entries(tmp_path, 'acq-a_T2w', image=slices),
        *entries(tmp_path, 'acq-b_T2w', image=coarse),
        *entries(tmp_path, 'acq-c_T2w', image=fine),
    ]
    assert names_of(chosen(files)) == {'T2w': ['acq-c_T2w']}
    assert names_of(chosen(files[:2])) == {'T2w': ['acq-b_T2w']}


def test_a_part_of_the_head_goes_last_however_fine(tmp_path):
    slab = brain_image(2).slicer[:, :, 30:50]
    files = [
        *entries(tmp_path, 'acq-hippocampus_T2w', image=slab),
        *entries(tmp_path, 'acq-whole_T2w', image=brain_image(4)),
    ]
    assert names_of(chosen(files)) == {'T2w': ['acq-whole_T2w']}


def test_one_line_names_the_choice_its_reason_and_how_to_take_another(tmp_path):
    files = entries(tmp_path, 'acq-b_run-2_T1w', 'acq-a_T1w')
    choice = chosen(files)
    (line,) = choice.warnings
    assert 'used sub-01_acq-a_T1w.nii.gz (first by name)' in line
    recipe = json.loads(line.partition('--bids-filter-file with ')[2])
    assert recipe == {'t1w': {'acquisition': 'b', 'run': 2}}
    assert names_of(chosen(files, filters=recipe)) == {'T1w': ['acq-b_run-2_T1w']}


@pytest.mark.parametrize(
    'names',
    [
        ['UNIT1', 'inv-1_MP2RAGE', 'inv-2_MP2RAGE'],
        ['acq-x_run-1_UNIT1', 'acq-x_run-01_inv-1_MP2RAGE', 'acq-x_run-01_inv-02_MP2RAGE'],
        ['acq-UNI_MP2RAGE', 'acq-INV1_MP2RAGE', 'acq-INV2_MP2RAGE'],
        ['acq-UNI_T1w', 'acq-INV1_T1w', 'acq-INV2_T1w'],
        ['acq-mp2rageUNI_T1w', 'acq-mp2rageINV1_T1w', 'acq-mp2rageINV2_T1w'],
        ['UNIT1', 'INV1', 'INV2'],
        ['acq-UNI_T1w', 'inv-1_MP2RAGE', 'inv-2_MP2RAGE'],
        ['UNIT1', 'inv-1_part-mag_MP2RAGE', 'inv-2_part-mag_MP2RAGE',
         'inv-1_part-phase_MP2RAGE', 'inv-2_part-phase_MP2RAGE'],
        ['UNIT1', 'inv-1_MP2RAGE', 'inv-2_echo-1_MP2RAGE', 'inv-2_echo-2_MP2RAGE'],
    ],
)  # fmt: skip
def test_parts_of_an_mp2rage_as_labs_name_them(tmp_path, names):
    files = entries(tmp_path, *names)
    for order in (files, files[::-1]):
        (pick,) = chosen(order).picked
        assert pick.contrast == 'UNIT1'
        found = [p.name.removeprefix('sub-01_').removesuffix('.nii.gz') for p in pick.inversions]
        assert [pick.paths[0].name, *found] == [f'sub-01_{names[0]}.nii.gz', *names[1:3]]


@pytest.mark.parametrize(
    ('names', 'words'),
    [
        (['UNIT1', 'inv-1_MP2RAGE'], 'INV2 is missing'),
        (['run-2_UNIT1', 'run-1_inv-1_MP2RAGE', 'run-1_inv-2_MP2RAGE'], 'differs'),
        (['inv-1_MP2RAGE', 'inv-2_MP2RAGE'], 'MP2RAGE without UNIT1'),
        (['acq-inversion_MP2RAGE', 'UNIT1'], 'inversion number is unclear'),
    ],
)
def test_parts_that_do_not_match_are_named_with_the_reason(tmp_path, names, words):
    assert any(words in text for text in chosen(entries(tmp_path, *names)).warnings)


@pytest.mark.parametrize(
    'names',
    [
        ['run-2_UNIT1', 'run-1_inv-1_MP2RAGE', 'run-1_inv-2_MP2RAGE'],
        ['acq-x_UNIT1', 'acq-INV1_T1w', 'acq-INV2_T1w', 'acq-INV3_T1w'],
    ],
)
def test_the_recipe_joins_parts_whose_names_differ(tmp_path, names):
    files = entries(tmp_path, *names)
    choice = chosen(files)
    assert choice.picked[0].inversions == ()
    reasons = choice.warnings[0].partition('--bids-filter-file with ')[2]
    recipe = json.JSONDecoder().raw_decode(reasons)[0]
    assert len(chosen(files, filters=recipe).picked[0].inversions) == 2


def test_a_uniform_image_alone_is_taken_as_t1w_with_the_recipe(tmp_path):
    files = entries(tmp_path, 'acq-UNI_T1w')
    choice = chosen(files)
    assert names_of(choice) == {'T1w': ['acq-UNI_T1w']}
    recipe = json.loads(choice.warnings[0].partition('--bids-filter-file with ')[2])
    assert names_of(chosen(files, filters=recipe)) == {'UNIT1': ['acq-UNI_T1w']}


def test_maps_and_unknown_names_of_an_mp2rage_are_mentioned(tmp_path):
    choice = chosen(entries(tmp_path, 'T1w', 'T1map', 'TB1map', 'MP2RAGE', 'MPRAGE'))
    told = {path.name.split('_')[-1]: why for path, why in choice.dropped}
    assert 'T1 map' in told['T1map.nii.gz']
    assert 'B1+ map' in told['TB1map.nii.gz']
    assert '{"unit1": {"suffix": "MP2RAGE"}}' in told['MP2RAGE.nii.gz']
    assert '{"t1w": {"suffix": "MPRAGE"}}' in told['MPRAGE.nii.gz']


COMPLEX = tuple(f'inv-{n}_part-{part}_MP2RAGE' for n in (1, 2) for part in ('mag', 'phase'))
SETTINGS = {
    'RepetitionTimePreparation': 6,
    'RepetitionTimeExcitation': 0.0068,
    'NumberShots': [80, 80],
}
FIRST = SETTINGS | {'InversionTime': 0.8, 'FlipAngle': 7}
SECOND = SETTINGS | {'InversionTime': 2.7, 'FlipAngle': 5}


def parts_of(suffix: str) -> list[str]:
    """Names of the real and imaginary parts of two inversions."""
    return [f'inv-{n}_part-{part}_{suffix}' for n in (1, 2) for part in ('real', 'imag')]


@pytest.mark.parametrize('more', [[], parts_of('MP2RAGE')])
def test_unit1_is_computed_from_magnitudes_and_phases(tmp_path, more):
    metadata = {COMPLEX[0]: FIRST, COMPLEX[2]: SECOND}
    choice = chosen(entries(tmp_path, *more, *COMPLEX, 'T1w', metadata=metadata))
    (pick,) = choice.picked
    reasons = dict(choice.dropped)
    assert all(reasons[tmp_path / f'sub-01_{n}.nii.gz'].startswith('part-') for n in more)
    assert pick.contrast == 'UNIT1'
    assert pick.paths[0].name == 'sub-01_inv-2_part-mag_MP2RAGE.nii.gz'
    roles = {c.role: c.path.name for c in pick.companions}
    assert roles == {
        'INV1': 'sub-01_inv-1_part-mag_MP2RAGE.nii.gz',
        'INV1 phase': 'sub-01_inv-1_part-phase_MP2RAGE.nii.gz',
        'INV2 phase': 'sub-01_inv-2_part-phase_MP2RAGE.nii.gz',
    }
    assert 'InversionTime' not in pick.metadata  # that of INV2 is not that of UNIT1
    assert pick.companions[-1].metadata['InversionTime'] == 2.7


def test_of_several_runs_with_phases_a_line_has_the_filter_for_another(tmp_path):
    files = entries(tmp_path, *(f'run-{run}_{name}' for run in (1, 2) for name in COMPLEX))
    (line,) = [text for text in chosen(files).warnings if 'several' in text]
    assert line.startswith('several MP2RAGE: used sub-01_run-1_inv-2_part-mag_MP2RAGE.nii.gz')
    recipe = json.loads(line.partition('--bids-filter-file with ')[2])
    (name,) = names_of(chosen(files, filters=recipe))['UNIT1']
    assert name == 'run-2_inv-2_part-mag_MP2RAGE'
    files[0]['path'].write_bytes(b'')  # of run-1
    assert not [text for text in chosen(files).warnings if 'several' in text]


@pytest.mark.parametrize(
    ('one', 'two', 'expected'),
    [
        ('acq-INV1_run-2', 'acq-INV2_run-2', {'run': '2'}),
        ('acq-highresInv1', 'acq-highresInv2', {'acq': 'highres'}),
        ('acq-MP2RAGE_inv-1', 'acq-MP2RAGE_inv-2', {'acq': 'MP2RAGE'}),
    ],
)
def test_a_computed_unit1_is_not_named_after_inv2(tmp_path, one, two, expected):
    names = [f'{name}_part-{part}_MP2RAGE' for name in (one, two) for part in ('mag', 'phase')]
    (pick,) = chosen(entries(tmp_path, *names)).picked
    assert pick.is_computed
    assert pick.entities == expected


def test_the_unit1_of_the_scanner_is_preferred_to_a_computed_one(tmp_path):
    files = entries(tmp_path, *parts_of('MP2RAGE'), *COMPLEX, 'UNIT1')
    (pick,) = chosen(files).picked
    assert [p.name for p in pick.inversions] == [f'sub-01_{n}.nii.gz' for n in COMPLEX[::2]]
    assert pick.paths[0].name == 'sub-01_UNIT1.nii.gz'
    assert [c.role for c in pick.companions] == ['INV1', 'INV2']


def test_magnitudes_alone_are_ambiguous_and_another_image_is_taken(tmp_path):
    choice = chosen(entries(tmp_path, 'inv-1_MP2RAGE', 'inv-2_MP2RAGE', 'FLAIR'))
    assert names_of(choice) == {'FLAIR': ['FLAIR']}
    assert any('do not have the sign of INV1' in text for text in choice.warnings)
    assert any('(part-phase) of INV1 and INV2' in text for text in choice.warnings)


@pytest.mark.parametrize(
    ('left', 'text'),
    [
        (3, 'UNIT1 cannot be computed without INV1'),
        (2, 'add the phase (part-phase) of INV2'),
        (1, 'UNIT1 cannot be computed without INV2'),
    ],
)
def test_what_lacks_of_the_four_images_is_named(tmp_path, left, text):
    files = {3: COMPLEX[2:], 2: COMPLEX[:3], 1: COMPLEX[:2]}[left]
    choice = chosen(entries(tmp_path, *files, 'FLAIR'))
    assert any(text in warning for warning in choice.warnings), choice.warnings


def fields(tmp_path, *names, **more):
    """MP2RAGE with its settings, and other files."""
    metadata = {'inv-1_MP2RAGE': FIRST, 'inv-2_MP2RAGE': SECOND, **more.pop('metadata', {})}
    return entries(tmp_path, 'UNIT1', 'inv-1_MP2RAGE', 'inv-2_MP2RAGE', *names, metadata=metadata)


def test_a_b1_map_accompanies_an_mp2rage_of_known_settings(tmp_path):
    files = fields(tmp_path, 'TB1map', 'acq-b_TB1map')
    choice = chosen(files)
    assert [c.role for c in choice.picked[0].companions] == ['INV1', 'INV2', 'TB1map']
    (reason,) = [why for path, why in choice.dropped if path.name.endswith('acq-b_TB1map.nii.gz')]
    assert 'sub-01_TB1map.nii.gz has priority' in reason


@pytest.mark.parametrize(
    ('left', 'words'),
    [
        (('run-1', 'run-2'), 'sub-01_run-1_UNIT1.nii.gz has priority: first by name'),
        (('run-2',), 'sub-01_run-2_UNIT1.nii.gz has priority: with INV1 and INV2'),
    ],
)
def test_of_several_unit1_the_reason_is_the_true_one(tmp_path, left, words):
    inversions = [f'{run}_inv-{i}_MP2RAGE' for run in left for i in (1, 2)]
    choice = chosen(entries(tmp_path, 'run-1_UNIT1', 'run-2_UNIT1', *inversions, 'FLAIR'))
    reasons = dict(choice.dropped)
    (reason,) = [why for path, why in reasons.items() if path.name.endswith('UNIT1.nii.gz')]
    assert reason == words
    (line,) = [text for text in choice.warnings if 'several UNIT1' in text]
    recipe = json.loads(line.partition('--bids-filter-file with ')[2])
    assert recipe == {'unit1': {'run': 1 if left == ('run-2',) else 2}}


def test_of_several_echoes_of_a_t1w_the_first_is_taken(tmp_path):
    choice = chosen(entries(tmp_path, 'echo-1_T1w', 'echo-2_T1w'))
    assert any('(the first echo)' in text for text in choice.warnings)


def test_sa2rage_needs_its_phases(tmp_path):
    one, two = ('inv-1_TB1SRGE', 'inv-2_TB1SRGE')
    settings = {
        'RepetitionTimePreparation': 2.4,
        'RepetitionTimeExcitation': 0.0029,
        'NumberShots': [10, 22],
    }
    metadata = {
        one: settings | {'InversionTime': 0.058, 'FlipAngle': 4},
        two: settings | {'InversionTime': 1.8, 'FlipAngle': 11},
    }
    alone = chosen(fields(tmp_path, one, two, metadata=metadata))
    assert [c.role for c in alone.picked[0].companions] == ['INV1', 'INV2']
    assert any('TB1SRGE with its phases' in why for _, why in alone.dropped)
    phases = ('inv-1_part-phase_TB1SRGE', 'inv-2_part-phase_TB1SRGE')
    whole = chosen(fields(tmp_path, one, two, *phases, metadata=metadata))
    roles = [c.role for c in whole.picked[0].companions]
    assert roles[2:] == ['SA2RAGE 1', 'SA2RAGE 2', 'SA2RAGE 1 phase', 'SA2RAGE 2 phase']
    magnitudes = [name.replace('TB1', 'part-mag_TB1') for name in (one, two)]
    parts = (*magnitudes, *phases)
    named = dict(zip(magnitudes, metadata.values(), strict=True))
    more = chosen(fields(tmp_path, *parts_of('TB1SRGE'), *parts, metadata=named))
    names = [c.path.name for c in more.picked[0].companions[2:]]
    assert names == [f'sub-01_{name}.nii.gz' for name in parts]
    less = {name: {k: v for k, v in own.items() if k != 'NumberShots'}
            for name, own in metadata.items()}  # fmt: skip
    unknown = chosen(fields(tmp_path, one, two, *phases, metadata=less))
    reasons = {why for path, why in unknown.dropped if 'TB1SRGE' in path.name}
    assert reasons == {'the settings of SA2RAGE are not known: NumberShots missing'}


def test_without_its_settings_the_t1_map_of_the_scanner_is_taken_and_the_key_named(tmp_path):
    bare = {k: v for k, v in FIRST.items() if k != 'NumberShots'}
    metadata = {'inv-1_MP2RAGE': bare, 'inv-2_MP2RAGE': {**bare, 'InversionTime': 2.7}}
    choice = chosen(fields(tmp_path, 'T1map', metadata=metadata))
    assert [c.role for c in choice.picked[0].companions] == ['INV1', 'INV2', 'T1map']
    assert 'no T1 map can be computed from the MP2RAGE: NumberShots missing' in choice.warnings


def test_the_t1_map_of_the_scanner_needs_no_inversions(tmp_path):
    (scan,) = chosen(entries(tmp_path, 'UNIT1', 'T1map')).picked
    assert [c.role for c in scan.companions] == ['T1map']
    assert scan.maps == {'T1map': 'scanner'}
    assert not scan.has_inversions


SECOND_RUN = {'unit1': {'run': 2}}


def test_maps_of_the_run_of_unit1_are_taken(tmp_path):
    images = ('UNIT1', 'inv-1_MP2RAGE', 'inv-2_MP2RAGE', 'TB1map')
    names = [f'run-{run}_{image}' for run in (1, 2) for image in images]
    metadata = {name: FIRST for name in names if 'inv-1' in name}
    metadata |= {name: SECOND for name in names if 'inv-2' in name}
    choice = chosen(entries(tmp_path, *names, metadata=metadata), filters=SECOND_RUN)
    assert [c.path.name for c in choice.picked[0].companions] == [
        f'sub-01_{name}.nii.gz' for name in names[-3:]
    ]
    (why,) = [why for path, why in choice.dropped if path.name == 'sub-01_run-1_TB1map.nii.gz']
    assert 'has priority: named more like sub-01_run-2_UNIT1.nii.gz' in why
    assert not any('belong together' in text for text in choice.warnings)
    alone = chosen(entries(tmp_path, *names[:-1], metadata=metadata), filters=SECOND_RUN)
    assert any(
        'run-1_TB1map.nii.gz is used with sub-01_run-2_UNIT1.nii.gz' in text
        for text in alone.warnings
    )


def test_a_sa2rage_of_the_run_of_unit1_is_taken_whole(tmp_path):
    images = ('UNIT1', 'inv-1_MP2RAGE', 'inv-2_MP2RAGE', 'inv-1_TB1SRGE', 'inv-2_TB1SRGE',
              'inv-1_part-phase_TB1SRGE', 'inv-2_part-phase_TB1SRGE')  # fmt: skip
    names = [f'run-{run}_{image}' for run in (1, 2) for image in images]
    settings = {
        'RepetitionTimePreparation': 2.4,
        'RepetitionTimeExcitation': 0.0029,
        'NumberShots': [10, 22],
    }
    of_part = {
        'inv-1_MP2RAGE': FIRST,
        'inv-2_MP2RAGE': SECOND,
        'inv-1_TB1SRGE': settings | {'InversionTime': 0.058, 'FlipAngle': 4},
        'inv-2_TB1SRGE': settings | {'InversionTime': 1.8, 'FlipAngle': 11},
    }
    metadata = {f'run-{run}_{part}': of_part[part] for run in (1, 2) for part in of_part}
    choice = chosen(entries(tmp_path, *names, metadata=metadata), filters=SECOND_RUN)
    found = [c.path.name for c in choice.picked[0].companions]
    assert found == [f'sub-01_run-2_{image}.nii.gz' for image in images[1:]]


def test_the_t1_map_of_the_acquisition_of_unit1_is_taken(tmp_path):
    names = ('acq-DESPOT_T1map', 'acq-highres_T1map', 'acq-highresUNI_UNIT1')
    choice = chosen(entries(tmp_path, *names))
    (scan,) = choice.picked
    assert [c.path.name for c in scan.companions] == ['sub-01_acq-highres_T1map.nii.gz']
    assert not any('belong together' in text for text in choice.warnings)
    (tmp_path / 'sub-01_acq-highres_T1map.nii.gz').unlink()
    other = chosen(entries(tmp_path, names[0], names[2]))
    assert any('its name differs in acq' in text for text in other.warnings)
    for pair in (('acq-T1map_T1map', 'acq-UNI_UNIT1'), ('T1map', 'acq-highres_UNIT1')):
        (tmp_path / pair[1]).mkdir()
        plain = chosen(entries(tmp_path / pair[1], *pair))
        assert plain.picked[0].companions
        assert not any('belong together' in text for text in plain.warnings)


def test_a_companion_that_cannot_be_used_costs_itself(tmp_path):
    files = fields(tmp_path, 'TB1map')
    files[-1]['path'].write_bytes(b'no image')
    choice = chosen(files)
    assert [c.role for c in choice.picked[0].companions] == ['INV1', 'INV2']
    assert any('TB1map.nii.gz was left out' in text for text in choice.warnings)


COLOUR = nib.Nifti1Image(
    np.zeros((20, 20, 20), [('R', 'u1'), ('G', 'u1'), ('B', 'u1')]), np.diag([8.0, 8, 8, 1])
)
SERIES = nib.Nifti1Image(np.zeros((20, 20, 20, 3), np.float32), np.diag([8.0, 8, 8, 1]))


@pytest.mark.parametrize(('bad', 'words'), [(COLOUR, 'colour'), (SERIES, '4 axes')])
def test_an_image_that_cannot_be_used_costs_itself(tmp_path, bad, words):
    good = entries(tmp_path, 'T1w', 'run-2_T2w', 'FLAIR')
    choice = chosen([*good, *entries(tmp_path, 'T2w', 'T2starw', image=bad)])
    assert names_of(choice) == {'T1w': ['T1w'], 'T2w': ['run-2_T2w'], 'FLAIR': ['FLAIR']}
    assert len([text for text in choice.warnings if words in text]) == 2


def test_a_file_shorter_than_by_its_header_is_seen_before_the_run(tmp_path):
    files = entries(tmp_path, 'T1w')
    path = files[0]['path'] = tmp_path / 'sub-01_T1w.nii'
    path.write_bytes(SMALL.to_bytes())
    assert chosen(files).problems == ()
    path.write_bytes(SMALL.to_bytes()[:-1])
    assert 'truncated' in chosen(files).problems[0].message


def test_the_t1w_takes_the_place_of_an_unusable_unit1(tmp_path):
    files = entries(tmp_path, 'UNIT1', 'T1w')
    files[0]['path'].write_bytes(b'')
    choice = chosen(files)
    assert names_of(choice) == {'T1w': ['T1w']}
    assert any('UNIT1' in text and 'empty' in text for text in choice.warnings)


def test_an_inversion_or_echo_on_another_grid_costs_itself(tmp_path):
    other = brain_image(12, offset=9.0)
    files = entries(tmp_path, 'UNIT1', 'inv-1_MP2RAGE', 'echo-1_T2starw', 'echo-2_T2starw')
    files += entries(tmp_path, 'inv-2_MP2RAGE', 'echo-3_T2starw', image=other)
    choice = chosen(files)
    assert [pick.inversions for pick in choice.picked] == [(), ()]
    assert names_of(choice)['T2starw'] == ['echo-1_T2starw', 'echo-2_T2starw']
    assert any('inv-2_MP2RAGE' in t and 'grid' in t for t in choice.warnings)
    assert any('echo-3' in t and 'grid' in t for t in choice.warnings)


def test_sform_and_qform_apart_are_mentioned_with_the_distance(tmp_path):
    image = brain_image(12)
    moved = image.affine.copy()
    moved[0, 3] += 5
    image.set_qform(moved, 1)
    choice = chosen(entries(tmp_path, 'T1w', image=image))
    assert any('differ by 5.0 mm' in text for text in choice.warnings)


def test_times_in_milliseconds_cost_the_map_of_t1_and_are_named(tmp_path):
    times = ('InversionTime', 'RepetitionTimePreparation', 'RepetitionTimeExcitation')
    metadata = {
        name: one | {key: one[key] * 1000 for key in times if key in one}
        for name, one in (('inv-1_MP2RAGE', FIRST), ('inv-2_MP2RAGE', SECOND))
    }
    choice = chosen(fields(tmp_path, 'TB1map', metadata=metadata))
    (scan,) = choice.picked
    assert scan.contrast == 'UNIT1'
    assert scan.maps == {}
    assert [c.role for c in scan.companions] == ['INV1', 'INV2']
    (text,) = [w for w in choice.warnings if 'no T1 map can be computed' in w]
    for key in times:
        assert f'sub-01_inv-2_MP2RAGE.nii.gz: {key} is ' in text
    assert 'expected is a number in seconds' in text


def test_a_sa2rage_in_milliseconds_costs_the_map_of_b1(tmp_path):
    names = ['inv-1_TB1SRGE', 'inv-2_TB1SRGE', 'inv-1_part-phase_TB1SRGE',
             'inv-2_part-phase_TB1SRGE']  # fmt: skip
    settings = {
        'RepetitionTimePreparation': 2400, 'RepetitionTimeExcitation': 2.9, 'NumberShots': [10, 22]
    }  # fmt: skip
    metadata = {
        names[0]: settings | {'InversionTime': 58, 'FlipAngle': 4},
        names[1]: settings | {'InversionTime': 1800, 'FlipAngle': 11},
    }
    choice = chosen(fields(tmp_path, *names, metadata=metadata))
    assert choice.picked[0].maps == {'T1map': 'uncorrected'}
    assert any(
        w.startswith('no B1+ map can be computed from SA2RAGE: sub-01_inv-1_TB1SRGE.nii.gz: ')
        for w in choice.warnings
    )


@pytest.mark.parametrize(
    ('times', 'text'),
    [
        ((5, 10, 15), 'sub-01_echo-1_T2starw.nii.gz: EchoTime is 5, expected is a number in sec'),
        ((0.005, -0.01, 0.015), 'sub-01_echo-2_T2starw.nii.gz: EchoTime is -0.01, '),
        ((0.005, '0.01', 0.015), "sub-01_echo-2_T2starw.nii.gz: EchoTime is '0.01', "),
        ((0.005, 0.015, 0.01), 'sub-01_echo-3_T2starw.nii.gz: EchoTime is 0.01 s, expected is mo'),
        ((0.005, 0.005, 0.005), 'sub-01_echo-2_T2starw.nii.gz: EchoTime is 0.005 s, expected is'),
    ],
)
def test_echo_times_that_cannot_be_seconds_cost_the_map_of_t2star(tmp_path, times, text):
    names = [f'echo-{number}_T2starw' for number in (1, 2, 3)]
    metadata = {name: {'EchoTime': time} for name, time in zip(names, times, strict=True)}
    choice = chosen(entries(tmp_path, *names, metadata=metadata))
    assert names_of(choice) == {'T2starw': names}
    assert choice.picked[0].maps == {}
    assert any(f'no T2* map can be computed: {text}' in w for w in choice.warnings)


@pytest.mark.parametrize(('own', 'expected'), [({}, 7), ({'MagneticFieldStrength': 3}, 3)])
def test_a_unit1_without_a_field_strength_has_that_of_its_inversions(tmp_path, own, expected):
    strong = {'MagneticFieldStrength': 7}
    metadata = {'UNIT1': own, 'inv-1_MP2RAGE': FIRST | strong, 'inv-2_MP2RAGE': SECOND | strong}
    scan = chosen(fields(tmp_path, metadata=metadata)).picked[0]
    assert scan.contrast == 'UNIT1'
    assert scan.field_strength == expected


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('MagneticFieldStrength', 30000),
        ('MagneticFieldStrength', 0),
        ('MagneticFieldStrength', True),
        ('MagneticFieldStrength', float('nan')),
        ('ImagingFrequency', 123.2e6),
        ('ImagingFrequency', '123.2'),
    ],
)
def test_a_field_that_cannot_be_meant_is_named_and_not_used(tmp_path, key, value):
    choice = chosen(entries(tmp_path, 'FLAIR', metadata={'FLAIR': {key: value}}))
    assert choice.picked[0].field_strength is None
    (text,) = choice.warnings
    assert text.startswith(f'sub-01_FLAIR.nii.gz: {key} is ')
    assert text.endswith('; the key is not used')
