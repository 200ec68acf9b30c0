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
from test_swin_unetr import fill, waves

from ssl2_bids.errors import DataError, UnavailableError
from ssl2_bids.networks.cards import CARD_KEYS
from ssl2_bids.networks.weights import (
    BUNDLED,
    DEFAULT_MODEL,
    NETWORKS,
    build_network,
    bundled_models,
    find_model,
    initialise,
    load_network,
    new_network,
    read_card,
    read_weights,
    write_model,
)

NORMALISATION = {'Type': 'median-mad', 'Clip': [-6, 8], 'Divide': 3, 'Background': 0}


@pytest.fixture
def model(tmp_path):
    """A copy of a bundled model of one network, outside the package."""
    return Path(shutil.copytree(BUNDLED / 'fast-3t', tmp_path / 'models' / 'mine'))


def edit(folder, **changes):
    """Change keys of a card; ``None`` removes one."""
    path = folder / 'model.json'
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_the_default_card_describes_the_model(tmp_path):
    card = find_model(None, tmp_path)
    assert (card.name, card.label) == (DEFAULT_MODEL, '')
    assert card.channels == ('FLAIR', 'T1w', 'T2w', 'T2starw')
    assert card.required == (('FLAIR',), ('T1w',))
    assert card.voxel_size == (1.0, 1.0, 1.0)
    assert (card.window, card.overlap) == ((96, 96, 96), 0.25)
    assert (card.threshold, card.minimum_lesion_volume) == (0.5, 3.0)
    assert card.normalisation['Type'] == 'median-mad'
    assert card.content['TrainedOn'].startswith('images simulated on the anatomy of 28 people')
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
        ('Normalisation', NORMALISATION | {'Type': 'z-score'}),
        ('Normalisation', NORMALISATION | {'Region': 'head'}),
        ('Normalisation', NORMALISATION | {'Clip': [8, -6]}),
        ('Normalisation', NORMALISATION | {'Divide': 0}),
        ('Normalisation', NORMALISATION | {'Background': None}),
        ('Orientation', 'LPS'),
        ('Absent', 'mean'),
        ('SkullStripped', False),
        ('Window', [16000, 16000, 16000]),
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
    reason = 'Multiple' if isinstance(value, dict) and 'Multiple' in value else f'"{key}"'
    with pytest.raises(UnavailableError, match=reason):
        read_card(model)


def test_a_network_without_levels_is_named(model):
    card = read_card(model)
    edit(model, Network=card.network | {'Channels': []})
    with pytest.raises(UnavailableError, match='"Network"'):
        load_network(read_card(model))


def test_a_changed_copy_of_a_bundled_model_is_named(tmp_path, caplog):
    copy = tmp_path / 'copy'
    shutil.copytree(BUNDLED / 'fast-3t', copy)
    find_model(str(copy), tmp_path)
    assert not caplog.records
    edit(copy, VoxelSize=[2.0, 2.0, 2.0])
    find_model(str(copy), tmp_path)
    assert 'differs from the bundled fast-3t' in caplog.text
    caplog.clear()
    edit(copy, Name='coarse')
    find_model(str(copy), tmp_path)
    assert not caplog.records


def test_an_unknown_network_is_refused_with_the_known_ones(model):
    edit(model, Network={'Type': 'transformer'})
    with pytest.raises(UnavailableError, match="'transformer'; this version knows committee"):
        read_card(model)


def test_a_set_of_channels_can_have_a_threshold_of_its_own(model):
    edit(model, Thresholds=[{'Channels': ['T1w'], 'Threshold': 0.2}])
    card = read_card(model)
    assert card.threshold_for(['T1w']) == card.threshold_for(['UNIT1']) == 0.2
    assert card.threshold_for(['FLAIR', 'T1w']) == card.threshold_for(['FLAIR']) == card.threshold
    assert card.threshold_for(['T1w', 'PDw']) == 0.2  # the model does not see the second


@pytest.mark.parametrize(
    'thresholds',
    [
        {'T1w': 0.2},
        [{'Channels': ['T1w']}],
        [{'Channels': 'T1w', 'Threshold': 0.2}],
        [{'Channels': ['T1w'], 'Threshold': 1}],
        [{'Channels': ['PDw'], 'Threshold': 0.2}],
    ],
)
def test_impossible_thresholds_of_sets_are_refused(model, thresholds):
    edit(model, Thresholds=thresholds)
    with pytest.raises(UnavailableError, match='"Thresholds"'):
        read_card(model)


