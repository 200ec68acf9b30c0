"""The page of a participant: complete, offline, safe, the same bytes, readable when all failed."""

from __future__ import annotations

import copy
import json
import re
from urllib.parse import unquote

import pytest

from ssl2_bids.reports import participant
from ssl2_bids.reports.citations import UnknownReferenceError

EVIL = '"><script>alert(1)</script>&<b>\''


def figure(kind, name):
    return {
        'File': f'sub-01/figures/{name}.svg',
        'Title': f'Title of {kind}',
        'Caption': f'Caption of {kind}',
        'Kind': kind,
    }


def summary(session='1', *, model='default'):
    return {
        'subject': '01',
        'session': session,
        'status': 'done',
        'model': {'Name': 'ssl2-flair', 'Label': model, 'Version': '1.0', 'Sha256': 'ab' * 32},
        'reference': {
            'Contrast': 'FLAIR',
            'File': 'sub-01/anat/sub-01_FLAIR.nii.gz',
            'VoxelSize': [0.71875036, 0.71874976, 3.000005],
            'Shape': [320, 320, 46],
            'MagneticFieldStrength': 3.0,
        },
        'inputs': [
            {'Contrast': 'FLAIR', 'File': 'a_FLAIR.nii.gz', 'Use': 'reference', 'Why': 'w1'},
            {'Contrast': 'T1w', 'File': 'a_T1w.nii.gz', 'Use': 'dropped', 'Why': 'has ce-gd'},
        ],
        'settings': {'threshold': 0.45, 'tta': False, 'output_spaces': ['FLAIR', 'T1w']},
        'warnings': ['FLAIR is a 2D acquisition.'],
        'methods': ['Lesions were segmented [@wang2023].', 'The app [@gorgolewski2017] ran.'],
        'figures': [
            figure('mosaic', 'm'),
            figure('lesions', 'l'),
            figure('brain', 'b'),
            figure('registration', 'r'),
        ],
        'lesions': [
            {
                'index': i, 'name': f'lesion {i}', 'volume_mm3': v, 'x': -10.04, 'y': 0.01,
                'z': 33.3, 'probability_mean': 0.7, 'probability_max': 0.95, 'region': region,
            }
            for i, v, region in ((2, 44.0, 'n/a'), (1, 12345.6, 'deep-white-matter'))
        ],
        'volumes': [
            {
                'name': name, 'lesion_count': n, 'volume_mm3': v, 'volume_largest_mm3': v,
                'lesion_load': v / 1.2e6,
            }
            for name, n, v in (('all', 2, 12389.6), ('juxtacortical', 0, 0.0),
                               ('deep-white-matter', 1, 12345.6))
        ],
        'brain_volume_mm3': 1.2e6,
        'quality': {'brain_volume_plausible': True, 'cnr': 2.25},
        'outputs': ['sub-01/anat/sub-01_space-FLAIR_label-L_mask.nii.gz'],
        'provenance': {'version': '0.1.0', 'command_line': 'ssl2-bids a b participant'},
        'error': None,
    }  # fmt: skip


def failed(session='2'):
    return {
        'subject': '01',
        'session': session,
        'status': 'failed',
        'error': {
            'Message': 'the file is truncated',
            'Advice': 'Copy it again',
            'File': 'sub-01/anat/sub-01_FLAIR.nii.gz',
            'Step': 'read',
            'Traceback': 'Traceback (most recent call last):\n  File "<stdin>"\nDataError',
        },
    }


@pytest.fixture
def make_page(tmp_path, read_page):
    """Render summaries, with the figures that they name, and read the page."""

    def make(*summaries, version='0.1.0'):
        for entry in summaries:
            for item in entry.get('figures', []):
                target = tmp_path / item['File']
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
        path = tmp_path / 'sub-01.html'
        participant.render(list(summaries), path, subject='01', version=version)
        return read_page(path)

    return make


def test_page_shows_what_a_user_looks_for(make_page):
    page = make_page(summary())
    assert page.unbalanced == []
    for words in (
        'MS lesions of sub-01', 'Research use only: not a medical device, not for diagnosis',
        'Session 1', '12.39 mL', '1.03 %', '1200 mL', '0.72 × 0.72 × 3 mm', '3 T',
        'FLAIR is a 2D acquisition.', 'has ce-gd', 'Caption of registration', 'deep white matter',
        'Lesions were segmented [1].', 'Wang J, Li H', 'threshold', '0.45', 'FLAIR, T1w',
        'ssl2-bids a b participant', 'label-L_mask.nii.gz', '−10.0',
    ):  # fmt: skip
        assert words in page.text, words


