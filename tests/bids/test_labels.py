import json
import logging
import re
from pathlib import Path

import pytest

from ssl2_bids.bids.label_ranking import alike, ranked, session_of
from ssl2_bids.bids.labels import find_labels, find_masks, look_for_labels
from ssl2_bids.errors import NoInputError

THREE_VALUES = 'index\tname\tmapping\n0\tnot annotated\tn/a\n1\tlesion\t7\n2\tnot lesion\tn/a\n'


def put(folder: Path, name: str, content: str = '') -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding='utf-8')
    return path


def only(folder: Path):
    labels = find_labels(folder)
    assert len(labels) == 1
    return labels[0]


@pytest.mark.parametrize(
    ('name', 'pattern', 'facts'),
    [
        ('sub-r001s001_ses-1_space-MNI152NLin2009aSym_label-L_desc-T1lesion_mask.nii.gz', 1,
         {'session': '1', 'space': 'MNI152NLin2009aSym', 'desc': 'T1lesion'}),
        ('sub-01_space-FLAIR_label-lesion_mask.nii.gz', 1, {'space': 'FLAIR', 'desc': None}),
        ('sub-01_label-L_mask.nii', 1, {'session': None, 'space': None}),
        ('sub-01_space-orig_res-1_label-L_mask.nii.gz', 1, {'space': 'orig'}),
        ('sub-01_space-MNIPediatricAsym_cohort-1_res-2_label-L_mask.nii.gz', 1,
         {'space': 'MNIPediatricAsym', 'entities': ''}),
        ('sub-01_acq-space_run-2_label-L_mask.nii.gz', 1, {'entities': '_acq-space_run-2'}),
        ('sub-jörg_label-L_mask.nii.gz', 1, {'subject': 'jörg'}),
        ('sub-01_space-TRACE_desc-lesion_mask.nii.gz', 2, {'space': 'TRACE'}),
        ('sub-01_desc-manual_mask.nii.gz', 2, {'desc': 'manual'}),
        ('sub-M2001_ses-1076_acq-tfl3_run-4_T2w_desc-lesion_mask.nii.gz', 3,
         {'kept_suffix': 'T2w', 'session': '1076', 'entities': '_acq-tfl3_run-4'}),
        ('sub-01_UNIT1_label-lesion_seg.nii.gz', 4, {'kept_suffix': 'UNIT1', 'desc': None}),
        ('sub-01_ses-M0_PSIR_lesion-manual.nii.gz', 4, {'kept_suffix': 'PSIR', 'desc': None}),
        ('sub-01_UNIT1_lesion-manual2.nii.gz', 4, {'desc': '2'}),
        ('sub-01_desc-rater3_label-lesion_seg.nii.gz', 4, {'desc': 'rater3'}),
        ('sub-01_T1w_label-lesion_roi.nii.gz', 5, {'kept_suffix': 'T1w'}),
        ('sub-01_label-lesion_roi.nii.gz', 5, {'kept_suffix': None}),
    ],
)  # fmt: skip
def test_names_met_in_public_data(tmp_path, name, pattern, facts):
    path = put(tmp_path / 'my labels', f'{name.split("_")[0]}/anat/{name}')
    label = only(tmp_path / 'my labels')
    assert (label.path, label.pattern) == (path, pattern)
    assert {key: getattr(label, key) for key in facts} == facts


@pytest.mark.parametrize(
    'name',
    [
        'sub-01_desc-brain_mask.nii.gz',
        'sub-01_label-L_desc-change_mask.nii.gz',
        'sub-01_label-L_desc-annotated_mask.nii.gz',
        'sub-01_desc-annotated_mask.nii.gz',
        'sub-01_space-T1w_label-GM_mask.nii.gz',
        'sub-01_label-L_probseg.nii.gz',
        'sub-01_FLAIR.nii.gz',
        'sub-01_label-L_mask.nii.gz.txt',
        '._sub-01_label-L_mask.nii.gz',
        'sub-01_seg-lesions_dseg.nii.gz',  # without a table
    ],
)
def test_other_files_are_no_labels(tmp_path, name):
    put(tmp_path, f'sub-01/anat/{name}')
    assert find_labels(tmp_path) == []


