import errno
import resource
import shutil

import pytest
import torch
from tiny_training import BrightVoxels, FindBright, settings, tiny_network

from ssl2_bids.errors import DataError, DeniedError, ReadError, UnavailableError
from ssl2_bids.training import checkpoint
from ssl2_bids.training.loop import train


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    train(FindBright(), BrightVoxels(), settings(20), folder, device='cpu')
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    shutil.copytree(trained, tmp_path / 'run')
    return tmp_path / 'run'


def test_two_are_kept_and_hold_everything(folder):
    names = [path.name for path in checkpoint.checkpoints(folder)]
    assert names == ['checkpoint-00000020.pt', 'checkpoint-00000010.pt']
    content = checkpoint.read(folder / names[0])
    assert content['step'] == 20
    assert content['task'] == {'seen': 20}
    assert len(content['history']['rows']) == 4
    assert content['modules']['network'].keys() == content['average'].keys()
    assert content['optimiser']['param_groups'][0]['betas'] == (0.9, 0.98)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(folder, caplog):
    path = folder / 'checkpoint-00000020.pt'
    path.write_bytes(path.read_bytes()[:5000])
    assert checkpoint.newest(folder)[1]['step'] == 10
    assert 'checkpoint-00000020.pt' in caplog.text
    (folder / 'checkpoint-00000010.pt').write_bytes(b'nothing')
    with pytest.raises(DataError, match='cannot be read'):
        checkpoint.newest(folder)


def test_a_damaged_later_checkpoint_is_replaced_not_kept(folder):
    later = folder / 'checkpoint-00000020.pt'
    later.write_bytes(later.read_bytes()[:5000])
    _, content = checkpoint.newest(folder)
    for step in (14, 18):
        checkpoint.save(folder, content | {'step': step})
    found = checkpoint.checkpoints(folder)
    assert [path.name for path in found] == ['checkpoint-00000018.pt', 'checkpoint-00000014.pt']
    assert [checkpoint.read(path)['step'] for path in found] == [18, 14]


def test_a_checkpoint_that_the_disk_does_not_give_is_not_taken_for_damaged(folder):
    later = folder / 'checkpoint-00000020.pt'
    later.unlink()
    later.symlink_to('/proc/self/mem')  # its first byte cannot be read: EIO
    with pytest.raises(ReadError, match=r'checkpoint-00000020\.pt: reading failed'):
        checkpoint.newest(folder)
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, former[1]))
    try:
        with pytest.raises(ReadError, match='Too many open files'):
            checkpoint.newest(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)


@pytest.mark.parametrize(
    ('cause', 'kind'),
    [
        (PermissionError(errno.EACCES, 'Permission denied'), DeniedError),
        (MemoryError(), UnavailableError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), UnavailableError),
    ],
)
def test_a_checkpoint_that_may_be_whole_is_not_passed_over(folder, monkeypatch, cause, kind):
    def fails(*args, **kwargs):
        raise cause

    monkeypatch.setattr(torch, 'load', fails)
    with pytest.raises(kind, match='checkpoint-00000020'):
        checkpoint.newest(folder)


def test_a_later_checkpoint_of_another_version_is_not_passed_over(folder):
    torch.save({'format': 99, 'step': 20}, folder / 'checkpoint-00000020.pt')
    with pytest.raises(DataError, match='not a checkpoint of this version'):
        checkpoint.newest(folder)


def test_a_foreign_file_is_no_checkpoint(tmp_path):
    torch.save({'weights': torch.zeros(1)}, tmp_path / 'checkpoint-00000001.pt')
    with pytest.raises(DataError, match='not a checkpoint of this version'):
        checkpoint.newest(tmp_path)
    assert checkpoint.newest(tmp_path / 'nowhere') is None


def test_loading_names_the_tensors_that_do_not_fit(tmp_path):
    state = tiny_network(outputs=2).state_dict()
    state['more'] = state.pop('f1.bias')
    with pytest.raises(DataError) as caught:
        checkpoint.load_all(tiny_network(), state, tmp_path / 'x.pt', 'network')
    for name in ('f1.bias is missing', 'more is left over', 'out.weight has shape'):
        assert name in str(caught.value)