def test_lesions_are_sorted_and_sortable(make_page):
    page = make_page(summary())
    assert page.text.index('lesion 1') < page.text.index('lesion 2')
    assert '12345.6' in page.values('data-v')
    assert 'sortable' in ' '.join(page.values('class'))


def test_figures_exist_and_everything_is_local(make_page, tmp_path):
    page = make_page(summary('1'), summary('2'))
    shown = page.values('src', 'data')
    assert len(shown) == 8
    for target in page.targets:
        if target.startswith('#'):
            assert target[1:] in page.ids
        elif target.startswith('https:'):
            assert target.startswith('https://doi.org/10.')
        else:
            assert (tmp_path / unquote(target)).is_file(), target
    assert len(page.ids) == len(set(page.ids))
    assert '@import' not in page.source
    assert 'url(' not in page.source
    assert 'link' not in page.tags
    loaded = [tag for tag, name, _ in page.attributes if name in ('src', 'data')]
    assert set(loaded) == {'img', 'object'}


def test_same_summaries_give_the_same_bytes(tmp_path):
    paths = [tmp_path / 'a.html', tmp_path / 'b.html']
    for path in paths:
        entry = json.loads(json.dumps(summary()))
        participant.render([entry, failed()], path, subject='01', version='0.1.0')
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_rendering_leaves_the_summary_alone(make_page):
    entry = summary()
    before = copy.deepcopy(entry)
    make_page(entry)
    assert entry == before


def poison(value):
    """Every text of a summary replaced by one that tries to break out."""
    if isinstance(value, dict):
        kept = ('Kind', 'status', 'methods', 'name')
        return {k: v if k in kept else poison(v) for k, v in value.items()}
    if isinstance(value, list):
        return [poison(v) for v in value]
    return EVIL if isinstance(value, str) else value


@pytest.mark.parametrize('make', [summary, failed])
def test_evil_names_stay_text(tmp_path, read_page, make):
    entry = poison(make())
    entry['figures'] = [
        {'File': name, 'Title': EVIL, 'Caption': EVIL, 'Kind': kind}
        for name in ('javascript:alert(1)', EVIL, 'a b#c?d%20.svg')
        for kind in ('lesions', 'registration')
    ]
    entry['settings'] = {EVIL: EVIL}
    entry['methods'] = [EVIL]
    path = tmp_path / 'a.html'
    participant.render([entry, entry], path, subject=EVIL, version=EVIL)
    page = read_page(path)
    assert page.unbalanced == []
    assert page.tags.count('script') == 1  # ours
    assert 'alert' not in ''.join(page.values('onclick', 'onload', 'onerror', 'style'))
    assert EVIL in page.text
    assert not [t for t in page.targets if t.startswith('javascript:')]
    assert 'a%20b%23c%3Fd%2520.svg' in page.targets


def test_page_of_a_failed_participant_has_advice_at_the_top(make_page):
    page = make_page(failed(None))
    assert page.unbalanced == []
    text = page.text
    assert 'The file is truncated.' in text
    assert 'What to do: Copy it again.' in text
    assert 'at the step “read”' in text
    assert text.index('What to do') < text.index('Traceback')
    assert page.tags.index('details') < page.tags.index('pre')
    assert 'No lesion was found' not in text


def test_one_failure_among_sessions_is_named_first(make_page):
    page = make_page(summary('1'), failed('2'))
    top = page.text.index('1 of 2 results are missing')
    assert top < page.text.index('At a glance') < page.text.index('12.39')
    assert page.text.index('Copy it again.') < page.text.index('At a glance')


def test_skipped_is_not_called_failed(make_page):
    entry = failed() | {'status': 'skipped', 'error': {'Message': 'no FLAIR and no T1w image'}}
    text = make_page(entry).text
    assert 'No FLAIR and no T1w image.' in text
    assert 'failed' not in text