def test_dseg_needs_a_table_with_a_lesion(tmp_path):
    put(tmp_path, 'sub-01/anat/sub-01_seg-lesions_desc-manual_dseg.nii.gz')
    table = put(
        tmp_path, 'sub-01/anat/sub-01_seg-lesions_desc-manual_dseg.tsv', 'index\tname\n1\tGM\n'
    )
    assert find_labels(tmp_path) == []
    table.write_text(THREE_VALUES)
    label = only(tmp_path)
    assert (label.pattern, label.desc) == (6, 'manual')
    assert [row['name'] for row in label.dseg_table] == ['not annotated', 'lesion', 'not lesion']
    table.write_text('value\tname\n1\tlesion\n')
    (entry,) = look_for_labels(tmp_path).left_out
    assert re.search('sub-01_seg-lesions_desc-manual_dseg.tsv.*"index"', entry[1])


def test_a_dseg_without_its_table_names_the_table(tmp_path):
    name = 'sub-01_space-FLAIR_seg-lesions_dseg'
    image = put(tmp_path, f'sub-01/anat/{name}.nii.gz')
    found = look_for_labels(tmp_path)
    assert (found.labels, found.unknown) == ((), ())
    ((path, reason),) = found.left_out
    assert path == image
    assert f'its table {name}.tsv is missing' in reason
    assert 'Add the table, or give a mask of 0 and 1 a name that ends in _label-' in reason
    sidecar = put(tmp_path, f'sub-01/anat/{name}.json', '{"Model": {"Sha256": "x"}}')
    assert look_for_labels(tmp_path).left_out == ()  # instances of this App, in another folder
    sidecar.write_text('{"AnnotationEncoding": {"1": "lesion"}}')
    assert only(tmp_path).path == image


def test_a_dseg_of_tissues_without_a_table_is_no_label(tmp_path, caplog):
    """It is among names that are not recognised: one line, and none on a missing table."""
    names = [f'sub-01_seg-{one}_dseg.nii.gz' for one in ('hypothalamus_desc-x', 'synthseg')]
    for name in names:
        put(tmp_path / 'tissues', f'sub-01/anat/{name}')
        put(tmp_path / 'both', f'sub-01/anat/{name}')
    mask = put(tmp_path / 'both', 'sub-01/anat/sub-01_label-lesion_mask.nii.gz')
    for folder, labels in (('tissues', []), ('both', [mask])):
        caplog.clear()
        found = look_for_labels(tmp_path / folder)
        assert found.left_out == ()
        assert [path.name for path in found.unknown] == names
        assert [label.path for label in find_labels(tmp_path / folder)] == labels
        (line,) = caplog.messages
        assert line.startswith('file names that are not recognised as lesion masks: ' + names[0])


def test_dsegs_without_their_tables_share_a_line(tmp_path, caplog):
    for subject, seg in (('01', 'lesions'), ('02', 'lesions'), ('01', 'WMH'), ('01', 'ms')):
        put(tmp_path, f'sub-{subject}/anat/sub-{subject}_seg-{seg}_dseg.nii.gz')
    put(tmp_path, 'sub-03/anat/sub-04_label-L_mask.nii.gz')
    assert find_labels(tmp_path) == []
    table = 'label left out: the meaning of its values is unknown: its table '
    assert [line.split(' is missing')[0] for line in caplog.messages[1:]] == [
        f'{tmp_path}: sub-01_seg-WMH_dseg.nii.gz: {table}sub-01_seg-WMH_dseg.tsv',
        f'{tmp_path}: 2 files sub-*_seg-lesions_dseg.nii.gz: {table}sub-*_seg-lesions_dseg.tsv',
        f'{tmp_path}: sub-01_seg-ms_dseg.nii.gz: {table}sub-01_seg-ms_dseg.tsv',
    ]


