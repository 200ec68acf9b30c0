"""Labels that the start model of an adaptation may have learnt from."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from ssl2_bids.files import sha256
from ssl2_bids.networks.weights import find_model
from ssl2_bids.workflows.adaptation.read_labels import seen_before


def test_a_label_that_was_held_out_is_not_one_that_the_model_learnt_from(tmp_path):
    file = tmp_path / 'sub-03_label-L_mask.nii.gz'
    file.write_bytes(b'a label')
    labels = [{'File': 'bids:labels:sub-03', 'Sha256': sha256(file)}]
    case = SimpleNamespace(
        name='sub-03', participant='03', labels=(SimpleNamespace(path=file),)
    )  # the parts of a case that are read

    def remark(labelled, before):
        card = find_model('fast-3t', tmp_path)
        evidence = {'Labelled': labelled, 'SeenBefore': before}
        content = {**card.content, 'Evidence': evidence, 'Labels': labels}
        return [text for _, text in seen_before(replace(card, content=content), [case])]

    (same,) = remark(['sub-01', 'sub-03'], [])
    assert 'labels of this participant' in same
    # held out; a start model of this model learnt from a sub-03 of another site, perhaps
    (perhaps,) = remark(['sub-01'], ['sub-03'])
    assert 'labels of a participant of this name' in perhaps
    assert remark(['sub-01'], []) == []
