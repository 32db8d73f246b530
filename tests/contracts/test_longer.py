"""More steps for a run that is there: what goes on exactly, what changes, what is refused."""

from __future__ import annotations

import json
import os
import signal

import pytest

from oneword.concepts import formats
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.runs import ComposeConfig
from oneword.config.tuning import TuningConfig
from oneword.errors import ConfigError
from oneword.runs.compose import compose
from oneword.runs.events import Message, Stepped
from oneword.runs.many import train_many
from oneword.runs.train import dry_run, train


pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture
def learn(make, tiny_sd):
    """Train, with what was said."""

    def learned(output, steps, *, stop_at=None, **settings):
        said = []

        def watch(event):
            if isinstance(event, Message):
                said.append(event.text)
            if isinstance(event, Stepped) and event.step == stop_at:
                os.kill(os.getpid(), signal.SIGINT)

        config = make(output, inversion=settings | {"max_train_steps": steps})
        return train(config, on_event=watch, backbone=tiny_sd), " ".join(said)

    return learned


def same(tmp_path, one="run", other="whole"):
    """Whether two runs are the same but for what the clock put into them."""
    words = [formats.load_concept(tmp_path / name) for name in (one, other)]
    for word in words:
        word.provenance.pop("train_time_s")
    courses = []
    for name in (one, other):
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()]
        courses.append(
            [line | {"time_s": 0, "distance": round(line["distance"], 5)} for line in lines]
        )
    return (
        words[0].sha256() == words[1].sha256()
        and words[0].provenance == words[1].provenance
        and courses[0] == courses[1]
    )


@pytest.mark.parametrize(
    ("first", "settings"),
    [
        (6, {}),
        (7, {}),  # its last step is scored, that of a longer run is not
        (7, {"keep": "last"}),
        (7, {"keep": "average", "average_decay": 0.9}),
        (7, {"form": "xti"}),
        (7, {"form": "dreamartist", "num_vectors": 2}),
        (7, {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 9}),
        (7, {"lr_scheduler": "piecewise_constant", "lr_step_rules": "1:5,0.5:9,0.1"}),
        (7, {"initializer_token": None, "form": "per-image"}),
        # set back at its last step, where a longer run is set back at its next scoring
        (2, {"learning_rate": 1e30, "keep": "last"}),
    ],
)
def test_a_run_that_has_ended_goes_on_as_one_that_had_so_many_steps(
    learn, tmp_path, first, settings
):
    before, _ = learn("run", first, **settings)
    assert before.result.steps == first
    more, said = learn("run", 13, **settings)
    whole, _ = learn("whole", 13, **settings)
    assert more.result.status == whole.result.status
    assert more.result.losses == whole.result.losses
    assert more.result.messages == whole.result.messages
    assert more.concept_file == tmp_path / "run" / "learned_embeds.safetensors"
    assert same(tmp_path)
    if more.result.status == "finished":
        assert f"max_train_steps was {first} and is 13: the run continues as if it had" in said
        assert f"Resuming from step {first}." in said
        again, said = learn("run", 13, **settings)
        assert again.was_finished
        assert "Finished at step 13. To continue it, pass a higher --max-train-steps." in said


def test_a_run_that_was_stopped_goes_on_to_more_steps(learn, tmp_path):
    stopped, _ = learn("run", 6, stop_at=4)
    assert stopped.result.status == "interrupted"
    again, said = learn("run", 13, stop_at=8)
    assert again.result.status == "interrupted"
    assert "the run continues as if it had this number" in said
    _, said = learn("run", 13)
    assert "max_train_steps was" not in said
    learn("whole", 13)
    assert same(tmp_path)


def test_a_dry_run_says_so_and_changes_nothing(learn, make, tiny_sd, tmp_path):
    learn("run", 6)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    plan = dry_run(make(inversion={"max_train_steps": 13}), tiny_sd)
    assert plan["run"] == "resume"
    assert plan["notes"] == [
        "max_train_steps was 6 and is 13: the run continues as if it had this number from the "
        "start."
    ]
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}