def test_dseg_inherits_its_table_from_the_root(tmp_path):
    put(tmp_path, 'sub-01/anat/sub-01_seg-lesions_dseg.nii.gz')
    put(tmp_path, 'seg-lesions_dseg.tsv', THREE_VALUES)
    put(tmp_path, 'seg-tissue_dseg.tsv', 'index\tname\n1\tGM\n')
    assert len(only(tmp_path).dseg_table) == 3


def test_first_pattern_wins_within_a_session(tmp_path):
    put(tmp_path, 'sub-01/ses-1/anat/sub-01_ses-1_T1w_label-lesion_roi.nii.gz')
    put(tmp_path, 'sub-01/ses-1/anat/sub-01_ses-1_desc-lesion_mask.nii.gz')
    put(tmp_path, 'sub-01/ses-2/anat/sub-01_ses-2_T1w_label-lesion_roi.nii.gz')
    assert [(x.session, x.pattern) for x in find_labels(tmp_path)] == [('1', 2), ('2', 5)]


def test_three_valued_file_goes_before_a_mask_but_instances_do_not(tmp_path):
    put(tmp_path, 'sub-01/anat/sub-01_label-L_mask.nii.gz')
    put(tmp_path, 'sub-01/anat/sub-01_seg-lesions_dseg.nii.gz')
    table = put(tmp_path, 'sub-01/anat/sub-01_seg-lesions_dseg.tsv', 'index\tname\n1\tlesion\n')
    assert only(tmp_path).pattern == 1
    table.write_text(THREE_VALUES)
    assert only(tmp_path).pattern == 6


def test_several_raters_are_all_returned_and_share_their_image(tmp_path):
    for rater in (2, 1):
        put(tmp_path, f'sub-01/anat/sub-01_space-FLAIR_label-L_desc-rater{rater}_mask.nii.gz')
    put(tmp_path, 'sub-01/anat/sub-01_space-T1w_label-L_mask.nii.gz')
    labels = find_labels(tmp_path)
    assert [x.desc for x in labels] == ['rater1', 'rater2', None]
    assert labels[0].image == labels[1].image != labels[2].image


def test_compressed_and_plain_twin_are_one_label(tmp_path):
    put(tmp_path, 'sub-01/anat/sub-01_label-L_mask.nii')
    put(tmp_path, 'sub-01/anat/sub-01_label-L_mask.nii.gz')
    assert only(tmp_path).path.suffix == '.gz'


def test_participants_are_selected_and_sorted(tmp_path):
    for subject in ('10', '2', '1'):
        put(tmp_path, f'sub-{subject}/anat/sub-{subject}_label-L_mask.nii.gz')
    assert [x.subject for x in find_labels(tmp_path)] == ['1', '10', '2']
    assert [x.subject for x in find_labels(tmp_path, participants=['2'])] == ['2']


def test_labels_in_raw_anat_but_not_in_its_derivatives(tmp_path):
    put(tmp_path, 'sub-01/anat/sub-01_T1w_label-lesion_roi.nii.gz')
    put(tmp_path, 'derivatives/other/sub-02/anat/sub-02_label-L_mask.nii.gz')
    assert only(tmp_path).subject == '01'


def test_sidecar_beside_the_file_and_inherited_from_the_root(tmp_path):
    put(tmp_path, 'sub-01/anat/sub-01_label-L_mask.nii.gz')
    put(tmp_path, 'mask.json', json.dumps({'Manual': True, 'Rater': ['A'], 'Type': 'ROI'}))
    put(tmp_path, 'label-L_mask.json', json.dumps({'Type': 'Lesion', 'Rater': ['B']}))
    put(tmp_path, 'label-GM_mask.json', json.dumps({'Type': 'Tissue'}))
    put(tmp_path, 'dataset_description.json', json.dumps({'Name': 'x'}))
    put(tmp_path, 'sub-01/anat/sub-01_label-L_mask.json', '\ufeff' + json.dumps({'Rater': ['C']}))
    assert only(tmp_path).sidecar == {'Manual': True, 'Type': 'Lesion', 'Rater': ['C']}


