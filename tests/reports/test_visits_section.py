"""The section of a participant's page on the changes between sessions."""

from __future__ import annotations

import re
from types import SimpleNamespace

from test_participant_report import summary

from ssl2_bids.bids.outputs import UnitNames, find_visits_summaries
from ssl2_bids.files import write_json
from ssl2_bids.reports import participant
from ssl2_bids.reports.figures.charts import time_line
from ssl2_bids.workflows.longitudinal.summary import base_summary

EVIL = '"><script>alert(1)</script>'


def visits(**changes):
    content = {
        'subject': '01',
        'model': 'default',
        'status': 'done',
        'configurations': {'1': 'a', '2': 'b'},
        'visits': [
            {'session': s, 'time': None, 'years': y, 'lesion_count': n, 'volume_mm3': v}
            for s, y, n, v in (('1', 0.0, 9, 5200.0), ('2', 1.5, 10, 5431.0))
        ],
        'pairs': [
            {
                'before': '1', 'after': '2', 'years': 1.5, 'new': 3, 'enlarging': 0,
                'shrinking': 0, 'resolved': 1, 'stable': 8, 'new_per_year': 2.0,
                'volume_change_mm3': 231.0, 'new_volume_mm3': 40.0,
            }
        ],
        'lesions': [
            {
                'index': 4, 'before': '1', 'after': '2', 'state': 'new', 'volume_before_mm3': 0.0,
                'volume_after_mm3': 33.0, 'change_mm3': 33.0, 'noise_bound_mm3': 7.0,
                'parts': [0, 1], 'x': 1.0, 'y': -2.0, 'z': 3.0, 'region': 'deep-white-matter',
                'figure': 1,
            }
        ],
        'registration': {'asymmetry': 0.012, 'ses-1 and ses-2, FLAIR': 0.98},
        'warnings': [],
        'methods': ['The visits were registered [@reuter2012].'],
        'figures': [{'File': 'sub-01/figures/a_long.svg', 'Title': 'Lesion 4', 'State': 'new'}],
        'outputs': ['sub-01/anat/a_long.tsv'],
        'error': None,
    }  # fmt: skip
    return content | changes


def page(tmp_path, *sections, configurations=('a', 'b')):
    path = tmp_path / 'sub-01.html'
    own = []
    for session, configuration in zip('12', configurations, strict=True):
        one = summary(session)
        own.append(one | {'provenance': {'configuration': configuration}})
    participant.render(own, path, subject='01', version='1.0', visits=sections)
    return path.read_text()


def test_table_figure_and_time_line(tmp_path):
    text = page(tmp_path, visits())
    assert 'Changes between sessions' in text
    assert 'href="#v1-figure1"' in text
    assert 'id="v1-figure1"' in text
    assert 'data="sub-01/figures/a_long.svg"' in text
    assert '2.0 per year' in text
    assert text.count('<polyline class="line"') == 2
    assert 'Out of date' not in text
    assert 'id="v1-ref-reuter2012"' in text


def test_without_a_change_and_without_dates(tmp_path):
    pair = visits()['pairs'][0] | {'new': 0, 'resolved': 0, 'years': None, 'new_per_year': None}
    still = [one | {'years': None} for one in visits()['visits']]
    text = page(tmp_path, visits(pairs=[pair], lesions=[], figures=[], visits=still))
    assert 'No lesion changed by more than' in text
    assert 'per year</small>' not in text
    assert 'not all dates are known' in text


def test_equal_dates_are_drawn_in_order(tmp_path):
    same = [one | {'years': 0.0} for one in visits()['visits']]
    text = page(tmp_path, visits(visits=same))
    assert 'some dates are equal' in text
    places = re.findall(r'<circle class="point" cx="([0-9.]+)"', text)
    assert len(set(places)) == 2


def test_sessions_that_do_not_fit_have_no_numbers(tmp_path):
    text = '1 and 2 do not fit: they may be of different people'
    apart = visits(status='doubtful', misfits=[text], visits=[], pairs=[], lesions=[])
    made = page(tmp_path, apart)
    assert 'The sessions do not fit' in made
    assert f'<li>{text}.</li>' in made
    assert '<span class="pill doubtful">doubtful</span>' in made
    assert 'What to do: Compare the images of the sessions below' in made
    assert 'data="sub-01/figures/a_long.svg"' in made
    assert 'From session to session' not in made
    assert 'No lesion changed' not in made
    assert 'per year' not in made
    assert 'Agreement of the sessions' in made


def test_results_that_have_changed_since_are_named(tmp_path):
    text = page(tmp_path, visits(), configurations=('a', 'other'))
    assert 'Out of date' in text
    assert 'The results of session 2 have changed since' in text


def test_a_failure_has_its_reason_and_texts_are_escaped(tmp_path):
    error = {'Message': EVIL, 'Advice': 'Try again', 'File': 'x', 'Step': 's', 'Traceback': ''}
    failed = visits(status='failed', visits=[], pairs=[], error=error, warnings=[EVIL])
    text = page(tmp_path, failed)
    assert 'What to do: Try again.' in text
    assert '<script>alert(1)' not in text


def test_two_models_are_named(tmp_path):
    own = [summary('1', model=label) for label in ('', 'adapted')]
    both = [visits(model=label) for label in ('', 'adapted')]
    path = tmp_path / 'sub-01.html'
    participant.render(own, path, subject='01', version='1.0', visits=both)
    text = path.read_text()
    assert 'Changes between sessions, model adapted' in text
    assert f'Changes between sessions, model {own[0]["model"]["Name"]}' in text


def test_time_line_starts_at_zero_and_names_visits():
    chart = str(time_line([(0, 5.2, '1'), (1.5, 5.4, 'later')], label='time', side='mL'))
    assert '>0</text>' in chart
    assert '>later</text>' in chart
    assert not time_line([(0, 5.2, '1')], label='time', side='mL')
    assert '<polyline' in str(time_line([(0, 0, 'a'), (0, 0, 'b')], label='x', side='y'))


def test_a_summary_that_lacks_a_part_is_left_out_or_shown(tmp_path):
    """Whatever the page takes is checked when the summary is read."""
    whole = visits(misfits=[], viewer=None)
    file = UnitNames(tmp_path, '01', None, desc='default').path('longitudinal.summary')
    lacking = [{k: v for k, v in whole.items() if k != key} for key in whole]
    for key in ('visits', 'pairs', 'lesions', 'figures'):
        first, *others = whole[key]
        lacking += [
            whole | {key: [{k: v for k, v in first.items() if k != member}, *others]}
            for member in first
        ]
    shown = 0
    for content in (whole, *lacking):
        write_json(file, content)
        found = find_visits_summaries(tmp_path, '01')
        shown += len(found)
        page(tmp_path, *found)
    assert 1 <= shown < 9


def test_summaries_of_failed_and_doubtful_comparisons_are_found(tmp_path):
    names = UnitNames(tmp_path, '01', None, desc='default')
    plan = SimpleNamespace(subject='01', names=names, visits=(), remarks=(), left_out={})
    for status in ('failed', 'doubtful'):
        write_json(names.path('longitudinal.summary'), base_summary(plan, status))
        (found,) = find_visits_summaries(tmp_path, '01')
        assert found['status'] in page(tmp_path, found)