def test_other_courses_of_the_rate_go_on_and_say_what_changes(learn):
    learn("run", 6, lr_scheduler="linear")
    more, said = learn("run", 12, lr_scheduler="linear")
    assert (more.result.status, more.result.steps) == ("finished", 12)
    assert (
        "from step 6 on, the learning rate follows linear over 12 steps, where it is 0.5 of the "
        "full rate; before it was 0. The result will differ"
    ) in said


def test_vectors_that_join_later_are_said(learn):
    settings = {"form": "progressive", "num_vectors": 3}
    learn("run", 10, **settings)
    more, said = learn("run", 20, **settings)
    assert more.result.status == "finished"
    assert more.result.concept.num_vectors == 3
    assert (
        "a vector is added every 8 steps instead of every 4: at step 10 the word has 2 of its 3 "
        "vectors instead of 3"
    ) in said


def test_steps_are_not_taken_away(learn, make, tiny_sd):
    learn("run", 6)
    learn("begun", 12, stop_at=4)
    for name, was in (("run", 6), ("begun", 12)):
        with pytest.raises(
            ConfigError, match=f"max_train_steps was {was} and is 5.*steps can only be"
        ):
            dry_run(make(name, inversion={"max_train_steps": 5}), tiny_sd)
    with pytest.raises(ConfigError, match=r"settings differ: seed was 0 and is 1\."):
        dry_run(make("run", inversion={"max_train_steps": 9, "seed": 1}), tiny_sd)


def test_a_run_that_came_to_rest_stays_so(learn):
    settings = {"early_stopping": True, "stop_window": 2, "stop_threshold": 0.99}
    settings |= {"learning_rate": 1e-4, "evaluation_steps": 1}
    rested, _ = learn("whole", 30, **settings)
    assert rested.result.status == "stopped"
    step = rested.result.steps
    # of as many steps it ends there as well, and would have come to rest
    learn("run", step, **settings)
    for name in ("whole", "run"):
        again, said = learn(name, 40, **settings)
        assert again.was_finished
        assert f"even with more steps, the run would have ended at step {step}." in said
        assert "To continue it" not in said


def test_a_run_that_was_given_up_at_half_goes_on_where_a_longer_one_would(learn, tmp_path):
    settings = {"learning_rate": 0.0, "evaluation_steps": 10}
    given_up, _ = learn("run", 100, **settings)
    assert (given_up.result.status, given_up.result.steps) == ("nothing-learned", 50)
    again, said = learn("run", 100, **settings)
    assert again.was_finished
    assert said.startswith("The run in")
    more, _ = learn("run", 115, **settings)
    assert (more.result.status, more.result.steps) == ("nothing-learned", 60)
    assert more.concept_file is None
    stays, said = learn("run", 119, **settings)
    assert stays.was_finished
    assert "max_train_steps was 115 and is 119: even with more steps, the run" in said


def test_a_description_stays_what_it_is(learn, photos):
    texts = {"short": ["a cat"] * 5, "long": ["a cat that sits"] * 5}
    (photos / "descriptions.json").write_text(
        json.dumps({k: [f"{t} {i}" for i, t in enumerate(v)] for k, v in texts.items()})
    )
    learn("run", 6, setup="captions-short")
    again, said = learn("run", 12, setup="captions-short")
    assert again.was_finished
    assert "even with more steps, the run would have ended at step 0." in said


def test_a_run_of_an_older_version_kept_nothing_to_go_on_from(learn, make, tiny_sd, tmp_path):
    learn("run", 6)
    state = tmp_path / "run" / "state.safetensors"
    from safetensors.torch import load_file, safe_open, save_file

    with safe_open(state, framework="pt") as file:
        info = json.loads(file.metadata()["oneword"])
    del info["done"][0]["last"]
    tensors = {n: t for n, t in load_file(state).items() if not n.startswith("0/last/")}
    save_file(tensors, state, {"oneword": json.dumps(info)})
    _, said = learn("run", 6)
    assert "To continue it" not in said
    with pytest.raises(ConfigError, match="ended after 6 steps without a checkpoint"):
        dry_run(make(inversion={"max_train_steps": 12}), tiny_sd)


