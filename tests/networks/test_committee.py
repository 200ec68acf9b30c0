import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ssl2_bids.errors import UnavailableError, UsageError
from ssl2_bids.files import sha256
from ssl2_bids.networks.architectures.committee import (
    Committee,
    disagreement,
    members_of,
    plain_name,
)
from ssl2_bids.networks.registry import new_network
from ssl2_bids.networks.weights import find_model, load_network, read_card, write_model
from ssl2_bids.training.pretraining.config import read_config

CNN = {'Type': 'fast_unet', 'Channels': [8, 12], 'FullResolutionChannels': 2}
SWIN = {
    'Type': 'swin_unet', 'Channels': [8, 12, 24, 24], 'Heads': [2, 2, 2], 'AttentionWindow': 3,
    'FullResolutionChannels': 2,
}  # fmt: skip
COMMITTEE = {
    'Type': 'committee', 'InputChannels': 4, 'OutputChannels': 1, 'Members': [CNN, SWIN],
}  # fmt: skip


def test_the_answer_is_the_mean_probability():
    network = new_network(COMMITTEE, seed=0).eval()
    image = torch.randn(1, 4, 32, 32, 32)
    with torch.inference_mode():
        one, two = (torch.sigmoid(member(image)) for member in network.members)
        torch.testing.assert_close(torch.sigmoid(network(image)), (one + two) / 2)


def test_calibration_moves_a_member():
    network = new_network(COMMITTEE, seed=0).eval()
    network.calibration[1] = torch.tensor([2.0, -1.0])
    image = torch.randn(1, 4, 16, 16, 16)
    with torch.inference_mode():
        opinions = network.opinions(image)
        torch.testing.assert_close(opinions[0], network.members[0](image))
        torch.testing.assert_close(opinions[1], 2 * network.members[1](image) - 1)


def test_disagreement_by_hand_and_at_the_ends():
    def of(*probabilities):
        return disagreement(torch.tensor(probabilities)).item()

    assert of(0.0, 1.0) == pytest.approx(1)  # no more than one bit for a yes or no
    assert of(0.5, 0.5) == of(0.0, 0.0) == of(1.0, 1.0, 1.0) == 0
    assert of(0.25, 0.75) == pytest.approx(1 - 0.811278, abs=1e-5)
    mean_entropy = (0.468996 + 0.970951 + 0.881291) / 3
    assert of(0.1, 0.4, 0.7) == pytest.approx(0.970951 - mean_entropy, abs=1e-5)
    many = torch.rand(3, 100_000)
    assert 0 <= disagreement(many).min() < disagreement(many).max() <= 1
    assert disagreement(many[:1].expand(3, -1)).max() < 1e-5


def test_members_that_fill_in_images_are_averaged():
    network = new_network({**COMMITTEE, 'OutputChannels': 4}, seed=0).eval()
    image = torch.randn(1, 4, 16, 16, 16)
    with torch.inference_mode():
        expected = sum(member(image) for member in network.members) / 2
        torch.testing.assert_close(network(image), expected)


def test_a_network_that_is_none_is_alone():
    network = new_network({**CNN, 'InputChannels': 1, 'OutputChannels': 1}, seed=0)
    assert members_of(network) == (network,)
    assert plain_name('members.1.encoder.stem.weight') == 'encoder.stem.weight'
    assert plain_name('encoder.stem.weight') == 'encoder.stem.weight'


def test_one_member_is_no_committee():
    with pytest.raises(ValueError, match='two members'):
        Committee([torch.nn.Identity()])


@pytest.fixture
def card_content(tmp_path):
    content = json.loads(
        (find_model('fast-3t', tmp_path).folder / 'model.json').read_text(encoding='utf-8')
    )
    return content | {'Name': 'both', 'Network': dict(COMMITTEE)}


def test_a_committee_is_stored_and_read_as_one_model(tmp_path, card_content):
    network = new_network(COMMITTEE, seed=3).eval()
    card = write_model(tmp_path / 'both', network, card_content)
    again = load_network(read_card(card.folder))
    image = torch.randn(1, 4, 16, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(again(image), network(image), atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize(
    ('members', 'reason'),
    [
        ([CNN, {**SWIN, 'InputChannels': 3}], 'member 1.*3 InputChannels.*committee 4'),
        ([CNN], 'two networks or more'),
        ([CNN, 'swin_unet'], 'two networks or more'),
        ([CNN, {'Type': 'transformer'}], "member 1 is of the unknown type 'transformer'"),
        ([CNN, {**SWIN, 'OutputChannels': 2}], 'member 1.*2 OutputChannels.*committee 1'),
        ([{**CNN, 'Channels': ['FLAIR', 'T1w']}, SWIN], 'cannot be built'),
        ([CNN, {**SWIN, 'VoxelSize': [0.7, 0.7, 0.7]}], "member 1 .*'VoxelSize'.*grid"),
        ([CNN, {**SWIN, 'Window': [96, 96, 96]}], "member 1 .*'Window'.*those of the committee"),
        ([{'Type': 'fast_unet'}, SWIN], "member 0 .fast_unet. has no 'Channels'"),
        ([CNN, COMMITTEE], 'committee itself'),
        (None, 'two networks or more'),
    ],
)
def test_a_card_whose_members_do_not_fit_is_refused(tmp_path, card_content, members, reason):
    card_content['Network'] = {**COMMITTEE, 'Members': members}
    with pytest.raises(UnavailableError, match=reason) as caught:
        write_model(tmp_path / 'both', new_network(COMMITTEE, seed=0), card_content)
    assert caught.value.path.endswith('model.json')


def without(state, start):
    return {name: tensor for name, tensor in state.items() if not name.startswith(start)}


@pytest.mark.parametrize(
    ('spoil', 'reason'),
    [
        (
            lambda state: without(state, 'members.1.'),
            r'member 1 \(swin_unet\) is missing',
        ),
        (
            lambda state: {n.replace('members.0.', ''): t for n, t in state.items()},
            r'member 0 \(fast_unet\) is missing',
        ),
        (lambda state: without(state, 'members.1.out.'), 'missing.*members.1.out'),
    ],
)
def test_weights_without_a_member_are_refused_by_its_name(tmp_path, card_content, spoil, reason):
    card = write_model(tmp_path / 'both', new_network(COMMITTEE, seed=3), card_content)
    path = card.folder / 'weights.safetensors'
    save_file(spoil(load_file(path)), path)
    content = json.loads((card.folder / 'model.json').read_text())
    content['Sha256'] = sha256(path)
    (card.folder / 'model.json').write_text(json.dumps(content))
    with pytest.raises(UnavailableError, match=reason) as caught:
        load_network(read_card(card.folder))
    assert caught.value.path.endswith('weights.safetensors')


def test_the_window_suits_all_members(tmp_path, card_content):
    card_content['Window'] = [40, 48, 48]  # enough for the first member alone
    with pytest.raises(UnavailableError, match='multiple of 16'):
        write_model(tmp_path / 'both', new_network(COMMITTEE, seed=0), card_content)


def test_a_configuration_whose_members_do_not_fit_is_refused(tmp_path):
    path = tmp_path / 'committee.toml'
    path.write_text('[network]\nType = "committee"\nMembers = [{ Type = "fast_unet" }]\n')
    with pytest.raises(UsageError, match='"network".*two networks or more'):
        read_config(path)
