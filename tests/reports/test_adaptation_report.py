"""The part of the cohort's page on an adaptation."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ssl2_bids.metrics.score_names import SCORES
from ssl2_bids.reports import adaptation, group
from ssl2_bids.volume import Volume


def facts(*, accepted=True, p=None, rows=2, **more):
    entry = {'Before': 0.4, 'After': 0.6, 'Difference': 0.2, 'Interval': [0.1, 0.3], 'P': p}
    unknown = dict.fromkeys(('Before', 'After', 'Difference', 'P')) | {'Interval': [None, None]}
    return {
        'Label': 'mysite',
        'Parent': 'fast-3t',
        'Accepted': accepted,
        'Reason': 'mean Dice rose',
        'Strategy': 'mean_teacher',
        'Steps': 300,
        'Device': 'cpu',
        'Slices': False,
        'Labelled': rows,
        'Sessions': 5,
        'LeftOut': [{'name': 'sub-09', 'reason': 'no <FLAIR>'}],
        'Performance': [
            {
                'participant_id': f'sub-0{n}',
                'session_id': None,
                'fold': '1',
                'annotated': 0.25,
                'dice_before': 0.4,
                'dice_after': 0.6,
                'lesion_f1_before': None,
                'lesion_f1_after': None,
            }
            for n in range(rows)
        ],
        'Comparison': {name: entry if name == 'dice' else unknown for name in SCORES},
        'Annotate': [
            {
                'participant_id': 'sub-07',
                'session_id': None,
                'axis': 'k',
                'slice': 88,
                'expected_gain_mm3': 41.2,
                'image': 'sub-07/anat/x.nii.gz',
            }
        ],
        'AnnotateFigure': 'figures/x.svg',
        'Minutes': 12.5,
    } | more


def page_of(tmp_path, *given, people=0, label=None, labelled=None) -> str:
    path = tmp_path / 'group_report.html'
    rows = [
        {'participant_id': f'sub-{n}', 'volume_mm3': 1e3, 'model': 'm', 'model_label': label}
        for n in range(people)
    ]
    group.render(rows, path, version='1', adaptations=given, labelled=labelled)
    return path.read_text(encoding='utf-8')


def test_whom_to_label_is_shown_until_a_model_was_adapted(tmp_path):
    assert 'id="to-label"' in page_of(tmp_path, people=6)
    assert 'id="to-label"' not in page_of(tmp_path, facts(), people=6)


def test_whoever_has_masks_is_not_asked_for(tmp_path):
    def section(*drawn, people=7):
        page = page_of(tmp_path, people=people, labelled={'/x/manual': drawn} if drawn else {})
        return page.partition('id="to-label"')[2].partition('</section>')[0]

    asked = re.findall('sub-([0-9])</a>', section())
    assert len(asked) == 3
    for one in (section(asked[0]), section(asked[0], people=6), section(asked[0], '97', '98')):
        assert len(re.findall('sub-[0-9]</a>', one)) == 3
        assert f'sub-{asked[0]}</a>' not in one
    assert 'Masks of 1 participant were found: <code>--labels /x/manual</code>' in section('5')
    assert 'For example' not in section('0', '1', '2')
    assert 'Masks of 3 participants were found' in section('0', '1', '2')
    page = page_of(tmp_path, facts(), people=7, labelled={'/x/manual': ('0',)})
    assert 'id="to-label"' not in page


def test_half_of_the_change_is_stated(tmp_path):
    page = page_of(tmp_path, facts(WeightShare=0.5))
    assert '50 % trained weights, the rest weights of fast-3t' in page
    none = page_of(tmp_path, facts(WeightShare=0.0))
    assert '0 % trained weights' not in none
    assert 'Its weights are those of fast-3t.' in none
    assert 'tested with trainings of all layers (mean teacher): 300 steps' in ' '.join(
        none.split()
    )
    assert 'of the way' not in page_of(tmp_path, facts(WeightShare=1.0))
    assert 'of the way' not in page_of(tmp_path, facts(accepted=False, WeightShare=0.0))


def test_each_kind_of_training_is_stated_as_it_was(tmp_path):
    def text(**more):
        found = re.sub(r'\s+', ' ', page_of(tmp_path, facts(Trained=True, Rung='whole', **more)))
        return found.partition('labelled, ')[2].partition('</p>')[0]

    last = {'Layers': 'last', 'Strategy': 'supervised', 'Steps': 20}
    every = {'Layers': 'all', 'Strategy': 'mean_teacher', 'Steps': 20}
    alone = text(Trainings=[last], WeightShare=1.0, Strategy='supervised', Steps=20)
    stated = 'trainings of the last layers (supervised, on labelled scans alone): 20 steps'
    assert stated in alone
    assert 'mean teacher' not in alone
    taken = text(Trainings=[last, every], WeightShare=1.0)
    assert '(supervised, on labelled scans alone) and of all layers (mean teacher): 20' in taken
    assert 'Its weights are those of the training of all layers.' in taken
    tested = text(Trainings=[last, every], WeightShare=0.0, Strategy='none', Steps=0)
    assert 'tested with trainings of the last layers' in tested
    assert ': 20 steps on the CPU' in tested
    former = {'LastLayers': True, 'Rungs': []}
    assert 'alone) and of all layers (mean teacher): 300 steps' in text(**former)
    rungs = [{'Rung': 'last-layers', 'Dice': None, 'Gain': None, 'Interval': [None, None],
              'LesionF1': None, 'Minutes': 1, 'Recalibrated': False, 'Taken': True}]  # fmt: skip
    assert 'mean teacher' not in text(**former | {'Rungs': rungs})


def test_each_threshold_of_a_model_with_several_is_stated(tmp_path):
    fitted = {'Scale': 0.8, 'Shift': -0.1, 'ThresholdMove': 0.1, 'MinimumLesionVolume': None}
    numbers = {'Threshold': 0.61, 'Recalibration': fitted}
    page = page_of(tmp_path, facts(Recalibration=numbers))
    assert 'the threshold is 0.61 of these probabilities.' in page
    sets = [
        {'Channels': ['FLAIR'], 'Threshold': 0.7},
        {'Channels': ['FLAIR', 'T1w'], 'Threshold': 0.55},
    ]
    page = page_of(tmp_path, facts(Recalibration={**numbers, 'Thresholds': sets}))
    each = 'of these probabilities (0.70 with FLAIR; 0.55 with FLAIR and T1w)'
    assert f'the threshold is 0.61 {each}.' in page


def test_the_page_states_what_became_of_the_model(tmp_path):
    page = page_of(tmp_path, facts(), people=1, label='mysite')
    assert 'The adapted model is used' in page
    assert '0.400</td><td class="n">0.600' in page
    assert 'Fewer than 6 participants' in page
    assert 'Lesion F1' not in page  # nowhere known
    assert 'no &lt;FLAIR&gt;' in page
    assert re.search(r'sub-07.*88.*41\.2', page, re.DOTALL)
    refused = page_of(tmp_path, facts(accepted=False))
    assert 'does not train the folds again; the final model may need a training' in refused
    assert 'not accepted: the start model stays in use' in refused
    unused = page_of(tmp_path, facts(), people=1, label='other')
    assert 'The adapted model is used' not in unused
    assert 'no result here is from it' in unused


def test_masks_that_stay_have_no_scores_in_use(tmp_path):
    fitted = {'Scale': 0.9, 'Shift': -0.4, 'ThresholdMove': 0.0, 'MinimumLesionVolume': None}
    rung = {'Gain': 0.015, 'Interval': [None, None], 'LesionF1': 0.7, 'Minutes': 0.01}
    rungs = [
        {**rung, 'Rung': 'bundled', 'Dice': 0.69, 'Recalibrated': False, 'Taken': False},
        {**rung, 'Rung': 'recalibrated', 'Dice': 0.705, 'Recalibrated': True, 'Taken': True},
    ]
    for refused, used in (({'RefusedMove': 0.9}, False), ({}, True)):
        values = {'Recalibration': fitted | refused, 'Threshold': 0.5}
        given = facts(Recalibration=values, Rungs=rungs, Rung='recalibrated')
        page = page_of(tmp_path, given, people=1, label='mysite')
        assert ('the threshold of the start model stays' in page) is not used
        assert ('calibration alone</td>' in page) is not used
        assert ('with the fitted threshold, which is not in use' in page) is not used
        assert ('The adapted model is used' in page) is used
        assert 'fitted without the participant that they are tested on' in page
        sliced = page_of(tmp_path, given | {'Slices': True}, people=1, label='mysite')
        assert 'fitted without the slices that they are tested on' in sliced


@pytest.mark.parametrize(
    ('more', 'stated', 'other'),
    [
        ({}, 'Of the rungs that the test accepts, the lowest', 'asked for'),
        ({'Accept': 'always'}, 'or of all where it accepts none', 'asked for'),
        ({'AskedRung': 'whole'}, 'whole was asked for, and is used only if', 'standard error of'),
        (
            {'AskedRung': 'recalibrated', 'Accept': 'always'},
            'recalibrated was asked for, and is used whatever the scores are',
            'standard error of the best',
        ),
        ({'AskedRung': 'bundled'}, 'bundled was asked for: nothing is chosen', 'of the best'),
    ],
)
def test_the_page_states_by_which_rule_a_rung_is_used(tmp_path, more, stated, other):
    rung = {'Dice': 0.7, 'Gain': 0.01, 'Interval': [None, None], 'LesionF1': 0.7, 'Minutes': 0.1}
    rungs = [
        {**rung, 'Rung': name, 'Recalibrated': False, 'Taken': name == 'recalibrated'}
        for name in ('bundled', 'recalibrated')
    ]
    rule = page_of(tmp_path, facts(Rungs=rungs, **more)).partition('bundled: the start model.')[2]
    rule = rule.partition('</p>')[0]
    assert stated in rule
    assert other not in rule
    assert 'accepted with a lower Dice' not in rule
    rungs[1]['Gain'] = -0.01
    page = page_of(tmp_path, facts(Rungs=rungs, **more))
    assert ('accepted with a lower Dice' in page) is (more.get('Accept') != 'always')


def test_p_values_where_there_are_enough(tmp_path):
    page = page_of(tmp_path, facts(p=0.031, rows=6))
    assert '0.031' in page
    assert '0.100 to 0.300' in page
    assert 'Fewer than 6' not in page


def test_slices_of_one_person_are_called_optimistic(tmp_path):
    assert 'expect lower scores in other participants' in page_of(tmp_path, facts(Slices=True))


def test_without_labels_or_suggestions_nothing_is_promised(tmp_path):
    bare = facts(Performance=[], Annotate=[], AnnotateFigure='', LeftOut=[])
    page = page_of(tmp_path, bare)
    assert 'What to label next' not in page
    assert 'Not used' not in page


def test_each_scan_has_both_scores_in_one_cell(tmp_path):
    page = page_of(tmp_path, facts())
    assert page.count('<td class="n" data-v="0.6">0.400 → 0.600</td>') == 2
    table = page[page.index('aria-label="Before and after, each scan"') :]
    assert '<th>Session</th>' not in table[: table.index('</table>')]
    one = facts(rows=1)
    one['Performance'][0]['session_id'] = 'ses-2'
    assert '<td>ses-2</td><td>1</td>' in page_of(tmp_path, one)


def test_two_adaptations_have_a_section_each(tmp_path):
    page = page_of(tmp_path, facts(), facts(Label='other'))
    assert 'id="adaptation-1"' in page
    assert 'id="adaptation-2"' in page


def test_a_line_for_each_case():
    rows = [{'participant_id': f'sub-{n}', 'dice_before': 0.1 * n, 'dice_after': 0.5}
            for n in range(4)]  # fmt: skip
    chart = str(adaptation.before_and_after(rows))
    assert chart.count('<circle') == 8
    ElementTree.fromstring(chart)
    assert adaptation.before_and_after([]) == ''


@pytest.mark.parametrize('count', [1, 6])
def test_the_picture_of_the_suggestions(tmp_path, count):
    random = np.random.default_rng(0)
    grid = np.indices((20, 24, 18)) - np.array([10, 12, 9])[:, None, None, None]
    brain = ((grid / np.array([8, 10, 7])[:, None, None, None]) ** 2).sum(0) < 1
    affine = np.diag([2.0, 2, 2, 1])
    doubt = np.zeros(brain.shape, np.float32)
    doubt[8:12, 8:12, 9] = 0.4
    one = adaptation.Shown(
        'sub-01',
        Volume((brain * random.uniform(1, 2, brain.shape)).astype(np.float32), affine, 'FLAIR'),
        Volume(brain.astype(np.uint8), affine),
        Volume(doubt, affine),
        9,
        'j = 8',
    )
    adaptation.draw_suggestions([one] * count, tmp_path / 'a.svg')
    text = (tmp_path / 'a.svg').read_text(encoding='utf-8')
    ElementTree.fromstring(text)
    assert text.count('<image') == 2 * count
    assert text.count('uncertain') == count + 1  # outlines, and the note
    assert 'j = 8' in text


def twin(**more):
    return {
        'People': 8, 'Trained': 6, 'Fitted': 2, 'Measured': 5, 'Field': 1.5, 'FieldKnown': True,
        'Contrasts': ['FLAIR'],
        'NotDrawn': {'T2w': 'no <sequence>'}, 'Heads': 'MNI152',
        'Statistics': [
            {'Contrast': 'FLAIR', 'Quantity': 'white matter / noise', 'Site': 17.25, 'Twin': 16.5},
            {'Contrast': 'FLAIR', 'Quantity': 'voxel (mm)', 'Site': '1 x 1 x 5', 'Twin': None},
        ],
        'Figure': 'figures/t.svg', 'Protocol': 'models/mysite/twin.toml',
    } | more  # fmt: skip


def test_the_twin_stands_beside_the_site(tmp_path):
    page = page_of(tmp_path, facts(Twin=twin(), rows=0))
    assert 'fitted to the scans of 5 participants' in page
    assert 'No real label took part' in page
    assert 'the training had 6 of them as labelled participants, and scale, shift and' in page
    assert 'fitted to the lesions of the others (2)' in page
    assert 'the test did not' not in page
    assert 'no &lt;sequence&gt;' in page
    assert 'src="figures/t.svg"' in page
    assert '17.25' in page
    labelled = page_of(tmp_path, facts(Twin=twin(FieldKnown=False)))
    assert 'No real label took part' not in labelled
    assert 'the training had them as labelled participants, the test did not' in labelled
    assert '1.5 T, assumed' in labelled
    untested = page_of(tmp_path, facts(Twin=twin(), Tested=False, Accept='always'))
    assert 'the training had them as labelled participants. ' in untested
    assert 'the test did not' not in untested
    assert 'scanner twin' not in page_of(tmp_path, facts())


def test_slices_of_site_and_twin(tmp_path):
    random = np.random.default_rng(0)
    brain = np.zeros((12, 14, 10), np.uint8)
    brain[2:-2, 2:-2, 1:-1] = 1
    raised = np.eye(4)
    raised[2, 3] = 1.0
    pair = [
        (
            Volume((random.random(brain.shape) * brain).astype(np.float32), affine, 'FLAIR'),
            Volume(brain, affine),
            from_template,
        )
        for affine, from_template in ((np.diag([1.0, 1.0, 5.0, 1.0]), np.eye(4)),
                                      (np.diag([1.0, 1.0, 4.0, 1.0]), raised))
    ]  # fmt: skip
    adaptation.draw_twin([adaptation.Beside('FLAIR', *pair)] * 2, tmp_path / 't.svg')
    text = (tmp_path / 't.svg').read_text(encoding='utf-8')
    ElementTree.fromstring(text)
    assert text.count('<image') == 8
    assert text.count('FLAIR, site') == text.count('FLAIR, twin, simulated') == 4
    # heights of 8 and 32 mm in the template; the nearest slices of 5 mm, and of 4 mm 1 mm higher
    assert re.findall(r'z = ([0-9]+) mm', text) == ['10', '8', '30', '32'] * 2


def test_site_and_twin_have_the_same_grey_whatever_lesions_they_have(tmp_path):
    random = np.random.default_rng(0)
    brain = np.zeros((40, 40, 40), np.uint8)
    brain[4:-4, 4:-4, 4:-4] = 1
    people = []
    for tissue, lesions in ((100.0, 0.02), (7.0, 0.0)):
        data = tissue * random.normal(1, 0.1, brain.shape)
        data[random.random(brain.shape) < lesions] = 4 * tissue
        image = Volume((data * brain).astype(np.float32), np.eye(4), 'FLAIR')
        people.append((image, Volume(brain, np.eye(4)), np.eye(4)))
    adaptation.draw_twin([adaptation.Beside('FLAIR', *people)], tmp_path / 't.svg')
    text = (tmp_path / 't.svg').read_text(encoding='utf-8')
    images = re.findall(r'base64,([^"]+)"', text)
    drawn = [np.array(Image.open(io.BytesIO(base64.b64decode(one)))) for one in images[:2]]
    site, twin = (np.median(one[one > 0]) for one in drawn)
    assert site == pytest.approx(twin, abs=4)
    assert 40 < site < 130