@pytest.mark.parametrize('content', ['{"Manual": tru', '[1, 2]', ''])
def test_an_unreadable_sidecar_costs_its_label(tmp_path, content):
    put(tmp_path, 'sub-02/anat/sub-02_label-L_mask.nii.gz')
    put(tmp_path, 'sub-01/anat/sub-01_label-L_mask.nii.gz')
    put(tmp_path, 'sub-01/anat/sub-01_label-L_mask.json', content)
    found = look_for_labels(tmp_path)
    assert [label.subject for label in found.labels] == ['02']
    ((path, reason),) = found.left_out
    assert path.name == 'sub-01_label-L_mask.nii.gz'
    assert 'sub-01_label-L_mask.json: not readable JSON' in reason


@pytest.mark.parametrize(
    ('label', 'extent'),
    [
        ('label-L_mask', 'label-L_desc-annotated_mask'),
        ('label-lesion_mask', 'label-lesion_desc-annotated_mask'),
        ('label-L_desc-rater1_mask', 'label-L_desc-annotated_mask'),
        ('label-L_mask', 'desc-annotated_mask'),
        ('space-FLAIR_desc-lesion_mask', 'space-FLAIR_desc-annotated_mask'),
        ('UNIT1_label-lesion_seg', 'UNIT1_desc-annotated_mask'),
        ('UNIT1_lesion-manual', 'desc-annotated_mask'),
    ],
)
def test_extent_mask_next_to_the_label(tmp_path, label, extent):
    put(tmp_path, f'sub-01/anat/sub-01_{label}.nii.gz')
    assert only(tmp_path).extent_path is None
    path = put(tmp_path, f'sub-01/anat/sub-01_{extent}.nii.gz')
    assert only(tmp_path).extent_path == path


def test_extent_of_another_space_is_not_taken(tmp_path):
    put(tmp_path, 'sub-01/anat/sub-01_space-FLAIR_label-L_mask.nii.gz')
    put(tmp_path, 'sub-01/anat/sub-01_space-T1w_label-L_desc-annotated_mask.nii.gz')
    assert only(tmp_path).extent_path is None


@pytest.mark.parametrize(
    'dangling',
    ['label-L_mask.nii.gz', 'label-L_desc-annotated_mask.nii.gz', 'label-L_mask.json'],
)
def test_link_without_content_leaves_the_label_out_with_a_note(tmp_path, caplog, dangling):
    # without the extent or the sidecar, a sparse label would be read as a whole one
    put(tmp_path, 'sub-02/anat/sub-02_label-L_mask.nii.gz')
    put(tmp_path, 'sub-01/anat/sub-01_label-L_mask.nii.gz').unlink()
    if dangling != 'label-L_mask.nii.gz':
        put(tmp_path, 'sub-01/anat/sub-01_label-L_mask.nii.gz')
    link = tmp_path / f'sub-01/anat/sub-01_{dangling}'
    link.symlink_to('../../.git/annex/objects/missing')
    with caplog.at_level(logging.WARNING):
        labels = find_labels(tmp_path)
    assert [label.subject for label in labels] == ['02']
    assert str(link) in caplog.text
    assert 'datalad get' in caplog.text


def test_missing_folder(tmp_path):
    with pytest.raises(NoInputError, match='no such folder'):
        find_labels(tmp_path / 'nowhere')