def test_no_lesion_is_a_result(make_page):
    entry = summary() | {'lesions': []}
    entry['volumes'] = [
        {
            'name': 'all', 'lesion_count': 0, 'volume_mm3': 0.0, 'volume_largest_mm3': 0.0,
            'lesion_load': 0.0,
        }
    ]  # fmt: skip
    text = make_page(entry).text
    assert 'No lesion was found.' in text
    assert '0.00 mL' in text
    assert 'All lesions' not in text


@pytest.mark.parametrize('missing', [None, float('nan'), 'n/a'])
def test_missing_numbers_are_dashes(make_page, missing):
    entry = summary()
    for key in ('x', 'probability_mean', 'region'):
        entry['lesions'][0][key] = missing
    entry['brain_volume_mm3'] = missing
    entry['volumes'][0]['lesion_load'] = missing
    entry['reference']['MagneticFieldStrength'] = missing
    entry['quality'] = {'cnr': missing}
    page = make_page(entry)
    assert not re.search(r'\bnan\b', page.text, re.IGNORECASE)
    assert 'None' not in page.text
    assert 'field strength not known' in page.text
    assert '–' in page.text


def test_the_quality_of_images_is_a_table_with_flags_and_reasons(make_page):
    entry = summary()
    flag = {'Code': 'noise', 'Value': 2.1, 'Threshold': 5.0, 'Text': 'noise'}
    entry['image_quality'] = {
        'T1w': {'Metrics': {'tissue_snr': 21.44, 'cnr': 3.2}, 'NotAvailable': {}, 'Flags': []},
        'FLAIR': {
            'Metrics': {'tissue_snr': 2.1, 'cnr': None},
            'NotAvailable': {'cnr': 'the image shows the brain only'},
            'Flags': [flag],
        },
    }
    page = make_page(entry)
    assert page.unbalanced == []
    assert 'SNR in tissue21.42.1' in ''.join(page.text.split('\n'))
    assert 'the image shows the brain only' in page.values('title')
    assert page.values('class').count('n flag') == 1
    assert 'Joint variation' not in page.text  # no image has it


def test_two_models_are_distinguished(make_page):
    page = make_page(summary('1'), summary('1', model='adapted'))
    assert 'Session 1, model default' in page.text
    assert 'Session 1, model adapted' in page.text
    assert 'At a glance' in page.text


def test_default_model_without_label_is_distinguished_from_an_adapted_one(make_page):
    text = make_page(summary('1', model=''), summary('1', model='adapted')).text
    assert 'Session 1, model ssl2-flair' in text
    assert 'Session 1, model adapted' in text


def test_empty_summary_is_a_page(make_page):
    page = make_page({})
    assert page.unbalanced == []
    assert 'Research use only' in page.text


def test_unknown_citation_is_an_internal_error(tmp_path):
    with pytest.raises(UnknownReferenceError):
        participant.render(
            [summary() | {'methods': ['x [@nobody1900]']}],
            tmp_path / 'a.html',
            subject='01',
            version='0.1.0',
        )
    assert not (tmp_path / 'a.html').exists()


def test_the_page_states_how_the_model_was_adapted(make_page):
    adapted = {
        'Rung': 'recalibrated', 'Parent': 'fast-3t', 'Labelled': ['sub-07'], 'LeftOut': 'slices',
        'Dice': [0.6, 0.55], 'LesionF1': [0.7, 0.65],
        'Recalibration': {'Scale': 0.8, 'Shift': -1.5, 'ThresholdMove': 1.3,
                          'MinimumLesionVolume': 10.0},
    }  # fmt: skip
    text = make_page(summary(model='site') | {'adaptation': adapted}).text
    for words in (
        'recalibrated, on manual masks of sub-07', 'multiplied by 0.80 and changed by −1.50',
        'lesions below 10.0 mm³ are left out', 'labelled slices left out of the fit: 0.600',
        'evidence is within one person', 'The Dice did not increase', 'lesion F1 0.700 and 0.650',
    ):  # fmt: skip
        assert words in text, words
    earlier = {'Rung': 'whole', 'Parent': 'fast-3t'}  # of a version that knew less
    assert 'Model of the site: whole' in make_page(summary() | {'adaptation': earlier}).text
    untested = adapted | {'LeftOut': 'nothing', 'Dice': [None, None], 'LesionF1': [None, None]}
    assert 'Not tested:' in make_page(summary() | {'adaptation': untested}).text
