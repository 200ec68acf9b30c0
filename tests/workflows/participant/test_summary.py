"""What the report of a session is made from."""

from __future__ import annotations

import itertools

from ssl2_bids.workflows.participant.summary import in_order, methods_of


def test_methods_stand_in_the_order_of_processing_however_the_facts_come():
    """Sentences are found by the step that they are of, not by their place in a list."""
    contrasts = ['UNIT1', 'FLAIR']
    facts = [
        {'step': step, 'contrast': contrast, 'methods': [f'{step} {contrast or ""}'.strip()]}
        for step, contrast in (
            ('prepare', 'UNIT1'),
            ('prepare', 'FLAIR'),
            ('find_brain', 'UNIT1'),
            ('segment', None),
            ('find_lesions', None),
        )
    ]
    texts = {
        tuple(methods_of(contrasts, in_order(list(order), contrasts), {}))
        for order in itertools.permutations(facts)
    }
    (sentences,) = texts
    steps = [s for s in sentences if s.split()[0] in {f['step'] for f in facts}]
    assert steps == [f['methods'][0] for f in facts]
    bias, registered = (
        next(n for n, s in enumerate(sentences) if word in s) for word in ('N4', 'rigid')
    )
    brain, network = sentences.index('find_brain UNIT1'), sentences.index('segment')
    assert brain < bias < registered < network