def test_masks_of_a_model(tmp_path):
    for name in (
        'sub-01_ses-A_space-UNIT1_label-L_mask.nii.gz',
        'sub-01_ses-A_space-FLAIR_label-L_mask.nii.gz',
        'sub-01_ses-A_space-MNI152NLin2009cAsym_res-1_label-L_mask.nii.gz',
        'sub-01_ses-A_space-UNIT1_label-L_desc-adapted_mask.nii.gz',
        'sub-01_ses-A_space-UNIT1_label-L_probseg.nii.gz',
        'sub-01_ses-A_desc-brain_mask.nii.gz',
    ):
        put(tmp_path, f'sub-01/ses-A/anat/{name}')
    default = find_masks(tmp_path)
    assert [mask.space for mask in default] == ['FLAIR', 'MNI152NLin2009cAsym', 'UNIT1']
    assert {mask.session for mask in default} == {'A'}
    (adapted,) = find_masks(tmp_path, 'adapted')
    assert (adapted.desc, adapted.space) == ('adapted', 'UNIT1')
    with pytest.raises(NoInputError, match='model other.*adapted, the default model'):
        find_masks(tmp_path, 'other')


def test_no_masks_names_what_is_looked_for(tmp_path):
    put(tmp_path, 'sub-01/anat/sub-01_T1w.nii.gz')
    with pytest.raises(NoInputError, match='label-L_mask'):
        find_masks(tmp_path)


def put_mask(folder: Path, desc: str = '', **sidecar: object) -> Path:
    """A mask of sub-01 with its sidecar."""
    stem = f'sub-01/anat/sub-01_label-L{desc}_mask'
    if sidecar:
        put(folder, f'{stem}.json', json.dumps(sidecar))
    return put(folder, f'{stem}.nii.gz')


def test_an_automatic_mask_never_counts_beside_one_drawn_by_hand(tmp_path):
    put_mask(tmp_path, '_desc-auto', Manual=False)
    assert only(tmp_path).desc == 'auto'
    put(tmp_path, 'sub-01/anat/sub-01_UNIT1_lesion-manual.nii.gz')  # a later pattern
    found = look_for_labels(tmp_path)
    assert [label.pattern for label in found.labels] == [4]
    ((path, reason),) = found.superseded
    assert (path.name, 'automatic' in reason) == ('sub-01_label-L_desc-auto_mask.nii.gz', True)


def test_a_consensus_is_not_outvoted_by_its_raters(tmp_path):
    for desc in ('rater1', 'rater2', 'rater3', 'consensus'):
        put_mask(tmp_path, f'_desc-{desc}', Manual=True)
    found = look_for_labels(tmp_path)
    assert [label.desc for label in found.labels] == ['consensus']
    assert {reason for _, reason in found.superseded} == {'a consensus mask exists'}


def test_the_filter_file_picks_a_rater_even_beside_a_consensus(tmp_path):
    for desc in ('rater1', 'rater2', 'consensus'):
        put_mask(tmp_path, f'_desc-{desc}')
    put(tmp_path, 'sub-02/anat/sub-02_acq-x_UNIT1_lesion-manual2.nii.gz')
    labels = find_labels(tmp_path, pattern={'desc': ['rater2', '2']})
    assert [label.desc for label in labels] == ['rater2', '2']
    assert [x.subject for x in find_labels(tmp_path, pattern={'acq': 'x'})] == ['02']


@pytest.mark.parametrize(
    ('sidecar', 'counts'),
    [
        ({'Manual': False, 'ConfigurationHash': 'abc'}, False),
        ({'Manual': False, 'Model': {'Name': 'x', 'Sha256': 'y'}}, False),
        ({'Manual': True, 'ConfigurationHash': 'abc'}, True),  # corrected by hand
        ({'Manual': False, 'Model': 'of another program'}, True),
    ],
)
def test_own_results_are_never_labels(tmp_path, sidecar, counts):
    put(tmp_path, 'sub-02/anat/sub-02_label-L_mask.nii.gz')
    put_mask(tmp_path, **sidecar)
    found = look_for_labels(tmp_path)
    assert ('01' in {label.subject for label in found.labels}) is counts
    assert ['result of ssl2-bids' in reason for _, reason in found.left_out] == [True][counts:]


