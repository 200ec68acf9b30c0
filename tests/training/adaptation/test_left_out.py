from dataclasses import replace

import numpy as np
import pytest
import torch
from site_phantom import as_participant, head, make_model

from ssl2_bids.networks.weights import read_card
from ssl2_bids.training.adaptation.left_out import DICE, dice_of, quality
from ssl2_bids.training.data.participants import Participant


class Oracle(torch.nn.Module):
    """Marks what is dark in the second channel."""

    def forward(self, image):
        return -20 * (image[:, 1:] + 1.4)


@pytest.fixture(scope='module')
def card(tmp_path_factory):
    return read_card(make_model(tmp_path_factory.mktemp('model')))


def test_the_quality_of_a_perfect_and_of_a_useless_model(card):
    person = as_participant(head(1), 'sub-01', card)
    assert dice_of(Oracle(), person, card, 'cpu') > 0.9
    people = [person, as_participant(head(2), 'sub-02', card)]
    nothing = torch.nn.Conv3d(2, 1, 1)
    torch.nn.init.zeros_(nothing.weight)
    torch.nn.init.constant_(nothing.bias, -5.0)
    assert quality(people, card, 'cpu')(nothing) == {DICE: 0.0}


def test_only_what_is_annotated_counts(card):
    person = as_participant(head(1), 'sub-01', card)
    lesion = person.label > 0
    half = np.zeros_like(person.annotated)
    half[:, :, : half.shape[2] // 2] = 1
    wrong = person.label * half  # the rater drew nothing in the other half
    seen = Participant('sub-01', person.image, person.present, person.brain, wrong, half)
    whole = Participant('sub-01', person.image, person.present, person.brain, wrong, half * 0 + 1)
    assert lesion.any()
    assert dice_of(Oracle(), seen, card, 'cpu') > 0.9 > dice_of(Oracle(), whole, card, 'cpu')


def test_the_threshold_is_that_of_the_channels_that_are_there(card):
    person = as_participant(head(1), 'sub-01', card)
    assert all(person.present)
    strict = ((frozenset(card.channels), 1.1),)  # with all channels nothing is marked
    assert dice_of(Oracle(), person, replace(card, thresholds=strict), 'cpu') == 0
    one = Participant(
        'sub-01', person.image, (False, True), person.brain, person.label, person.annotated
    )
    assert dice_of(Oracle(), one, replace(card, thresholds=strict), 'cpu') > 0.9
