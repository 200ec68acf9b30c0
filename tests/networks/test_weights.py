"""Cards and weights: what is found, and what is refused in which words."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ssl2_bids.errors import UnavailableError
from ssl2_bids.networks.cards import CARD_KEYS
from ssl2_bids.networks.weights import (
    BUNDLED,
    DEFAULT_MODEL,
    build_network,
    bundled_models,
    find_model,
    load_network,
    read_card,
)


@pytest.fixture
def model(tmp_path):
    """A copy of the bundled default model, outside the package."""
    return Path(shutil.copytree(BUNDLED / DEFAULT_MODEL, tmp_path / 'models' / 'mine'))


def edit(folder, **changes):
    """Change keys of a card; ``None`` removes one."""
    path = folder / 'model.json'
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_the_default_card_says_what_the_model_is(tmp_path):
    card = find_model(None, tmp_path)
    assert (card.name, card.label, card.channels) == (DEFAULT_MODEL, '', ('FLAIR', 'T1w', 'T2w'))
    assert card.required == (('FLAIR',), ('T1w',))
    assert card.voxel_size == (1.0, 1.0, 1.0)
    assert (card.window, card.overlap) == ((96, 96, 96), 0.25)
    assert (card.threshold, card.minimum_lesion_volume) == (0.5, 3.0)
    assert card.normalisation['Type'] == 'median-mad'
    assert card.content['TrainedOn'].startswith('synthetic images only')
    assert card.folder == BUNDLED / DEFAULT_MODEL


def test_the_bundled_models_are_complete_and_load():
    assert DEFAULT_MODEL in bundled_models()
    for name in bundled_models():
        card = read_card(BUNDLED / name)
        assert card.name == name
        assert (card.folder / 'README.md').is_file()
        load_network(card)


def test_reading_a_card_needs_no_torch():
    code = (
        'import sys; from pathlib import Path; from ssl2_bids.networks.weights import find_model; '
        'find_model(None, Path()); sys.exit("torch" in sys.modules)'
    )
    root = str(Path(__file__).resolve().parents[2])
    subprocess.run([sys.executable, '-c', code], check=True, cwd=root)


@pytest.mark.parametrize('key', sorted(CARD_KEYS))
def test_a_missing_key_is_named_with_its_file(model, key):
    edit(model, **{key: None})
    with pytest.raises(UnavailableError, match=f'model.json: "{key}" is missing'):
        read_card(model)


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('Name', '--'),
        ('Version', 1),
        ('Network', 'fast_unet'),
        ('Network', {'Type': 'fast_unet', 'InputChannels': 2}),
        ('Network', {'Type': 'fast_unet', 'Multiple': 64}),
        ('Channels', 'FLAIR'),
        ('Channels', ['FLAIR', 'FLAIR', 'T1w']),
        ('Required', ['FLAIR']),
        ('Required', [['PDw']]),
        ('VoxelSize', [1.0, 1.0]),
        ('VoxelSize', [1.0, 1.0, 0]),
        ('Normalisation', {}),
        ('Threshold', '0.5'),
        ('Threshold', 1.5),
        ('Threshold', True),
        ('MinimumLesionVolume', -1),
        ('Window', [96, 96, 95]),
        ('Window', [96, 96, 96.0]),
        ('Overlap', 1),
        ('Sha256', 'e1f0'),
        ('Label', 'my-label'),
    ],
)
def test_an_impossible_value_is_named(model, key, value):
    edit(model, **{key: value})
    said = 'Multiple' if isinstance(value, dict) and 'Multiple' in value else f'"{key}"'
    with pytest.raises(UnavailableError, match=said):
        read_card(model)


def test_an_unknown_network_is_refused_with_the_known_ones(model):
    edit(model, Network={'Type': 'transformer'})
    with pytest.raises(UnavailableError, match="'transformer'; this version knows fast_unet"):
        read_card(model)


@pytest.mark.parametrize('text', ['', '{"Name": ', '[]', '\udcff'])
def test_a_damaged_card_is_refused(model, text):
    (model / 'model.json').write_bytes(text.encode('utf-8', 'surrogateescape'))
    with pytest.raises(UnavailableError, match='model.json: the card is'):
        read_card(model)


def test_a_network_without_its_parameters_is_refused(model):
    edit(model, Network={'Type': 'fast_unet'})
    with pytest.raises(UnavailableError, match='"Network": \'InputChannels\' is missing'):
        build_network(read_card(model))


@pytest.mark.parametrize('channels', [['a'], [-8, 16], 7])
def test_a_network_that_cannot_be_built_is_refused(model, channels):
    network = {
        'Type': 'fast_unet',
        'InputChannels': 3,
        'Channels': channels,
        'FullResolutionChannels': 4,
        'OutputChannels': 1,
    }
    edit(model, Network=network)
    with pytest.raises(UnavailableError, match='"Network" cannot be built'):
        build_network(read_card(model))


def test_models_are_found_by_name_label_and_path(model, tmp_path):
    assert find_model(DEFAULT_MODEL, tmp_path).label == ''
    for name in ('mine', str(model)):
        card = find_model(name, tmp_path)
        assert (card.folder, card.label) == (model, 'bootstrap3t')
    edit(model, Label='adapted')
    assert find_model('mine', tmp_path).label == 'adapted'


def test_an_unknown_model_is_answered_with_those_there_are(model, tmp_path):
    with pytest.raises(UnavailableError, match=f'{DEFAULT_MODEL}.*models there are mine') as info:
        find_model('mien', tmp_path)
    assert info.value.exit_code == 69
    with pytest.raises(UnavailableError, match='there is none'):
        find_model('mien', tmp_path / 'empty')


def test_a_folder_without_a_card_is_no_model(tmp_path):
    with pytest.raises(UnavailableError, match='no such file, so the folder holds no model'):
        find_model(str(tmp_path), tmp_path)


def test_loading_gives_float32_in_evaluation_mode_and_leaves_the_random_state(tmp_path):
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    network = load_network(find_model(None, tmp_path))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not network.training
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    stored = load_file(BUNDLED / DEFAULT_MODEL / 'weights.safetensors')
    assert torch.equal(network.stem.weight, stored['stem.weight'].float())


def test_other_weights_than_the_cards_are_refused(model):
    path = model / 'weights.safetensors'
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match='weights.safetensors: its SHA-256 is .* the card'):
        load_network(read_card(model))
    path.unlink()
    with pytest.raises(UnavailableError, match='weights.safetensors: the weights cannot be read'):
        load_network(read_card(model))


def store(model, state):
    path = model / 'weights.safetensors'
    save_file(state, path)
    edit(model, Sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_tensors_that_do_not_fit_are_named(model):
    state = load_file(model / 'weights.safetensors')
    state['extra'] = state.pop('out.bias')
    state['stem.weight'] = state['stem.weight'][:, :8].contiguous()
    store(model, state)
    with pytest.raises(UnavailableError) as info:
        load_network(read_card(model))
    for said in ('out.bias is missing', 'extra is left over', 'stem.weight has shape (24, 8,'):
        assert said in info.value.message


def test_a_file_that_is_not_safetensors_is_refused(model):
    path = model / 'weights.safetensors'
    path.write_bytes(b'version https://git-lfs.github.com/spec/v1\n')
    edit(model, Sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(UnavailableError, match='cannot be read'):
        load_network(read_card(model))


def test_a_device_that_is_not_there_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip('this machine has a GPU')
    with pytest.raises(UnavailableError, match='the device cuda cannot be had'):
        load_network(find_model(None, tmp_path), 'cuda')