def test_an_output_folder_given_as_labels_is_refused(tmp_path):
    description = {'Name': 'x', 'GeneratedBy': [{'Name': 'ssl2-bids'}]}
    put(tmp_path, 'dataset_description.json', json.dumps(description))
    put(tmp_path, 'sub-01/anat/sub-01_space-T1w_label-L_mask.nii.gz')
    with pytest.raises(NoInputError, match='results of ssl2-bids itself'):
        find_labels(tmp_path)
    put_mask(tmp_path, '_desc-corrected', Manual=True)
    assert only(tmp_path).desc == 'corrected'


def test_other_names_are_mentioned_and_other_files_are_not(tmp_path, caplog):
    put_mask(tmp_path)
    for name in ('FLAIR_lesions', 'T1w', 'label-GM_mask', 'desc-brain_mask', 'FLAIR_mask'):
        put(tmp_path, f'sub-01/anat/sub-01_{name}.nii.gz')
    found = look_for_labels(tmp_path)
    names = [path.name for path in found.unknown]
    assert names == ['sub-01_FLAIR_lesions.nii.gz', 'sub-01_FLAIR_mask.nii.gz']
    with caplog.at_level(logging.WARNING):
        find_labels(tmp_path)
    assert 'not recognised as lesion masks: sub-01_FLAIR_lesions.nii.gz' in caplog.text


def test_a_name_without_participant_is_mentioned_and_a_hidden_file_is_not(tmp_path):
    put_mask(tmp_path)
    put(tmp_path, 'sub-01/anat/01_label-lesion_mask.nii.gz')
    put(tmp_path, 'sub-01/anat/._sub-01_label-lesion_mask.nii.gz')
    found = look_for_labels(tmp_path)
    assert [path.name for path in found.unknown] == ['01_label-lesion_mask.nii.gz']
    assert len(found.labels) == 1
    assert not found.left_out


def test_a_label_in_the_folder_of_another_participant_is_left_out(tmp_path):
    put(tmp_path, 'sub-02/anat/sub-03_label-lesion_mask.nii.gz')
    put(tmp_path, 'sub-04_ses-1/sub-04_ses-1_label-lesion_mask.nii.gz')
    put(tmp_path, 'sub-05_label-lesion_mask.nii.gz')
    found = look_for_labels(tmp_path)
    assert [label.subject for label in found.labels] == ['04', '05']
    ((_, reason),) = found.left_out
    assert 'named after sub-03, but lies in the folder sub-02' in reason


def test_a_label_in_the_folder_of_another_session_is_left_out(tmp_path):
    for folder in ('ses-1', 'ses-2'):
        put(tmp_path, f'sub-01/{folder}/anat/sub-01_ses-2_label-lesion_mask.nii.gz')
    found = look_for_labels(tmp_path)
    assert [label.path.parts[-3] for label in found.labels] == ['ses-2']
    ((path, reason),) = found.left_out
    assert path.parts[-3] == 'ses-1'
    assert 'named after ses-2, but lies in the folder ses-1' in reason


def test_a_segmentation_of_tissues_is_no_mask_of_an_unknown_name(tmp_path):
    put_mask(tmp_path)
    for kind, names in (('tissues', ('air', 'wm', 'gm')), ('wmh', ('background', 'wmh'))):
        put(tmp_path, f'sub-01/anat/sub-01_seg-{kind}_dseg.nii.gz')
        rows = ''.join(f'{index}\t{name}\n' for index, name in enumerate(names))
        put(tmp_path, f'sub-01/anat/sub-01_seg-{kind}_dseg.tsv', f'index\tname\n{rows}')
    found = look_for_labels(tmp_path)
    assert [path.name for path in found.unknown] == ['sub-01_seg-wmh_dseg.nii.gz']


def test_of_files_of_one_name_the_folder_is_named(tmp_path):
    for folder, manual in (('a', 'true'), ('b', 'false')):
        put(tmp_path, f'{folder}/sub-01/anat/sub-01_label-L_mask.nii.gz')
        sidecar = f'{folder}/sub-01/anat/sub-01_label-L_mask.json'
        put(tmp_path, sidecar, f'{{"Manual": {manual}}}')
    both = [*find_labels(tmp_path / 'a'), *find_labels(tmp_path / 'b')]
    _, ((path, reason),) = ranked({('01', ''): both})
    assert path == both[1].path
    assert reason.startswith(f'the one in {tmp_path}/b/sub-01/anat is not used: automatic mask')
    put_mask(tmp_path / 'b', '_desc-b', Manual=True)
    _, ((_, reason),) = ranked({('01', ''): find_labels(tmp_path / 'b') + both[1:]})
    assert reason.startswith('not used: automatic mask')