@pytest.mark.parametrize(
    'calibration',
    [{'Scale': 0, 'Shift': 0}, {'Scale': 1}, {'Scale': 'x', 'Shift': 0}, [1, 0],
     {'Scale': 1, 'Shift': 1e9}],
)  # fmt: skip
def test_a_calibration_that_is_none_is_named(model, calibration):
    edit(model, Calibration=calibration)
    with pytest.raises(UnavailableError, match='"Calibration"'):
        read_card(model)


def test_a_calibration_is_part_of_what_a_model_is(model):
    plain = read_card(model)
    assert plain.calibration == (1, 0)
    assert 'Calibration' not in plain.identity
    edit(model, SiteMinimumLesionVolume='many')
    with pytest.raises(UnavailableError, match='"SiteMinimumLesionVolume" is not a volume'):
        read_card(model)
    edit(model, SiteMinimumLesionVolume=None)
    edit(model, Calibration={'Scale': 0.7, 'Shift': -1})
    card = read_card(model)
    assert card.calibration == (0.7, -1)
    assert card.identity['Calibration'] == {'Scale': 0.7, 'Shift': -1}


@pytest.mark.parametrize('text', ['', '{"Name": ', '[]', '\udcff'])
def test_a_damaged_card_is_refused(model, text):
    (model / 'model.json').write_bytes(text.encode('utf-8', 'surrogateescape'))
    with pytest.raises(UnavailableError, match='model.json: the card is'):
        read_card(model)


def test_a_network_without_its_parameters_is_refused(model):
    edit(model, Network={'Type': 'fast_unet'})
    with pytest.raises(UnavailableError, match='"Network": \'InputChannels\' is missing'):
        read_card(model)


