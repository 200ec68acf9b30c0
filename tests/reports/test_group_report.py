"""The page of a cohort: three or three hundred participants, outliers, safety, equal bytes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ssl2_bids.reports import group
from ssl2_bids.reports.figures.charts import bar_chart, histogram, line_chart, scatter_chart
from ssl2_bids.reports.figures.strips import Point, is_crowded, strip_chart
from ssl2_bids.reports.pages import cubic_millimetres, decimals, grid, millilitres, plain

EVIL = '"><script>alert(1)</script>'
REGIONS = ('periventricular', 'deep-white-matter')


def cohort(size, *, models=('default',), seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(size):
        for model in models:
            volume, brain = float(np.exp(rng.normal(8, 0.7))), float(rng.normal(1.3e6, 8e4))
            row = {
                'participant_id': f'sub-{i:03d}', 'session_id': f'ses-{i % 2}', 'model': model,
                'reference': 'FLAIR', 'magnetic_field_strength': 7.0,
                'lesion_count': int(volume / 100),
                'volume_mm3': volume, 'lesion_load': volume / brain, 'brain_volume_mm3': brain,
                'age': 30 + i % 30, 'sex': 'FM'[i % 2], 'group': ('RRMS', 'SPMS')[i % 3 == 0],
            }  # fmt: skip
            for place, region in enumerate(REGIONS):
                row[f'{region}_count'] = place
                row[f'{region}_volume_mm3'] = place * volume / 2
            rows.append(row)
    return rows


@pytest.fixture
def make_page(tmp_path, read_page):
    def make(rows, **options):
        path = tmp_path / 'group_report.html'
        group.render(rows, path, version='0.1.0', **options)
        return read_page(path)

    return make


@pytest.mark.parametrize('size', [3, 300])
def test_all_participants_are_listed_and_linked(make_page, tmp_path, size):
    page = make_page(cohort(size))
    assert page.unbalanced == []
    assert f'{size} participants, {size} results' in page.text
    for i in range(size):
        assert f'sub-{i:03d}.html' in page.targets
    assert (tmp_path / 'group_report.html').stat().st_size < 20_000 + 1500 * size
    assert 'Research use only' in page.text
    assert all(t.startswith('#') or not t.startswith('http') for t in page.targets)
    assert len(page.ids) == len(set(page.ids))
    assert {t[1:] for t in page.targets if t.startswith('#')} <= set(page.ids)


def test_columns_of_regions_and_covariates(make_page):
    page = make_page(cohort(6), covariates=('age', 'sex', 'nothing'))
    for words in ('periventricular', 'deep white matter', 'age', 'sex', 'FLAIR', 'Field (T)'):
        assert words in page.text
    assert 'nothing' not in page.text


def test_same_rows_give_the_same_bytes_and_stay_as_they_are(tmp_path):
    rows = cohort(20)
    for name in 'ab':
        group.render(rows, tmp_path / name, version='0.1.0')
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
    assert rows == cohort(20)


def sorted_by(page):
    """What the cells with numbers are sorted by."""
    cells = re.findall(r'<td class="n"(?: data-v="([^"]*)")?>([^<]*)', page.source)
    return [float(value or text.replace('–', 'nan')) for value, text in cells]


def test_texts_of_a_table_do_as_well_as_numbers(make_page):
    rows = cohort(8)
    page = make_page(rows)
    texts = [{k: str(v) if v is not None else 'n/a' for k, v in row.items()} for row in rows]
    again = make_page(texts)
    assert sorted_by(again) == sorted_by(page)


def test_missing_values_are_dashes(make_page):
    rows = cohort(5)
    for key in ('volume_mm3', 'lesion_load', 'brain_volume_mm3', 'session_id', 'age'):
        rows[0][key] = 'n/a'
        rows[1][key] = None
    rows[2] = {'participant_id': 'sub-bare'}
    page = make_page(rows)
    assert page.source.count('<td class="whole" data-v="">–</td>') >= 2  # sorted behind all others
    assert '<td class="whole">–</td>' not in page.source
    assert 'None' not in page.text
    assert 'nan' not in page.text
    assert 'sub-bare' in page.text


def test_failed_are_listed_and_linked_where_they_have_a_page(make_page, tmp_path):
    (tmp_path / 'sub-404.html').touch()
    lost = [
        {'name': 'sub-404_ses-1', 'subject': '404', 'reason': 'no FLAIR', 'advice': 'ask PACS'},
        {'name': 'sub-405', 'subject': '405', 'reason': 'no result of the participant level'},
    ]
    page = make_page(cohort(3), failed=lost, command='ssl2-bids a b group')
    assert '2 without a result' in page.text
    for words in (
        'sub-404_ses-1',
        'No FLAIR.',
        'Ask PACS.',
        'No result of the participant level.',
        'ssl2-bids a b group',
    ):
        assert words in page.text
    assert 'sub-404.html' in page.targets
    assert 'sub-405.html' not in page.targets


def test_labelled_model_is_distinguished_from_the_default(make_page):
    rows = cohort(3) + [row | {'model_label': 'adapted'} for row in cohort(3)]
    page = make_page(rows)
    assert 'Model default (adapted)' in page.text
    assert 'Models side by side' in page.text


def test_a_page_without_results_has_advice(make_page):
    page = make_page([])
    assert page.unbalanced == []
    assert 'Run the participant level first' in page.text


def test_frequency_figure_is_shown(make_page):
    name = 'group figure#1.svg'
    assert 'group%20figure%231.svg' in make_page(cohort(3), frequency_figure=name).values('src')
    assert 'Lesion frequency' not in make_page(cohort(3)).text


def test_two_models_stand_side_by_side(make_page):
    assert 'Models side by side' in make_page(cohort(30, models=('default', 'adapted'))).text


def test_quality_flags_and_lesion_free_participants_are_shown(make_page):
    rows = cohort(30)
    rows[3] |= {'lesion_count': 0, 'volume_mm3': 0.0}
    assert '1 without lesions' in make_page(rows).text
    rows[4] |= {'flags': ['FLAIR blurred', '2D acquisition'], 'volume_mm3': 1e6}
    page = make_page(rows)
    assert page.text.count('FLAIR blurred; 2D acquisition') == 2


def test_a_median_between_two_counts_and_a_small_load_are_not_rounded_away(make_page):
    rows = cohort(2)
    for row, found in zip(rows, (0, 1), strict=True):
        row |= {'lesion_count': found, 'lesion_load': found * 4e-5}
    page = make_page(rows)
    assert '<b>0.5</b>median lesion count' in page.source
    assert '< 0.01' in page.text


def test_a_session_counts_once_for_the_charts_of_quality():
    rows = with_images(cohort(100)) + with_images(cohort(100))
    assert not is_crowded(rows)
    assert is_crowded(with_images(cohort(151)))


def with_images(rows):
    for place, row in enumerate(rows):
        noisy = place == 3
        flag = {'Code': 'noise', 'Value': 2.0, 'Threshold': 5.0, 'Text': 'noise'}
        metrics = {'tissue_snr': 2.0 if noisy else 20.0 + place, 'coverage': 1.0, 'cnr': None}
        quality = {'Metrics': metrics, 'Flags': [flag] if noisy else []}
        row['images'] = {'FLAIR': quality} | ({'T1w': quality} if place % 2 else {})
    return rows


def test_each_metric_has_a_chart_with_a_point_for_each_image(make_page):
    page = make_page(with_images(cohort(10)))
    assert page.unbalanced == []
    charts = [value for value in page.values('aria-label') if value.endswith('flagged')]
    assert charts == ['SNR in tissue: 15 images, 2 flagged', 'Coverage: 15 images, 0 flagged']
    assert page.values('class').count('point flagged') == 2
    assert page.source.count('r="3.5"') == 30
    assert page.text.count('sub-003 ses-1: 2') == 2
    assert page.text.count('sub-003 ses-1') > 4  # named beside the points too
    assert 'Image quality' not in make_page(cohort(10)).text


def test_an_image_counts_once_however_many_models_have_seen_it(make_page):
    rows = with_images(cohort(6)) + [
        row | {'model_label': 'adapted'} for row in with_images(cohort(6))
    ]
    page = make_page(rows)
    assert 'Coverage: 9 images, 0 flagged' in page.values('aria-label')


def test_few_of_many_flagged_images_are_named(make_page):
    rows = with_images(cohort(300))
    for row in rows:
        row['images']['FLAIR']['Flags'] = rows[3]['images']['FLAIR']['Flags']
    page = make_page(rows)
    assert page.values('class').count('name') == 6


def test_strips_of_odd_values():
    for values in ([0.0], [5.0, 5.0], [-1e-9, 1e9], [float(n) for n in range(150)]):
        chart = strip_chart({'<T1w>': [Point(v, '<a>', v > 120) for v in values]}, 'x & y')
        assert chart.count('<circle') == len(values)
        assert '<a>' not in chart
        assert '<T1w>' not in chart
        assert 'nan' not in chart


def test_a_crowd_is_a_shape_and_its_flagged_images_are_points():
    points = [Point(float(n % 100), f'sub-{n}', n % 50 == 0) for n in range(3000)]
    chart = strip_chart({'T1w': points, 'FLAIR': points[1:20]}, 'SNR')
    assert chart.count('class="many"') == 1
    assert chart.count('class="point flagged"') == 60  # of each, the 30 highest and lowest
    assert chart.count('class="point"') == 19
    assert '3019 images, 60 flagged' in chart
    assert len(chart) < 20_000
    assert 'nan' not in strip_chart({'T1w': [Point(1.0, 'a', True)] * 151}, 'x')


@pytest.mark.parametrize(
    ('values', 'together'),
    [([1.0], 1), ([1.0, 1.0001], 1), ([0.0, 1.0], 1), ([0.0, 0.01, 3.0], 2)],
)
def test_a_crowd_of_few_values_is_seen_and_has_every_image(values, together):
    """Coverage is 1 in nearly all images: a shape without a height would be no shape."""
    points = [Point(value, 'a') for value in values for _ in range(200)]
    chart = strip_chart({'T1w': points}, 'x')
    shape = re.search('class="many" d="M(.*?)Z"', chart)[1]
    corners = np.array([[float(n) for n in pair.split()] for pair in shape.split('L')])
    side = corners[: len(corners) // 2]
    middle = (corners[:, 0].max() + corners[:, 0].min()) / 2
    heights = np.diff(side[:, 1])[::2]
    assert heights.min() >= 2.9
    widest = side[:, 0].max() - middle  # of a layer with so many of the values together
    assert (side[::2, 0] - middle).sum() / widest == pytest.approx(
        len(values) / together, abs=0.02
    )


def test_three_thousand_participants_make_a_page_that_can_be_used(tmp_path):
    """At most 5 MB; pages of a hundred rows; sorting and filter see all rows."""
    from browser import Browser, find_chromium

    rows = with_images(cohort(3000))
    path = tmp_path / 'group_report.html'
    group.render(rows, path, version='0.1.0')
    assert path.stat().st_size < 5e6
    assert 'more than 150 images' in path.read_text()
    if find_chromium() is None:
        pytest.skip('no chromium on this machine')
    with Browser(width=1280, height=900) as browser:
        browser.show(path)
        shown = (
            '[...document.querySelectorAll("#results tbody tr:not([hidden]) th")]'
            '.map(h => h.textContent.trim())'
        )

        def names():
            return browser.run(shown)

        def click(text):
            browser.run(
                '[...document.querySelector("#everybody").querySelectorAll("button")]'
                f'.find(b => b.textContent.startsWith("{text}")).click()'
            )

        def where():
            return browser.run('document.querySelector("#everybody .pager span").textContent')

        assert len(names()) == 100
        assert where() == '1 to 100 of 3000'
        click('Next')
        assert names()[0].startswith('sub-100')
        assert where() == '101 to 200 of 3000'
        click('Volume')
        largest = max(rows, key=lambda row: row['volume_mm3'])
        assert names()[0].startswith(largest['participant_id'])
        assert where() == '1 to 100 of 3000'
        browser.run(
            'const f = document.querySelector("#everybody .filter"); f.value = "sub-299";'
            'f.dispatchEvent(new Event("input"))'
        )
        assert sorted(name[:8] for name in names()) == [
            'sub-299',
            *(f'sub-{n}' for n in range(2990, 3000)),
        ]
        assert where() == '1 to 11 of 11'


def test_people_of_all_loads_are_named_to_begin_labelling_with(make_page):
    rows = cohort(7)
    for place, row in enumerate(rows):
        row['volume_mm3'] = 1000.0 * (place + 1)
    page = make_page(rows[::-1])
    expected = 'sub-001 ses-1 (2.00 mL), sub-003 ses-1 (4.00 mL) and sub-005 ses-1 (6.00 mL).'
    assert expected in ' '.join(page.text.split())
    assert 'A model for your site' not in make_page(cohort(5)).text


def test_evil_texts_stay_text(make_page):
    rows = [row | {'participant_id': EVIL, 'sex': EVIL, 'group': EVIL} for row in cohort(6)]
    rows[0] |= {'model': EVIL, 'reference': EVIL, 'flags': [EVIL], 'report': 'javascript:x()'}
    rows[1] |= {f'{EVIL}_volume_mm3': 1}
    lost = [{'name': EVIL, 'subject': EVIL, 'reason': EVIL, 'advice': EVIL}]
    page = make_page(rows, failed=lost, dataset=EVIL, frequency_figure=EVIL, command=EVIL)
    assert page.unbalanced == []
    assert page.tags.count('script') == 1
    assert not [t for t in page.targets if t.startswith('javascript:')]


def test_histogram_counts_everything_once():
    rng = np.random.default_rng(3)
    values = [0.0, 0.0, 1.0, 2.0, 5.0, 1000.0, *np.exp(rng.normal(2, 2, 200))]
    bins = histogram(values)
    assert sum(b.amount for b in bins) == len(values)
    assert bins[0].low == bins[0].high == 0
    assert bins[0].amount == 2
    for part in bins[1:]:
        assert part.amount == sum(1 for v in values if part.low < v <= part.high)
    assert [b.high for b in bins[1:-1]] == [b.low for b in bins[2:]]


@pytest.mark.parametrize('values', [[0.0] * 5, [3.0], [1e-4, 1e5], [], [5, 5, 5]])
def test_charts_of_odd_values(values):
    assert sum(b.amount for b in histogram(values)) == len(values)
    chart = bar_chart(values, label='x & y')
    assert bool(chart) == bool(values)
    assert 'x & y' not in chart


def test_scatter_has_a_point_per_result():
    points = [(30.0 + i, float(i * i), f'sub-{i}') for i in range(9)]
    chart = scatter_chart(points, label='age', side='volume')
    assert chart.count('<circle') == 9
    assert scatter_chart([(40.0, 1.0, 'a')] * 6, label='age', side='volume') == ''


def test_lines_share_their_axes_and_show_their_values():
    lines = {'<1>': [(0, 0.5), (50, 0.62), (100, 0.7)], '2': [(0, 0.3), (100, 0.4)]}
    chart = line_chart(lines, label='steps', side='Dice')
    found = re.findall(r'<polyline class="line" points="([^"]+)"', chart)
    first, second = ([tuple(map(float, p.split(','))) for p in line.split()] for line in found)
    assert first[0][0] == second[0][0] < first[1][0] < first[2][0] == second[1][0]
    assert first[2][1] < first[0][1] < second[1][1] < second[0][1]  # higher is less far down
    assert '&lt;1&gt;: 0.500 at 0, 0.620 at 50, 0.700 at 100' in chart
    assert line_chart({'1': [(0, 0.5)]}, label='steps', side='Dice') == ''


def test_numbers_for_people():
    assert millilitres(12345.6) == '12.35'
    assert millilitres(0) == '0.00'
    assert millilitres(2).startswith('<')
    assert cubic_millimetres(14.04) == '14.0'
    assert cubic_millimetres(-1234.6) == '−1235'
    assert cubic_millimetres(-0.01) == '0.0'
    assert cubic_millimetres(-7) == '−7.0'
    assert cubic_millimetres(123456.7) == '123\u202f457'
    assert decimals(-0.04) == '0.0'
    assert decimals(-1.25, 1) == '−1.2'
    assert grid([0.71875, 0.71875, 3.0], 'mm') == '0.72 × 0.72 × 3 mm'
    assert grid([320, 320, 46]) == '320 × 320 × 46'
    assert [plain(v) for v in (True, None, [], 'n/a', 0.123456)] == [
        'yes',
        '–',
        '–',
        '–',
        '0.1235',
    ]