def test_what_is_noted_of_the_files_of_many_sessions_is_noted_once():
    files = [
        (Path(f'sub-{n}_ses-1_label-L_seg.nii'), f'sub-{n}_ses-1_mask.nii goes before')
        for n in 'abc'
    ]
    texts = alike([*files, (Path('sub-a_seg.nii'), 'not used')])
    assert texts == [
        '3 files sub-*_ses-*_label-L_seg.nii: sub-*_ses-*_mask.nii goes before',
        'sub-a_seg.nii: not used',
    ]


def test_masks_beside_one_another_and_sessions_of_folders(tmp_path):
    folder = tmp_path / 'ses-7'  # the name of the folder itself has no meaning
    put(folder, 'sub-01_label-L_mask.nii.gz')
    put(folder, 'sub-02/ses-b/anat/sub-02_label-L_mask.nii.gz')
    assert [(x.subject, x.session) for x in find_labels(folder)] == [('01', None), ('02', 'b')]


@pytest.mark.parametrize(
    ('name', 'sessions', 'session', 'reason'),
    [
        ('sub-01_', [None], '', ''),
        ('sub-01_', ['1'], '1', ''),
        ('sub-01_', ['1', '2'], '', 'no ses-'),
        ('sub-01_ses-1_', ['1', '2'], '1', ''),
        ('sub-01_ses-01_', ['1', '2'], '', 'no session 01, but 1'),
        ('sub-01_ses-9_', ['1', '2'], '', 'no session 9; there are: 1, 2'),
        ('sub-01_ses-9_', [None], '', 'sub-01 has no sessions'),
    ],
)
def test_the_session_of_a_label_or_the_true_reason(tmp_path, name, sessions, session, reason):
    put(tmp_path, f'sub-01/anat/{name}label-L_mask.nii.gz')
    found, why = session_of(only(tmp_path), {'01': sessions})
    assert found == session
    assert reason in why
    assert bool(reason) == bool(why)


def test_files_beside_a_label_that_may_not_be_read_are_named(tmp_path, without_read_permission):
    anat = 'sub-01/anat/sub-01_seg-lesions_dseg'
    put(tmp_path, f'{anat}.nii.gz')
    table, sidecar = (
        put(tmp_path, f'{anat}.tsv', THREE_VALUES),
        put(tmp_path, f'{anat}.json', '{}'),
    )
    assert look_for_labels(tmp_path).labels
    for path in (table, sidecar):
        without_read_permission(path)
        ((_, reason),) = look_for_labels(tmp_path).left_out
        assert f'{path.name}: cannot be read (Permission denied). Check the perm' in reason
        path.chmod(0o644)


@pytest.mark.parametrize('below', ['sub-01', 'sub-01/ses-1'])
def test_the_folder_of_one_participant_names_the_one_above(tmp_path, below):
    name = 'sub-01_ses-1_space-FLAIR_label-L_mask.nii.gz'
    put(tmp_path / 'masks', f'sub-01/ses-1/anat/{name}')
    assert look_for_labels(tmp_path / 'masks').labels
    assert look_for_labels(tmp_path / 'masks/sub-01/ses-1/anat').labels
    for look in (look_for_labels, find_masks):
        with pytest.raises(NoInputError, match='folder of one participant or session') as raised:
            look(tmp_path / 'masks' / below)
        assert raised.value.advice.endswith(f'above the participants, {tmp_path / "masks"}.')
    (tmp_path / 'sub-empty').mkdir()
    assert not look_for_labels(tmp_path / 'sub-empty').labels