@pytest.mark.parametrize('channels', [['a'], [-8, 16], 7])
def test_a_network_that_cannot_be_built_is_refused(model, channels):
    network = {
        'Type': 'fast_unet',
        'InputChannels': 4,
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
        assert (card.folder, card.label) == (model, 'fast3t')
    edit(model, Label='adapted')
    assert find_model('mine', tmp_path).label == 'adapted'


def test_a_model_named_by_a_relative_path_is_found_from_any_folder(model, tmp_path, monkeypatch):
    monkeypatch.chdir(model.parent)
    card = find_model(model.name, tmp_path / 'out')
    monkeypatch.chdir('/')  # as the steps of a workflow do
    assert read_weights(card)


def test_an_unknown_model_is_answered_with_those_there_are(model, tmp_path):
    with pytest.raises(UnavailableError, match=f'{DEFAULT_MODEL}.*models there are mine') as info:
        find_model('mien', tmp_path)
    assert info.value.exit_code == 69
    with pytest.raises(UnavailableError, match='there is none'):
        find_model('mien', tmp_path / 'empty')


def test_a_folder_without_a_card_is_no_model(tmp_path):
    with pytest.raises(UnavailableError, match='no such file; the folder is not a model'):
        find_model(str(tmp_path), tmp_path)


def test_loading_gives_float32_in_evaluation_mode_and_leaves_the_random_state(tmp_path):
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    network = load_network(find_model('fast-3t', tmp_path))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not network.training
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    stored = load_file(BUNDLED / 'fast-3t' / 'weights.safetensors')
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
    for reason in ('out.bias is missing', 'extra is left over', 'stem.weight has shape (24, 8,'):
        assert reason in info.value.message


def test_weights_that_are_not_numbers_are_named(model):
    state = load_file(model / 'weights.safetensors')
    state['out.bias'][:] = float('nan')
    store(model, state)
    with pytest.raises(UnavailableError, match='not finite numbers, in out.bias'):
        load_network(read_card(model))


def test_a_file_that_is_not_safetensors_is_refused(model):
    path = model / 'weights.safetensors'
    path.write_bytes(b'version https://git-lfs.github.com/spec/v1\n')
    edit(model, Sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(UnavailableError, match='cannot be read'):
        load_network(read_card(model))


def test_a_missing_device_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip('this machine has a GPU')
    with pytest.raises(UnavailableError, match='the device cuda is not available'):
        load_network(find_model(None, tmp_path), 'cuda')


# storing a model, and building every type of network from its card

DESCRIPTIONS = {
    'fast_unet': {'Channels': [4, 8], 'FullResolutionChannels': 2},
    'residual_unet': {'Channels': [4, 6, 8]},
    'swin_unetr': {
        'FeatureSize': 12,
        'Depths': [1, 1, 1, 1],
        'Heads': [2, 2, 4, 4],
        'Bottleneck': 'thin',
        'DropPath': 0.1,
    },
    'swin_unet': {
        'Channels': [4, 6, 8, 12],
        'FullResolutionChannels': 2,
        'Depths': [2, 1, 1],
        'Heads': [2, 2, 3],
        'AttentionWindow': 3,
    },
    'committee': {
        'Members': [
            {'Type': 'fast_unet', 'Channels': [4, 8], 'FullResolutionChannels': 2},
            {'Type': 'residual_unet', 'Channels': [4, 6, 8]},
        ]
    },
}
MULTIPLES = {
    'committee': 4,
    'fast_unet': 4,
    'residual_unet': 4,
    'swin_unet': 16,
    'swin_unetr': 32,
}


def card_content(kind, **network):
    return {
        'Name': 'small',
        'Version': '1',
        'Network': {'Type': kind, 'InputChannels': 2, 'OutputChannels': 1}
        | DESCRIPTIONS[kind]
        | network,
        'Channels': ['FLAIR', 'T1w'],
        'Required': [['FLAIR']],
        'VoxelSize': [1.0, 1.0, 1.0],
        'Normalisation': NORMALISATION,
        'Threshold': 0.5,
        'MinimumLesionVolume': 3,
        'Window': [64, 32, 32],
        'Overlap': 0.25,
    }


def small_network(kind):
    return fill(new_network(card_content(kind)['Network'], seed=1))


def test_every_type_of_network_is_tried_here():
    assert set(DESCRIPTIONS) == set(NETWORKS)


@pytest.mark.parametrize('kind', sorted(DESCRIPTIONS))
def test_a_stored_model_computes_what_the_network_computed(kind, tmp_path):
    network = small_network(kind)
    card = write_model(tmp_path / 'models' / 'small', network, card_content(kind))
    assert card == find_model('small', tmp_path)
    assert card.network['Multiple'] == MULTIPLES[kind]
    stored = load_file(card.folder / 'weights.safetensors')
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    image = waves(1, 2, 64, 32, 32)
    with torch.inference_mode():
        before, after = network(image), load_network(card)(image)
    # half precision keeps 11 bits
    assert (torch.sigmoid(before) - torch.sigmoid(after)).abs().max() < 0.02
    assert (before - after).abs().mean() < 2e-3 * before.abs().mean() + 2e-3


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for name in 'ab':
        write_model(tmp_path / name, small_network('swin_unetr'), card_content('swin_unetr'))
    for file in ('model.json', 'weights.safetensors'):
        assert (tmp_path / 'a' / file).read_bytes() == (tmp_path / 'b' / file).read_bytes()


@pytest.mark.parametrize('value', [float('nan'), 1e6])
def test_weights_that_half_precision_cannot_hold_are_not_stored(value, tmp_path):
    network = small_network('fast_unet')
    with torch.no_grad():
        network.out.bias.fill_(value)
    with pytest.raises(DataError, match='not finite in half precision are out.bias'):
        write_model(tmp_path / 'new', network, card_content('fast_unet'))
    assert not (tmp_path / 'new').exists()


def test_a_card_of_another_network_is_refused_before_anything_is_written(tmp_path):
    network = small_network('fast_unet')
    with pytest.raises(UnavailableError, match='another network .* decoder.0.c1.weight is mis'):
        write_model(tmp_path / 'new', network, card_content('residual_unet'))
    content = card_content('fast_unet')
    del content['Window']
    with pytest.raises(UnavailableError, match='"Window" is missing'):
        write_model(tmp_path / 'new', network, content)
    assert not (tmp_path / 'new').exists()


def test_replacing_a_model_that_stops_half_way_is_noticed(tmp_path, monkeypatch):
    content = card_content('fast_unet')
    write_model(tmp_path, small_network('fast_unet'), content)
    other = new_network(content['Network'], seed=9)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('ssl2_bids.networks.weights.write_json', stop)
    with pytest.raises(KeyboardInterrupt):
        write_model(tmp_path, other, content)
    with pytest.raises(UnavailableError, match='SHA-256'):
        load_network(read_card(tmp_path))
    assert not list(tmp_path.glob('.tmp-*'))


@pytest.mark.parametrize('kind', sorted(DESCRIPTIONS))
def test_an_unknown_parameter_is_named(kind, tmp_path):
    content = card_content(kind, Depth=3) | {'Sha256': '0' * 64}
    (tmp_path / 'model.json').write_text(json.dumps(content))
    with pytest.raises(UnavailableError, match=f"'Depth' is unknown; {kind} knows .*Channels"):
        read_card(tmp_path)
    with pytest.raises(KeyError, match='Depth'):
        new_network(content['Network'])


@pytest.mark.parametrize(
    ('kind', 'wrong', 'reason'),
    [
        ('swin_unetr', {'FeatureSize': 18, 'Heads': [3, 6, 12, 24]}, 'divisible by 12'),
        ('swin_unetr', {'FeatureSize': '24'}, 'cannot be built'),
        ('swin_unetr', {'Heads': 3}, 'cannot be built'),
        ('swin_unetr', {'Heads': [0, 2, 4, 4]}, 'cannot be built'),
        ('swin_unetr', {'Bottleneck': 'fat'}, 'full, thin'),
        ('fast_unet', {'Norm': 'batch'}, "norm 'batch' is none of instance, voxel"),
        ('residual_unet', {'Channels': [4]}, 'two levels'),
        ('residual_unet', {'Channels': [4, 0]}, 'features at each'),
    ],
)
def test_impossible_parameters_are_refused_with_the_file(kind, wrong, reason, tmp_path):
    content = card_content(kind, **wrong) | {'Sha256': '0' * 64}
    (tmp_path / 'model.json').write_text(json.dumps(content))
    with pytest.raises(UnavailableError, match=f'model.json: "Network" .*{reason}'):
        build_network(read_card(tmp_path))


@pytest.mark.parametrize(
    ('window', 'reason'),
    [([64, 48, 64], 'not a multiple of 32, which swin_unetr needs'), ([32] * 3, 'one voxel')],
)
def test_windows_that_swin_unetr_cannot_take_are_refused(window, reason, tmp_path):
    content = card_content('swin_unetr') | {'Sha256': '0' * 64, 'Window': window}
    (tmp_path / 'model.json').write_text(json.dumps(content))
    with pytest.raises(UnavailableError, match=reason):
        read_card(tmp_path)


@pytest.mark.parametrize('kind', sorted(DESCRIPTIONS))
def test_a_seed_fixes_the_random_weights_and_leaves_the_generator(kind):
    description = card_content(kind)['Network']
    before = torch.random.get_rng_state()
    first, second = (new_network(description, seed=5).state_dict() for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = new_network(description, seed=6).state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


# starting from the weights of another network


def test_initialising_from_all_weights():
    source = small_network('swin_unetr')
    target = new_network(card_content('swin_unetr')['Network'], seed=2)
    wrapped = {f'module._orig_mod.{name}': t for name, t in source.state_dict().items()}
    loaded = initialise(target, wrapped)
    assert loaded.share == 1
    assert (loaded.missing, loaded.unexpected, loaded.mismatched) == ((), (), ())
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name])


def test_initialising_another_head_reports_what_was_left():
    source = small_network('swin_unetr')
    description = card_content('swin_unetr', OutputChannels=2)['Network']
    target = new_network(description, seed=2)
    own = target.state_dict()['out.bias'].clone()
    loaded = initialise(target, source.state_dict() | {'mask_token': torch.zeros(3)})
    assert [fault.split()[0] for fault in loaded.mismatched] == ['out.bias', 'out.weight']
    assert loaded.unexpected == ('mask_token',)
    assert 0.95 < loaded.share < 1
    assert torch.equal(target.state_dict()['out.bias'], own)


def test_initialising_the_encoder_alone():
    source = small_network('swin_unetr').state_dict()
    encoder = {name: tensor for name, tensor in source.items() if name.startswith('encoder.')}
    target = new_network(card_content('swin_unetr')['Network'], seed=2)
    with pytest.raises(UnavailableError, match='bottleneck.deep1.weight is missing'):
        initialise(target, encoder)
    untouched = target.state_dict()['out.weight'].clone()
    loaded = initialise(target, source, part='encoder.')
    assert set(loaded.loaded) == set(encoder)
    assert torch.equal(target.state_dict()['out.weight'], untouched)


def test_weights_of_other_names_fail_by_name_and_change_nothing():
    """What a loader that is not strict would pass over: nothing fits, nothing is loaded."""
    source = {f'swinViT.{name}': t for name, t in small_network('swin_unetr').state_dict().items()}
    target = new_network(card_content('swin_unetr')['Network'], seed=2)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(UnavailableError, match='only 0 of the .* bottleneck.deep1.weight is miss'):
        initialise(target, source)
    with pytest.raises(UnavailableError, match='only 0 of'):
        initialise(target, {})
    assert all(torch.equal(before[name], t) for name, t in target.state_dict().items())


def test_a_smaller_share_can_be_asked_for():
    source = small_network('residual_unet').state_dict()
    part = {name: source[name] for name in list(source)[:10]}
    target = new_network(card_content('residual_unet')['Network'], seed=2)
    with pytest.raises(UnavailableError):
        initialise(target, part, minimum_share=0.5)
    assert len(initialise(target, part, minimum_share=0.1).loaded) == 10
