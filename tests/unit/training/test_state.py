"""A loop's state: the same bytes for a file, and one run's share of it and back."""

from __future__ import annotations

import json

import pytest
import torch

from oneword.concepts.concept import Concept
from oneword.config.inversion import InversionConfig
from oneword.training.job import Job, Result
from oneword.training.state import Done, State


UNDER_WAY = (
    '{"index": 0, "slot": 0, "initializer_token": "cat", "bad": false, "step": 5, "setbacks": 1, '
    '"rate_factor": 0.5, "losses": [[0, 0.5], [5, 0.25]], "best_loss": 0.25, "best_step": 5, '
    '"distance": 0.125, "messages": ["Chosen."], "unsaid": [], "ranking": {"cat": 0.5}}'
)
ENDED = (
    '{"status": "finished", "steps": 6, "best_step": 5, "losses": [[0, 0.5], [5, 0.25]], '
    '"reason": "", "messages": [], "kind": "rows", "provenance": {"steps": 5}, "index": 0}'
)
LOOP = f'{{"jobs": ["S*"], "rounds": 5, "queue": [], "active": [{UNDER_WAY}], "done": []}}'
FILES = {
    "under way": LOOP,
    "ended": f'{{"jobs": ["S*"], "rounds": 6, "queue": [], "active": [], "done": [{ENDED}]}}',
    "ended in a batch": '{"jobs": ["S*"], "rounds": 6, "queue": [], "active": [], "done": ['
    + ENDED.replace('"index": 0}', '"index": 0, "slot": 0}')
    + "]}",
    "failed": '{"jobs": ["S*"], "rounds": 0, "queue": [], "active": [], "done": [{"status": '
    '"failed", "steps": 0, "best_step": 0, "losses": [], "reason": "no word", "messages": [], '
    '"index": 0}]}',
    "first stage": '{"jobs": ["S*"], "rounds": 5, "queue": [], "active": [{"step": 5}], "done": '
    f'[], "first_stage": {LOOP}}}',
    "tuning": '{"jobs": ["S*"], "rounds": 8, "queue": [], "active": [{"step": 8}], "done": [], '
    '"tuning": {"step": 2, "first_loss": 0.25, "losses": [[0, 0.5], [6, 0.25]], "best_loss": 0.25, '
    '"best_step": 6, "messages": [], "unsaid": ["Tuned."], "bad": false, "initializer_token": '
    'null}, "start": {"class_prompt": null, "first_step": 6, "losses": [[0, 0.5]], "provenance": '
    '{"word_sha256": "ab"}, "num_learned": 0}}',
}
"""The JSON in the state files of runs that were made before ``State`` had types."""
TENSORS = {
    "0/rows/clip": torch.ones(1, 4),
    "0/word/clip": torch.zeros(1, 4),
    "0/tensors/net": torch.arange(3.0),
}


@pytest.mark.parametrize("name", list(FILES))
def test_a_file_is_written_as_it_was_read(name):
    tensors = {n: t for n, t in TENSORS.items() if name == "tuning" or "word" not in n}
    tensors = {} if name == "failed" else tensors
    state = State.unpacked(tensors, json.loads(FILES[name]))
    written, info = state.packed()
    assert json.dumps(info) == FILES[name]
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[n], t) for n, t in tensors.items())
    assert state.step == {"under way": 5, "first stage": 5, "tuning": 8}.get(name)


def run(name, step):
    """A run of its own, so many steps in."""
    state = State.unpacked({"0/rows/clip": torch.full((1, 4), float(step))}, json.loads(LOOP))
    written, info = state.packed()
    info["active"][0]["step"] = info["rounds"] = step
    return State.unpacked(written, info | {"jobs": [name]})


def test_runs_are_joined_and_split_again():
    first, third = run("<a>", 3), run("<c>", 7)
    joined = State.joined(["a", "b", "c"], [first, None, third])
    assert joined.jobs == ("a", "b", "c")
    assert (joined.rounds, joined.queue) == (7, (1,))
    assert [(one.index, one.slot) for one in joined.active] == [(0, 0), (2, 1)]
    shares = joined.split(["<a>", "<b>", "<c>"])
    assert list(shares) == [0, 2]
    for share, own in zip(shares.values(), (first, third), strict=True):
        assert share.jobs == own.jobs
        assert share.step == own.step
        (one,), (other,) = share.active, own.active
        assert (one.index, one.slot, one.record) == (0, 0, other.record)
        assert torch.equal(one.tensors["rows/clip"], other.tensors["rows/clip"])
    assert State.joined(["a", "b"], [None, None]) is None


def test_a_result_comes_back_with_all_that_its_word_is():
    job = Job(name="a", pictures=torch.zeros(1, 3, 8, 8), config=InversionConfig())
    concept = Concept(
        placeholder_token="S*",
        rows={"clip": torch.ones(2, 4)},
        kind="xti",
        tensors={"clip/layers": torch.ones(3, 2, 4)},
        deltas={"unet.mid.diff": torch.ones(2)},
        provenance={"steps": 5},
    )
    result = Result(job=job, status="stopped", concept=concept, steps=6, losses=[(0, 0.5)])
    state = State(jobs=("a",), done=(Done.of(result),))
    written, info = state.packed()
    assert written.keys() == {"0/clip", "0/tensors/clip/layers", "0/deltas/unet.mid.diff"}
    found = State.unpacked(written, json.loads(json.dumps(info))).done[0].result(job)
    assert found.concept.sha256() == concept.sha256()
    assert (found.concept.kind, found.concept.provenance) == ("xti", {"steps": 5})
    assert (found.status, found.steps, found.losses) == ("stopped", 6, [(0, 0.5)])
