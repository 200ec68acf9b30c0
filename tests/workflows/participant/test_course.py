"""What becomes of sessions and their earlier results where a run fails or ends early."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from phantoms import brain_image
from site_phantom import CARD, make_low_model

from ssl2_bids.bids.outputs import find_results, find_summary
from ssl2_bids.errors import SOME_FAILED, DataError, StorageError, UnavailableError, UsageError
from ssl2_bids.files import write_json
from ssl2_bids.networks.weights import read_card
from ssl2_bids.reports import participant
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.current_results import current_results
from ssl2_bids.workflows.participant import graph, pages, summary
from ssl2_bids.workflows.participant.engine import running, task
from ssl2_bids.workflows.participant.plan import Plan
from ssl2_bids.workflows.participant.planned_outputs import planned_outputs
from ssl2_bids.workflows.participant.planning import is_finished, plan_sessions
from ssl2_bids.workflows.participant.run import run_participant_level

from nipype import Workflow  # isort: skip  after task.py has settled nipype's ways

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


def stop_at(settings: ParticipantSettings, stage: str) -> None:
    """Run until a stage of any session begins."""

    def interrupt(name: str, begun: str, status: str, stages: int) -> None:
        if (begun, status) == (stage, 'start'):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_participant_level(settings, progress=interrupt)


def test_an_overwritten_session_that_never_ran_is_not_done(settings):
    finish_all(settings)
    asked = replace(settings, overwrite=True, stop_on_first_crash=True)
    code, outcomes = run_participant_level(asked)
    assert code == SOME_FAILED
    assert [one.status for one in outcomes] == ['failed', 'failed']
    assert 'stopped by another failure (--stop-on-first-crash)' in outcomes[1].reason
    assert current(settings) == ['01', '02']


def current(settings: ParticipantSettings) -> list[str]:
    """The participants whose results count."""
    kept, _ = current_results(find_results(settings.output_dir))
    return [result.names.subject for result in kept]


def test_a_run_that_ends_early_leaves_the_results_of_sessions_that_it_never_began(settings):
    plans = finish_all(settings)
    stop_at(replace(settings, threshold=0.4), 'prepare_FLAIR')
    assert current(settings) == ['02']
    assert [is_finished(plan) for plan in plans] == [False, True]
    stop_at(settings, 'prepare_FLAIR')  # the command of before has one session to do
    other = replace(settings, threshold=0.4, stop_on_first_crash=True)
    _, outcomes = run_participant_level(other)
    assert [one.status for one in outcomes] == ['failed', 'failed']
    assert [one.stays for one in outcomes] == [False, True]
    assert current(settings) == ['02']
    assert is_finished(plans[1])


def test_a_session_without_a_result_that_never_began_has_its_reason(settings):
    stop_at(settings, 'prepare_FLAIR')
    for plan in plan_sessions(settings):
        assert 'interrupted' in find_summary(plan.names)['error']['Message']


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


def test_a_damaged_cache_beside_a_result_of_other_settings_is_made_again(settings):
    """nipype reads its own files in this process: what they raise belongs to no session."""
    only = replace(settings, participants=('02',))
    stop_at(only, 'brain_FLAIR')
    (plan,) = plan_sessions(only)
    cached = list(graph.branch_folder(plan, only.work_dir).glob('prepare_FLAIR/*.pklz'))
    assert cached
    finish(plan)
    for path in cached:
        path.write_bytes(b'')
    stop_at(replace(only, threshold=0.4), 'brain_FLAIR')  # and not at the damaged file


def test_a_second_pass_does_not_hide_why_the_first_ended(make_dataset, tmp_path, monkeypatch):
    """One session is run again without its T1w; the queue has refused the job of another."""
    files = {f'sub-{n}/anat/sub-{n}_FLAIR.nii': None for n in ('01', '02')}
    root = make_dataset(files | {'sub-01/anat/sub-01_T1w.nii': EMPTY})
    settings = ParticipantSettings(root, tmp_path / 'out', tmp_path / 'work', device='cpu')
    passes = []

    def run(workflow, settings, *, gpus, progress):
        passes.append(workflow.list_node_names())
        if len(passes) > 1:
            return None
        folder = settings.work_dir / 'participant' / 'sub_01' / 'prepare_T1w'
        folder.mkdir(parents=True)
        error = DataError('the image is empty', path=root / 'sub-01/anat/sub-01_T1w.nii')
        write_json(folder / task.FAILURE, task.describe_failure(error, 'prepare'))
        return RuntimeError('sbatch refused the job: over quota')

    monkeypatch.setattr(running, 'run', run)
    monkeypatch.setattr(running, 'sessions_at_once', lambda settings: None)
    _, outcomes = run_participant_level(settings)
    assert len(passes) == 2
    assert not any('T1w' in name for name in passes[1])
    assert 'sbatch refused the job: over quota' in outcomes[1].reason


def test_damaged_files_of_one_session_do_not_hide_why_the_run_ended(settings, monkeypatch):
    plans = plan_sessions(settings)
    folders = [graph.branch_folder(plan, settings.work_dir) for plan in plans]
    folders[0].mkdir(parents=True)  # of an earlier run
    runs = []

    def run(workflow, settings, *, gpus, progress):
        runs.append(workflow.list_node_names())
        if len(runs) > 1:
            return None
        error = DataError('this image is damaged', path=folders[0] / 'prepare_FLAIR' / 'a.nii')
        folder = folders[0] / 'prepare_FLAIR'
        folder.mkdir()
        write_json(folder / task.FAILURE, task.describe_failure(error, 'prepare'))
        return RuntimeError('sbatch refused the job: over quota')

    monkeypatch.setattr(running, 'run', run)
    monkeypatch.setattr(running, 'sessions_at_once', lambda settings: None)
    _, outcomes = run_participant_level(settings)
    assert len(runs) == 2
    assert 'sbatch refused the job: over quota' in outcomes[1].reason


def test_damaged_files_of_nipype_cost_no_session_that_had_none(settings, monkeypatch):
    plans = plan_sessions(settings)
    graph.branch_folder(plans[0], settings.work_dir).mkdir(parents=True)  # of an earlier run
    runs = []

    def run(workflow, settings, *, gpus, progress):
        runs.append(' '.join(str(node) for node in workflow._graph.nodes()))
        return None if len(runs) > 1 else EOFError('Ran out of input')

    monkeypatch.setattr(running, 'run', run)
    monkeypatch.setattr(running, 'sessions_at_once', lambda settings: None)
    run_participant_level(settings)
    assert len(runs) == 2
    assert runs[0] == runs[1]


def test_a_folder_of_results_that_may_not_be_entered_ends_no_run(settings, monkeypatch):
    def denied(names):
        raise PermissionError(errno.EACCES, 'Permission denied', str(names.root))

    monkeypatch.setattr('ssl2_bids.workflows.participant.course.results_beside', denied)
    asked = replace(settings, stop_on_first_crash=True)
    code, outcomes = run_participant_level(asked)
    assert code == SOME_FAILED
    assert [outcome.status for outcome in outcomes] == ['failed', 'failed']


def test_jobs_side_by_side_keep_the_sections_of_each_other(make_dataset, tmp_path, monkeypatch):
    """One job ends after the other has read all summaries, and before it writes the page."""
    root = make_dataset({f'sub-01/ses-{s}/anat/sub-01_ses-{s}_FLAIR.nii': None for s in 'ab'})
    settings = ParticipantSettings(root, tmp_path / 'out', tmp_path / 'work', device='cpu')
    first, other = plan_sessions(settings)
    finish(first)
    render, ended = participant.render, []

    def end_the_other(*given, **more):
        if not ended:
            ended.append(other)
            finish(other)
            pages.write_pages(settings.output_dir, {'01'})
        render(*given, **more)

    monkeypatch.setattr(participant, 'render', end_the_other)
    (page,) = pages.write_pages(settings.output_dir, {'01'})
    assert 'Session a' in page.read_text()
    assert 'Session b' in page.read_text()


def step(number: int) -> dict[str, int]:
    """A stage of no length."""
    return {'made': number}


def test_a_plugin_of_nipype_reports_the_start_and_the_end_of_stages(tmp_path):
    settings = ParticipantSettings(
        tmp_path / 'in', tmp_path / 'out', tmp_path / 'work',
        plugin={'plugin': 'MultiProc', 'plugin_args': {'n_procs': 1}},
    )  # fmt: skip
    workflow, branch = Workflow('participant', base_dir=str(tmp_path / 'work')), Workflow('sub_01')
    branch.add_nodes([task.make_node('finish', step, {'number': 1}, outputs=['made'])])
    workflow.add_nodes([branch])
    seen = []
    error = running.run(workflow, settings, gpus=0, progress=lambda *event: seen.append(event))
    assert error is None
    assert seen == [('sub_01', 'finish', status, 1) for status in ('start', 'end')]
    assert running.reports(settings)
    assert not running.reports(replace(settings, plugin={'plugin': 'SLURMGraph'}))


@pytest.mark.parametrize('plugin', ['SLURM', 'SLURMGraph'])
def test_intermediate_files_are_removed_with_every_plugin(settings, monkeypatch, plugin):
    """One session fails in the queue; the other ends, and only SLURM reports it."""
    plans = plan_sessions(settings)
    failing, done = (graph.branch_folder(plan, settings.work_dir) for plan in plans)

    def run(workflow, settings, *, gpus, progress):
        for folder in (failing, done):
            (folder / 'prepare_FLAIR').mkdir(parents=True)
        failure = task.describe_failure(DataError('the image is empty'), 'prepare')
        write_json(failing / 'prepare_FLAIR' / task.FAILURE, failure)
        finish(plans[1])
        if running.reports(settings):
            progress('sub_02', graph.LAST, 'end', 9)
            assert not done.exists()  # while others are still processed
        return RuntimeError('a stage failed')

    monkeypatch.setattr(running, 'run', run)
    asked = replace(settings, plugin={'plugin': plugin}, clean_workdir=True)
    code, outcomes = run_participant_level(asked)
    assert code == SOME_FAILED
    assert [one.status for one in outcomes] == ['failed', 'done']
    assert failing.exists()
    assert not done.exists()


def test_a_model_that_was_not_accepted_is_remarked_in_log_and_page(settings, caplog):
    """Also on the page of a result that an earlier version made without the remark."""
    refused = {**CARD, 'Label': 'adapted', 'Accepted': False, 'Parent': {'Name': 'fast-3t'}}
    make_low_model(settings.output_dir / 'models', 0.0, refused)
    asked = replace(settings, model='low', participants=('02',))
    (plan,) = finish_all(asked)
    remark = (
        'the model adapted was not accepted after its adaptation: its masks are those of the '
        'start model fast-3t'
    )
    known = find_summary(plan.names)
    assert known['warnings'] == [remark]
    for text in ([remark], []):
        write_json(plan.names.path('report.summary'), known | {'warnings': text})
        assert run_participant_level(asked)[0] == 0
        page = (settings.output_dir / 'sub-02.html').read_text(encoding='utf-8')
        assert page.lower().count(remark) == 1
    assert [r.levelname for r in caplog.records if remark in r.getMessage()] == ['WARNING']
    usual = {**CARD, 'Label': 'adapted', 'Accepted': True}
    assert not make_low_model(settings.output_dir / 'models', 0.0, usual).refusal


@pytest.mark.parametrize('dry_run', [False, True])
def test_weights_that_were_cut_end_a_run_with_nothing_else_to_do(settings, dry_run):
    adapted = {**CARD, 'Label': 'adapted', 'Parent': {'Name': 'fast-3t'}}
    card = make_low_model(settings.output_dir / 'models', 0.0, adapted)
    asked = replace(settings, model='low', participants=('02',))
    finish_all(asked)
    asked = replace(asked, dry_run=dry_run)
    assert run_participant_level(asked)[0] == 0
    weights = card.folder / 'weights.safetensors'
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UnavailableError, match='the file is damaged') as raised:
        run_participant_level(asked)
    assert raised.value.path == str(weights)
    assert raised.value.exit_code == 69
    assert 'run the adaptation again' in raised.value.advice


def test_a_model_is_refused_whose_label_another_model_of_the_output_folder_has(settings, caplog):
    """Before anything is segmented; its results would not count beside those of the other."""
    adapted = {**CARD, 'Label': 'adapted', 'Parent': {'Name': 'fast-3t'}}
    models = settings.output_dir / 'models'
    own = make_low_model(models, -1.0, adapted).folder.rename(models / 'adapted')
    elsewhere = make_low_model(settings.work_dir / 'elsewhere', -0.5, adapted).folder
    asked = replace(settings, model=str(elsewhere), participants=('02',))
    for more in ({}, {'dry_run': True}, {'boilerplate_only': True}):
        with pytest.raises(UsageError, match='the label adapted, and the output') as raised:
            run_participant_level(replace(asked, **more))
        assert str(own) in raised.value.message
        assert raised.value.exit_code == 64
        assert 'Give --model adapted for the model of this folder' in raised.value.advice
    copied = shutil.copytree(own, settings.work_dir / 'copied')
    for name in (str(copied), 'adapted'):
        assert finish_all(replace(asked, model=name))
    card = json.loads((elsewhere / 'model.json').read_text(encoding='utf-8'))
    write_json(elsewhere / 'model.json', card | {'Label': 'other'})
    (plan,) = finish_all(asked)
    assert plan.names.desc == 'other'
    counts, left_out = current_results(find_results(settings.output_dir))
    assert sorted(r.names.desc for r in counts) == ['adapted', 'other']
    assert not left_out
    assert not [r for r in caplog.records if r.levelname == 'WARNING']
    shutil.copytree(own, models / 'other')
    write_json(models / 'other/model.json', read_card(own).content | {'Label': 'other'})
    ((_, why),) = current_results(find_results(settings.output_dir))[1]
    assert why == (
        'the result is of another model named other, not of the one in models/other; '
        'run the participant level again with --model other'
    )
    assert run_participant_level(replace(asked, reports_only=True))[0] == 0
    assert why in (settings.output_dir / 'sub-02.html').read_text(encoding='utf-8')


@pytest.mark.parametrize('content', [None, 'link', b'version https://git-lfs.github.com/spec/v1'])
def test_weights_that_are_absent_end_no_run_with_nothing_left_to_segment(settings, content):
    card = make_low_model(settings.work_dir / 'models', 0.0, {**CARD, 'Label': 'low'})
    asked = replace(settings, model=str(card.folder), participants=('02',))
    finish_all(asked)
    weights = card.folder / 'weights.safetensors'
    weights.unlink()
    if content == 'link':
        weights.symlink_to('../../.git/annex/objects/x')
    elif content:
        weights.write_bytes(content)
    for dry_run in (True, False):
        assert run_participant_level(replace(asked, dry_run=dry_run))[0] == 0
    with pytest.raises(UnavailableError) as raised:
        run_participant_level(replace(asked, overwrite=True))
    assert raised.value.path == str(weights)