def test_a_kill_before_the_longer_runs_file_still_leaves_it(learn, tmp_path):
    learn("run", 6)
    shorter = (tmp_path / "run" / "learned_embeds.safetensors").read_bytes()
    learn("run", 13)
    longer = formats.load_concept(tmp_path / "run").sha256()
    (tmp_path / "run" / "learned_embeds.safetensors").write_bytes(shorter)
    again, _ = learn("run", 13)
    assert again.was_finished
    assert formats.load_concept(tmp_path / "run").sha256() == longer


def test_words_that_share_a_batch_go_on_together(make, tiny_sd, tmp_path):
    def configs(place, *steps):
        return [
            make(f"{place}/{name}", inversion={"max_train_steps": n, "seed": seed})
            for seed, (name, n) in enumerate(zip("ab", steps, strict=True))
        ]

    train_many(configs("more", 7, 6), slots=2, backbone=tiny_sd)
    said = []
    outcomes = train_many(
        configs("more", 13, 13),
        slots=2,
        backbone=tiny_sd,
        on_event=lambda e: isinstance(e, Message) and said.append(e.text),
    )
    assert [one.outcome.result.steps for one in outcomes] == [13, 13]
    assert sum("the run continues as if it had this number" in text for text in said) == 2
    train_many(configs("alone", 13, 13), slots=1, backbone=tiny_sd)
    for name in "ab":
        own, alone = (formats.load_concept(tmp_path / w / name) for w in ("more", "alone"))
        moved = (own.rows["clip"] - alone.rows["clip"]).norm() / alone.rows["clip"].norm()
        assert moved < 1e-4
        assert own.provenance["steps"] == alone.provenance["steps"]


def test_words_that_are_learned_together_go_on_together(photos, tiny_folder, tmp_path):
    def learned(output, steps):
        said = []
        config = ComposeConfig(
            images=(photos, photos),
            placeholder_tokens=("<a>", "<b>"),
            initializer_tokens=("cat", "dog"),
            output_dir=tmp_path / output,
            model=ModelConfig(model=str(tiny_folder), device="cpu"),
            inversion=InversionConfig(
                max_train_steps=steps,
                train_batch_size=2,
                evaluation_steps=3,
                num_evaluation_samples=4,
            ),
        )
        results, _ = compose(config, on_message=said.append)
        return [result.concept.sha256() for result in results], said

    learned("run", 4)
    found, said = learned("run", 8)
    assert said == [
        "max_train_steps was 4 and is 8: the run continues as if it had this number from the start."
    ]
    assert found == learned("whole", 8)[0]


TUNED = {"num_class_images": 2, "tuning_learning_rate": 2e-3}


@pytest.mark.parametrize(
    ("setup", "weights"), [("lora-dreambooth", "lora"), ("custom-diffusion", "kv")]
)
def test_tuning_goes_on_as_one_that_had_so_many_steps(learn, tmp_path, setup, weights):
    settings = {"setup": setup, "tuning": TuningConfig(**TUNED)}
    learn("run", 4, **settings)
    more, said = learn("run", 8, **settings)
    assert more.result.concept.deltas
    assert (
        "max_train_steps was 4 and is 8 and tuning_steps was 4 and is 8: the run continues" in said
    )
    learn("whole", 8, **settings)
    assert same(tmp_path)
    _, said = learn("run", 8, **settings)
    assert "To continue it, pass a higher --max-train-steps." in said


def test_pivotal_tuning_may_have_more_of_the_stage_that_is_under_way(learn, tmp_path):
    def pivotal(steps, weights="lora"):
        tuned = TuningConfig(**TUNED, tuned_weights=weights, tuning_steps=steps)
        return {"setup": "pivotal", "tuning": tuned}

    learn("run", 4, stop_at=3, **pivotal(4))
    learn("run", 7, **pivotal(5))  # both stages have more
    with pytest.raises(ConfigError, match=r"Pass --max-train-steps 7 with a higher --tuning-steps"):
        learn("run", 9, **pivotal(5))
    _, said = learn("run", 7, **pivotal(8))
    assert "tuning_steps was 5 and is 8: the run continues as if it" in said
    learn("whole", 7, **pivotal(8))
    assert same(tmp_path)
    learn("full", 4, **pivotal(4, "full"))
    with pytest.raises(ConfigError, match="that train every weight, and older versions, keep none"):
        learn("full", 4, **pivotal(6, "full"))
