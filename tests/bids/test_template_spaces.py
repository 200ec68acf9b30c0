"""Template spaces: how they are written, and which files of TemplateFlow they mean."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from template_home import make_home

from ssl2_bids.bids.template_spaces import (
    TemplateSpace,
    find_templates,
    missing_templates,
    parse_space,
)
from ssl2_bids.errors import UnavailableError, UsageError

ADULT, CHILD = 'MNI152NLin2009cAsym', 'MNIPediatricAsym'


@pytest.fixture(scope='module')
def templates(tmp_path_factory) -> Path:
    return make_home(tmp_path_factory.mktemp('templateflow'))


@pytest.fixture
def home(templates, monkeypatch) -> Path:
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(templates))
    return templates


@pytest.mark.parametrize(
    ('text', 'space', 'written', 'label'),
    [
        (ADULT, TemplateSpace(ADULT), ADULT, ADULT),
        (f'{ADULT}:res-2', TemplateSpace(ADULT, None, 2), f'{ADULT}:res-2', ADULT),
        (f'{ADULT}:res-02', TemplateSpace(ADULT, None, 2), f'{ADULT}:res-2', ADULT),
        (
            f'{CHILD}:res-1:cohort-3',
            TemplateSpace(CHILD, 3, 1),
            f'{CHILD}:cohort-3:res-1',
            f'{CHILD}+3',
        ),
        (f'{CHILD}:cohort-3', TemplateSpace(CHILD, 3), f'{CHILD}:cohort-3', f'{CHILD}+3'),
    ],
)
def test_what_is_written(text, space, written, label):
    assert parse_space(text) == space
    assert str(space) == written
    assert parse_space(written) == space
    assert space.label == label


@pytest.mark.parametrize(
    'modifier', [':res-native', ':native', ':den-32k', ':res-1:res-2', ':', ':res-0', ':res-1.5']
)
def test_unknown_modifiers(modifier):
    with pytest.raises(UsageError, match='unknown modifier'):
        parse_space(ADULT + modifier)


def test_the_files_of_a_space(home):
    asked = [ADULT, f'{ADULT}:res-2', f'{CHILD}:cohort-1:res-2']
    found = find_templates([parse_space(text) for text in asked])
    assert [template.image.relative_to(home).as_posix() for template in found] == [
        f'tpl-{ADULT}/tpl-{ADULT}_res-01_T1w.nii.gz',
        f'tpl-{ADULT}/tpl-{ADULT}_res-02_T1w.nii.gz',
        f'tpl-{CHILD}/cohort-1/tpl-{CHILD}_cohort-1_res-2_T1w.nii.gz',
    ]
    for template in found:
        assert template.mask.name == template.image.name.replace('T1w', 'desc-brain_mask')
        assert template.uri.endswith(template.image.relative_to(home).as_posix())


@pytest.mark.parametrize(
    ('text', 'part'),
    [
        ('MNI305', "get('MNI305', suffix='T1w'"),  # its files have no resolution in the name
        ('SUIT', 'TemplateFlow has no T1w image with a brain mask of SUIT, which results need.'),
        ('fsLR', 'TemplateFlow has no T1w image with a brain mask of fsLR'),
        ('MNI152NLin6Asym:res-3', 'TemplateFlow has no T1w image with a brain mask of'),
        (f'{ADULT}:res-3', f'TemplateFlow has {ADULT} as {ADULT}:res-1, {ADULT}:res-2.'),
        (f'{CHILD}:cohort-77', f'TemplateFlow has {CHILD} as {CHILD}:cohort-1:res-1'),
        (f'{CHILD}:cohort-5:res-2', f"get('{CHILD}', cohort=5, resolution=2"),
        (f'{CHILD}:cohort-1', f"get('{CHILD}', cohort=1, resolution=1"),
        ('MNI152NLin6Asym:res-2', "get('MNI152NLin6Asym', resolution=2"),  # empty files
    ],
)
def test_what_is_missing_is_named_with_the_command_that_gets_it(home, text, part):
    with pytest.raises(UnavailableError) as caught:
        find_templates([parse_space(text)])
    assert part in str(caught.value)
    assert text in str(caught.value)
    assert (str(home) in str(caught.value)) == ('api.get' in str(caught.value))


def test_of_several_missing_templates_all_are_named_with_one_command(home):
    error = missing_templates([TemplateSpace(ADULT, None, 2), TemplateSpace('MNIInfant', 2)])
    assert f'"{ADULT}:res-2" is not available, nor is "MNIInfant:cohort-2":' in error.message
    assert error.advice.count('api.get(') == 4
    assert error.advice.count('python -c') == 1


@pytest.mark.parametrize(
    ('name', 'meant'),
    [
        ('MNI152NLin2009cAsim', ADULT),
        ('mni152nlin6sym', 'MNI152NLin6Sym'),
        ('../moon', None),
        ('FLAR', 'FLAIR'),
        ('T1W', 'T1w'),
        ('nothing', None),
    ],
)
def test_a_misspelt_template_comes_with_names_like_it(home, name, meant):
    error = missing_templates([TemplateSpace(name)])
    assert f'knows no template {name}' in error.advice
    with pytest.raises(UnavailableError, match='knows no template'):
        find_templates([TemplateSpace(name)])
    assert 'api.get' not in error.advice
    assert ('Did you mean' in error.advice) == bool(meant)
    assert (meant or '') in error.advice


def test_a_misspelt_name_hides_no_other(home):
    spaces = [TemplateSpace('MNI152NLin2009cAsm'), TemplateSpace(ADULT, None, 2)]
    error = missing_templates([*spaces, TemplateSpace(CHILD)])
    assert f'or {ADULT}' in error.advice
    assert f'TemplateFlow has {CHILD} as {CHILD}:cohort-1:res-1' in error.advice
    assert error.advice.count('api.get(') == 2


def test_a_template_with_cohorts_needs_one(home):
    with pytest.raises(UsageError, match=f'{CHILD}:cohort-1, {CHILD}:cohort-2'):
        find_templates([parse_space(f'{CHILD}:res-2')])


def test_links_without_content_are_missing(home, tmp_path, monkeypatch):
    """As a dataset of DataLad has them before ``datalad get``."""
    copy = tmp_path / 'copy'
    shutil.copytree(home, copy)
    mask = copy / f'tpl-{ADULT}' / f'tpl-{ADULT}_res-01_desc-brain_mask.nii.gz'
    mask.unlink()
    mask.symlink_to('../.git/annex/objects/none')
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(copy))
    with pytest.raises(UnavailableError, match='not available') as caught:
        find_templates([TemplateSpace(ADULT)])
    name = mask.relative_to(copy).as_posix()
    assert caught.value.advice.endswith(f'in {copy}: "datalad get {name}"')
    assert 'api.get' not in caught.value.advice


def test_a_template_without_resolutions(home, tmp_path, monkeypatch):
    folder = tmp_path / 'tpl-MNI305'
    folder.mkdir()
    for kind in ('T1w', 'desc-brain_mask'):
        source = home / f'tpl-{ADULT}' / f'tpl-{ADULT}_res-02_{kind}.nii.gz'
        shutil.copy(source, folder / f'tpl-MNI305_{kind}.nii.gz')
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(tmp_path))
    (found,) = find_templates([TemplateSpace('MNI305')])
    assert found.image.name == 'tpl-MNI305_T1w.nii.gz'
    with pytest.raises(UnavailableError):
        find_templates([TemplateSpace('MNI305', None, 2)])
