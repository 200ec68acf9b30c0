"""Content that was not downloaded: what is missing, and the command that gets it."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest
from running_app import digests

from ssl2_bids.bids.dataset import optional_table
from ssl2_bids.cli.app import main
from ssl2_bids.workflows.simulation.run import simulate


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('simulated') / 'data'
    simulate(root, subjects=1, seed=3, contrasts=('T1w', 'FLAIR'))
    return root


@pytest.fixture
def dataset(made, tmp_path):
    """The FLAIR is here, the T1w is a link without content."""
    anat = tmp_path / 'data' / 'sub-01' / 'anat'
    anat.mkdir(parents=True)
    (tmp_path / 'data' / 'dataset_description.json').write_bytes(
        (made / 'dataset_description.json').read_bytes()
    )
    for path in (made / 'sub-01' / 'anat').iterdir():
        if path.name.endswith('T1w.nii.gz'):
            (anat / path.name).symlink_to('../../.git/annex/objects/x')
        else:
            (anat / path.name).write_bytes(path.read_bytes())
    return tmp_path / 'data'


def run(dataset, tmp_path, *more):
    level = 'participant' if 'group' not in more else 'group'
    words = [str(dataset), str(tmp_path / 'out'), level, '-w', str(tmp_path / 'work')]
    return main([*words, '--nprocs', '1', *(m for m in more if m != 'group')])


def test_a_dry_run_has_the_command(dataset, tmp_path, capsys):
    assert run(dataset, tmp_path, '--dry-run') == 0
    text = capsys.readouterr().out
    assert f'in {dataset}: "datalad get sub-01/anat/sub-01_T1w.nii.gz' in text


def test_a_sidecar_is_part_of_the_command(dataset, tmp_path, capsys):
    sidecar = dataset / 'sub-01' / 'anat' / 'sub-01_FLAIR.json'
    sidecar.unlink()
    sidecar.symlink_to('../../.git/annex/objects/y')
    assert run(dataset, tmp_path, '--dry-run', '--contrasts', 'flair') == 0
    text = capsys.readouterr().out
    assert f'in {dataset}: "datalad get sub-01/anat/sub-01_FLAIR.json' in text


def test_a_contrast_that_is_not_asked_for_is_not_missed(dataset, tmp_path, capsys):
    assert run(dataset, tmp_path, '--dry-run', '--contrasts', 'flair') == 0
    assert 'datalad' not in capsys.readouterr().out.replace('run "datalad get" on it', '')


def test_a_required_contrast_makes_the_session_fail(dataset, tmp_path, caplog, capsys):
    assert run(dataset, tmp_path, '--require', 'flair', '--dry-run') == 0
    with caplog.at_level(logging.INFO, 'ssl2_bids'):
        assert run(dataset, tmp_path, '--require', 'flair', 't1w') == 66
    assert 'no T1w can be used, which --require names' in caplog.text
    assert 'datalad get sub-01/anat/sub-01_T1w.nii.gz' in caplog.text
    assert not list((tmp_path / 'out').rglob('*.nii.gz'))


def test_a_disk_that_fails_costs_no_result(dataset, tmp_path, capsys, monkeypatch):
    words = ('--sloppy', '--contrasts', 'flair')
    assert run(dataset, tmp_path, *words) == 0
    before = digests(tmp_path / 'out')

    def fail(stream):
        raise OSError(errno.EIO, 'Input/output error')

    with monkeypatch.context() as patched:
        patched.setattr('ssl2_bids.digests.sha256_of', fail)
        image = dataset / 'sub-01' / 'anat' / 'sub-01_FLAIR.nii.gz'
        image.write_bytes(image.read_bytes())
        assert run(dataset, tmp_path, *words) == 74
    assert 'sub-01_FLAIR.nii.gz: reading failed' in capsys.readouterr().err
    after = digests(tmp_path / 'out')
    assert {n: d for n, d in after.items() if '/anat/' in n} == {
        n: d for n, d in before.items() if '/anat/' in n
    }
    assert run(dataset, tmp_path, *words) == 0
    assert 'already finished' in capsys.readouterr().err


def test_a_result_stays_where_an_image_it_was_made_from_is_lost_for_a_while(
    made, dataset, tmp_path, caplog, capsys
):
    t1w, flair = (dataset / f'sub-01/anat/sub-01_{name}.nii.gz' for name in ('T1w', 'FLAIR'))
    whole = (made / 'sub-01/anat/sub-01_T1w.nii.gz').read_bytes()
    t1w.unlink()
    t1w.write_bytes(whole)
    assert run(dataset, tmp_path, '--sloppy') == 0
    results = tmp_path / 'out' / 'sub-01'
    before = digests(results)
    content = flair.read_bytes()

    def lose(how: str) -> None:
        flair.unlink()
        if how == 'absent':
            flair.symlink_to('../../.git/annex/objects/x')
        else:
            flair.write_bytes(content[: {'damaged': len(content) // 2, 'no header': 20}[how]])

    cases = (
        ('absent', f'in {dataset}: "datalad get'),
        ('damaged', '--overwrite'),
        ('no header', '--overwrite'),
    )
    for how, text in cases:
        lose(how)
        caplog.clear()
        with caplog.at_level(logging.INFO, 'ssl2_bids'):
            assert run(dataset, tmp_path, '--sloppy') == 66
        assert 'cannot be used now' in caplog.text
        assert 'sub-01_FLAIR.nii.gz' in caplog.text
        assert text in caplog.text
        assert digests(results) == before
        assert run(dataset, tmp_path, 'group') == 0  # the result counts

    # a failed run in between does not end this protection
    flair.unlink()
    flair.write_bytes(content)
    assert run(dataset, tmp_path, '--sloppy', '--require', 't2w') == 66
    lose('absent')
    masks = {path: path.read_bytes() for path in results.rglob('*_mask.nii.gz')}
    assert run(dataset, tmp_path, '--sloppy') == 66
    assert {path: path.read_bytes() for path in results.rglob('*_mask.nii.gz')} == masks

    # asked for, it is replaced; and an image that is taken away is another choice
    assert run(dataset, tmp_path, '--sloppy', '--overwrite') == 0
    assert digests(results) != before
    flair.unlink()
    flair.write_bytes(content)
    assert run(dataset, tmp_path, '--sloppy') == 0
    flair.unlink()
    assert run(dataset, tmp_path, '--sloppy') == 0


def test_results_that_were_dropped_stay_and_are_named(dataset, tmp_path, caplog, capsys):
    out = tmp_path / 'out'
    with caplog.at_level(logging.INFO, 'ssl2_bids'):
        assert run(dataset, tmp_path, '--sloppy') == 0
    assert f'in {dataset}: "datalad get sub-01/anat/sub-01_T1w.nii.gz' in caplog.text
    assert '1 done, 1 with absent files (exit code 0)' in caplog.text
    caplog.clear()
    for path in (out / 'sub-01').rglob('*_mask.nii.gz'):
        path.unlink()
        path.symlink_to('../../.git/annex/objects/x')
    before = digests(out / 'sub-01')
    with caplog.at_level(logging.INFO, 'ssl2_bids'):
        assert run(dataset, tmp_path, '--sloppy') == 66
        assert 'results of an earlier run are not here' in caplog.text
        assert (
            f'The content of 2 files is absent; in {out}: "datalad get sub-01/anat' in caplog.text
        )
        assert 'overwrite' not in caplog.text
        caplog.clear()
        assert run(dataset, tmp_path, 'group') == 66
    text = capsys.readouterr().err
    assert 'the result is not here' in text
    assert f'in {out}: "datalad get sub-01/anat' in text
    assert 'overwrite' not in text
    assert 'participant" first' not in text
    assert digests(out / 'sub-01') == before


@pytest.mark.parametrize('lost', ['inv-1_part-mag', 'inv-2_part-mag', 'inv-2_part-phase'])
@pytest.mark.parametrize('uniform', [True, False])
def test_parts_of_an_mp2rage_are_part_of_the_command(
    make_dataset, tmp_path, capsys, lost, uniform
):
    names = [f'inv-{n}_part-{part}_MP2RAGE' for n in (1, 2) for part in ('mag', 'phase')]
    root = make_dataset(
        [f'sub-01/anat/sub-01_{n}.nii.gz' for n in (*names, 'FLAIR', *['UNIT1'] * uniform)]
    )
    path = root / 'sub-01' / 'anat' / f'sub-01_{lost}_MP2RAGE.nii.gz'
    path.unlink()
    path.symlink_to('../../.git/annex/objects/x')
    assert run(root, tmp_path, '--dry-run') == 0
    text = capsys.readouterr().out
    assert f'datalad get sub-01/anat/{path.name}' in text
    assert f'{path.name}: its content is absent' in text
    capsys.readouterr()
    assert run(root, tmp_path, '--dry-run', '--contrasts', 'flair') == 0
    assert 'datalad get' not in capsys.readouterr().out


@pytest.mark.parametrize('name', ['participants.tsv', 'dataset_description.json'])
def test_files_of_the_whole_dataset(dataset, tmp_path, capsys, caplog, name):
    (dataset / name).unlink(missing_ok=True)
    (dataset / name).symlink_to('.git/annex/objects/x')
    if name == 'participants.tsv':
        assert optional_table(dataset / name, 'participant_id') == []
        text = caplog.text
    else:
        assert run(dataset, tmp_path, '--dry-run') == 16
        text = capsys.readouterr().err
    assert f'in {dataset}: "datalad get {name}' in text


def test_a_folder_of_results_without_permission_is_named(dataset, tmp_path, capsys, monkeypatch):
    is_link = Path.is_symlink

    def refuse(self):  # the tests may run as root, who may look into any folder
        if self.parent == tmp_path / 'out' / 'sub-01' / 'anat':
            raise PermissionError(errno.EACCES, 'Permission denied', str(self))
        return is_link(self)

    with monkeypatch.context() as patched:
        patched.setattr(Path, 'is_symlink', refuse)
        assert run(dataset, tmp_path, '--sloppy', '--contrasts', 'flair') == 73
    text = capsys.readouterr().err
    assert 'cannot be written (Permission denied)' in text
    assert 'sub-01/anat' in text
