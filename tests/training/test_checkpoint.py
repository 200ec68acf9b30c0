import shutil

import pytest
import torch
from tiny_training import BrightVoxels, FindBright, settings, tiny_network

from ssl2_bids.errors import DataError, UsageError
from ssl2_bids.networks.registry import new_network
from ssl2_bids.training import checkpoint, lean
from ssl2_bids.training.loop import train
from ssl2_bids.training.run import History, Run, averaged


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
    assert content['predictor'] == 'network'
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


def test_eight_bits_are_near_and_never_too_small_for_second_moments():
    random = torch.Generator().manual_seed(0)
    values = torch.randn(7, lean.BLOCK, generator=random) * torch.logspace(-8, 2, 7)[:, None]
    stored = lean.from_eight_bits(lean.eight_bits(values))
    assert stored.shape == values.shape
    for row, original in zip(stored, values, strict=True):
        assert (row - original).abs().max() <= original.abs().max() * 0.01
    squares = torch.cat([values.flatten(), torch.ones(10)]) ** 2
    stored = lean.from_eight_bits(lean.eight_bits(squares, root=True))
    assert (stored >= squares * (1 - 1e-5)).all()
    assert torch.allclose(stored.sqrt(), squares.sqrt(), atol=float(values.abs().max()) / 255)
    assert torch.equal(stored[-10:], torch.ones(10))


def test_a_lean_checkpoint_goes_on_nearly_where_it_was(folder, tmp_path):
    place = tmp_path / 'lean'
    assert lean.write_lean(place, checkpoint.newest(folder)[1]) == ('average', 'moments')
    new = tmp_path / 'new'
    lean.unpack(place, new)
    full, thin = checkpoint.newest(folder)[1], checkpoint.newest(new)[1]
    for key in ('modules', 'average'):
        for (name, one), two in zip(
            weights(full[key]).items(), weights(thin[key]).values(), strict=True
        ):
            assert torch.allclose(one, two, atol=2e-3), name
    history = train(FindBright(), BrightVoxels(), settings(20), new, device='cpu')
    assert history.finished
    assert history.rows == full['history']['rows']


def weights(state):
    return state.get('network', state)


def test_without_room_for_moments_the_loop_warms_up_again(folder, tmp_path):
    content = checkpoint.read(folder / 'checkpoint-00000010.pt')
    sizes = [len(lean.serialised(content, kept)) for kept in lean.CONTENTS]
    assert sizes == sorted(sizes, reverse=True)
    place, new = tmp_path / 'lean', tmp_path / 'new'
    assert lean.write_lean(place, content, limit=sizes[0] - 1) == ('average',)
    assert lean.write_lean(place, content, limit=sizes[1] - 1) == ()
    lean.unpack(place, new)
    thin = checkpoint.newest(new)[1]
    assert thin['optimiser'] is None
    for name, tensor in thin['modules']['network'].items():
        assert torch.allclose(tensor, content['average'][name], atol=1e-3)
    history = train(FindBright(), BrightVoxels(), settings(20, again=10), new, device='cpu')
    assert history.resumed == 10
    rates = {row['step']: row['rate'] for row in history.rows}
    plain = {row['step']: row['rate'] for row in checkpoint.newest(folder)[1]['history']['rows']}
    assert rates[15] == pytest.approx(plain[15] / 2)
    assert rates[20] == pytest.approx(plain[20])
    with pytest.raises(UsageError, match='the weights alone take'):
        lean.write_lean(place, content, limit=1000)


def test_a_piece_that_is_missing_or_changed_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(lean, 'PIECE', 20_000)
    place = tmp_path / 'lean'
    lean.write_lean(place, checkpoint.newest(folder)[1])
    pieces = sorted(place.glob('lean-*.bin'))
    assert len(pieces) > 2
    assert all(path.stat().st_size <= 20_000 for path in pieces)
    pieces[1].write_bytes(b'x' + pieces[1].read_bytes()[1:])
    with pytest.raises(DataError, match='lean-001.bin'):
        lean.read_lean(place)
    pieces[1].unlink()
    with pytest.raises(DataError, match='lean-001.bin'):
        lean.read_lean(place)


def test_a_lean_checkpoint_does_not_throw_a_run_back(folder, tmp_path):
    lean.write_lean(tmp_path / 'lean', checkpoint.read(folder / 'checkpoint-00000010.pt'))
    with pytest.raises(UsageError, match='already as far'):
        lean.unpack(tmp_path / 'lean', folder)


@pytest.mark.parametrize(
    ('network', 'kept'),
    [
        ({'Type': 'fast_unet', 'Channels': [24, 48, 96, 128], 'FullResolutionChannels': 4}, 2),
        ({'Type': 'swin_unetr', 'FeatureSize': 24, 'Bottleneck': 'thin'}, 1),
    ],
)
def test_networks_of_the_project_fit_into_forty_megabytes(tmp_path, network, kept):
    description = {'InputChannels': 4, 'OutputChannels': 1, **network}
    task = FindBright(new_network(description, seed=0))
    run = Run(task, settings(10), tmp_path, torch.device('cpu'), '')
    run.optimiser.zero_grad()
    for parameter in run.learning:
        parameter.grad = torch.full_like(parameter, 1e-3)
    run.optimiser.step()
    assert averaged(task.network) is not None
    run.history = History(step=1)
    run.save()
    found = lean.write_lean(tmp_path / 'lean', checkpoint.newest(tmp_path)[1])
    sizes = [path.stat().st_size for path in (tmp_path / 'lean').iterdir()]
    assert len(found) == kept
    assert sum(sizes) < 40e6
    assert max(sizes) <= 16 * 2**20
