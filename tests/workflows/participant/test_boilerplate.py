"""``--boilerplate-only``: the methods text of a run, before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from phantoms import brain_image

from ssl2_bids.errors import NoInputError
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant.run import run_participant_level

NAMES = ('CITATION.md', 'CITATION.bib', 'CITATION.html')


def texts(settings: ParticipantSettings) -> dict[str, str]:
    return {name: (settings.output_dir / 'logs' / name).read_text() for name in NAMES}


def write_texts(settings: ParticipantSettings) -> int:
    code, outcomes = run_participant_level(replace(settings, boilerplate_only=True))
    assert outcomes == []
    return code


def files(folder: Path) -> dict[str, bytes]:
    """All but the texts."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.name not in NAMES
    }


@pytest.fixture
def settings(make_dataset, tmp_path) -> ParticipantSettings:
    """FLAIR and T1w; FLAIR alone, whose mask is given; T2w alone. The run is a quick one."""
    image, stripped = brain_image(), {'SkullStripped': True}
    root = make_dataset(
        {
            'sub-01/anat/sub-01_FLAIR.nii.gz': image,
            'sub-01/anat/sub-01_FLAIR.json': stripped,
            'sub-01/anat/sub-01_T1w.nii.gz': brain_image(seed=1),
            'sub-01/anat/sub-01_T1w.json': stripped,
            'sub-02/anat/sub-02_FLAIR.nii.gz': image,
            'sub-03/anat/sub-03_T2w.nii.gz': image,
        }
    )
    mask = image.__class__((image.get_fdata() > 0).astype('uint8'), image.affine)
    make_dataset({'sub-02/anat/sub-02_desc-brain_mask.nii.gz': mask}, 'masks')
    return ParticipantSettings(
        root,
        tmp_path / 'out',
        tmp_path / 'work',
        device='cpu',
        brain_mask=tmp_path / 'masks',
        sloppy=True,
    )


def test_the_text_is_that_of_the_run_and_results_stay(settings):
    assert write_texts(settings) == 0
    before = texts(settings)
    assert files(settings.output_dir) == {}
    assert not settings.work_dir.exists()
    assert 'deepbet' not in before['CITATION.md']
    assert 'brain mask was given by the user' in before['CITATION.md']
    assert run_participant_level(settings)[0] == 0
    assert texts(settings) == before

    # of one participant, otherwise: the sentences of the other's result stay
    done = files(settings.output_dir)
    other = replace(settings, participants=('01',), threshold=0.37, uncertainty=True)
    assert write_texts(other) == 0
    assert files(settings.output_dir) == done
    after = texts(settings)['CITATION.md']
    assert 'at least 0.37 ' in after
    assert 'brain mask was given by the user' in after
    usual = next(part for part in before['CITATION.md'].split('. ') if 'probability of at' in part)
    assert usual in after

    # what is finished already is described by its result
    assert write_texts(settings) == 0
    assert texts(settings) == before


def test_no_participant_to_describe(settings):
    lines: list[str] = []
    alone = replace(settings, participants=('03',), boilerplate_only=True)
    code, _ = run_participant_level(alone, show=lines.append)
    assert code == NoInputError.exit_code
    assert 'sub-03: not described' in lines[0]
    assert not settings.output_dir.exists()
