"""What becomes of sessions and their earlier results where a run fails or ends early."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from phantoms import brain_image

from ssl2_bids.errors import SOME_FAILED, DataError, StorageError
from ssl2_bids.files import write_json
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant import summary
from ssl2_bids.workflows.participant.engine import task
from ssl2_bids.workflows.participant.plan import Plan
from ssl2_bids.workflows.participant.planned_outputs import planned_outputs
from ssl2_bids.workflows.participant.planning import is_finished, plan_sessions
from ssl2_bids.workflows.participant.run import run_participant_level

EMPTY = brain_image().__class__(brain_image().get_fdata() * 0, brain_image().affine)


def finish(plan: Plan) -> None:
    """Write what stands for the finished result of just this plan."""
    for path in planned_outputs(plan):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'x')
    hashes = {'PreprocessingHash': plan.preprocessing}
    mask = plan.names.path('anat.brain_mask')
    write_json(mask.with_name(mask.name.replace('.nii.gz', '.json')), hashes)
    marker = {'Model': plan.card.reference, 'Channels': ['FLAIR']}
    hashes['ConfigurationHash'] = plan.configuration
    write_json(plan.names.done_marker, marker | hashes)
    summary.write_summary(plan, summary.base_summary(plan, 'done', 'command'))
    assert is_finished(plan)


@pytest.fixture
def settings(make_dataset, tmp_path) -> ParticipantSettings:
    """Two participants; the image of the first is empty, so that its session fails at once."""
    files = {f'sub-{n}/anat/sub-{n}_FLAIR.nii': i for n, i in (('01', EMPTY), ('02', None))}
    root = make_dataset(files)
    return ParticipantSettings(root, tmp_path / 'out', tmp_path / 'work', device='cpu', nprocs=1)


def finish_all(settings: ParticipantSettings) -> list[Plan]:
    plans = plan_sessions(settings)
    for plan in plans:
        finish(plan)
    return plans


def test_an_overwritten_session_that_never_ran_is_not_done(settings):
    finish_all(settings)
    asked = replace(settings, overwrite=True, stop_on_first_crash=True)
    code, outcomes = run_participant_level(asked)
    assert code == SOME_FAILED
    assert [one.status for one in outcomes] == ['failed', 'failed']
    assert 'stopped by another failure (--stop-on-first-crash)' in outcomes[1].reason


def test_an_overwritten_session_that_fails_on_a_full_disk_is_not_done(settings, monkeypatch):
    def fill(path: Path, content: object) -> None:
        raise StorageError('the disk is full', path=path)

    only = replace(settings, participants=('01',))
    (plan,) = plan_sessions(only)
    finish(plan)
    monkeypatch.setattr(task, 'write_json', fill)
    code, (outcome,) = run_participant_level(replace(only, overwrite=True))
    assert code == SOME_FAILED
    assert 'the run ended before this session was finished' in outcome.reason


@pytest.mark.parametrize('overwrite', [False, True])
def test_the_reason_of_a_failure_outlasts_its_intermediate_files(settings, overwrite):
    asked = replace(settings, participants=('01',), clean_workdir=True, overwrite=overwrite)
    code, (outcome,) = run_participant_level(asked)
    assert code == DataError.exit_code
    assert 'sub-01_FLAIR.nii' in outcome.reason
