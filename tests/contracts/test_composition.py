"""Words learned together: what is pasted, who learns from it, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from oneword.cli.main import main
from oneword.concepts import formats
from oneword.config.inversion import InversionConfig
from oneword.images import to_images
from oneword.training import together
from oneword.training.draws import generator
from oneword.training.job import Job, JobError
from oneword.training.loop import invert_many
from oneword.training.together import invert_together, pasted


def pictures(num, seed, size=32):
    draws = torch.Generator().manual_seed(seed)
    return torch.rand(num, 3, size, size, generator=draws) * 2 - 1


def job(token, start="cat", seed=0, **options):
    config = InversionConfig(
        placeholder_token=token, initializer_token=start, max_train_steps=3, train_batch_size=2,
        num_evaluation_samples=4, evaluation_steps=3, learning_rate=1e-2, seed=seed, keep="last",
    )  # fmt: skip
    return Job(name=token, pictures=pictures(3, seed), config=config, **options)


# --- pasting


@pytest.mark.parametrize("seed", range(5))
def test_a_box_of_a_quarter_to_half_the_side_is_another_picture(seed):
    base, other = torch.zeros(3, 40, 60), torch.ones(3, 40, 60)
    found = pasted(base, other, generator(seed, 0))
    rows, columns = found[0].any(1), found[0].any(0)
    assert torch.allclose(found[:, rows][:, :, columns], torch.ones(1))
    assert 10 <= int(rows.sum()) <= 20
    assert 15 <= int(columns.sum()) <= 30
    assert int(rows.sum() * columns.sum()) == int((found[0] != 0).sum())
    assert not base.any()


def test_boxes_differ_and_reach_every_border():
    boxes = set()
    for seed in range(60):
        found = pasted(torch.zeros(3, 8, 8), torch.ones(3, 8, 8), generator(seed, 0))[0]
        rows, columns = found.any(1).nonzero().flatten(), found.any(0).nonzero().flatten()
        boxes.add((int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])))
    assert min(b[0] for b in boxes) == min(b[2] for b in boxes) == 0
    assert max(b[1] for b in boxes) == max(b[3] for b in boxes) == 7


def test_only_what_the_mask_marks_is_pasted():
    base, other = torch.zeros(3, 32, 32), torch.ones(3, 32, 32)
    assert not pasted(base, other, generator(1, 0), torch.zeros(1, 32, 32)).any()
    half = torch.zeros(1, 32, 32)
    half[:, :, :16] = 1
    whole = int((pasted(base, other, generator(1, 0))[0] != 0).sum())
    assert int((pasted(base, other, generator(1, 0), half)[0] > 0.5).sum()) == pytest.approx(
        whole / 2, rel=0.15
    )


# --- learning


def rows(results):
    return {r.job.name: r.concept.rows["clip"] for r in results}


def test_without_pasting_the_words_are_those_learned_apart(tiny_sd):
    jobs = [job("<a>"), job("<b>", "dog", seed=1)]
    apart, found = invert_many(tiny_sd, jobs, slots=2), invert_together(tiny_sd, jobs, paste=0)
    for one, other in zip(apart, found, strict=True):
        assert torch.equal(one.concept.rows["clip"], other.concept.rows["clip"])
    assert found[0].concept.provenance["learned_together"] == {"words": ["<a>", "<b>"], "paste": 0}


def test_a_caption_with_two_words_teaches_both(tiny_sd):
    """A rate of zero for the owner leaves its rows; the other's change by the owner's samples."""
    owner, other = job("<a>"), job("<b>", "dog", seed=1)
    both = (pictures(6, 9), ["a <a> next to a <b>"] * 6)
    plain = rows(invert_together(tiny_sd, [owner, other], paste=0))
    taught = rows(invert_together(tiny_sd, [owner, other], paste=0, together=both))
    assert not torch.allclose(plain["<b>"], taught["<b>"], atol=1e-4)
    # the other word's own pictures and draws are the same in both
    assert not torch.allclose(plain["<a>"], taught["<a>"], atol=1e-4)


def test_the_share_that_is_pasted_and_its_captions(tiny_sd):
    told, seen = {}, {}

    def stop(progress):
        told[progress.job.name] = len(progress.job.pictures)
        seen[progress.job.name] = progress.job.pictures
        raise KeyboardInterrupt

    jobs = [job("<a>"), job("<b>", "dog", seed=1)]
    invert_together(tiny_sd, jobs, paste=0.1, on_step=stop)
    assert told["<a>"] == 3 * 9 + 3
    own = jobs[0].pictures
    composites = [p for p in seen["<a>"] if not any(torch.equal(p, o) for o in own)]
    assert len(composites) == 3
    for composite, base in zip(composites, own, strict=True):
        changed = float((composite != base).any(0).float().mean())
        assert 0.05 < changed < 0.26


def test_pasting_is_a_function_of_the_seed(tiny_sd):
    jobs = [job("<a>"), job("<b>", "dog", seed=1)]
    found = [rows(invert_together(tiny_sd, jobs, paste=0.5, seed=s)) for s in (0, 0, 1)]
    assert torch.equal(found[0]["<a>"], found[1]["<a>"])
    assert not torch.equal(found[0]["<a>"], found[2]["<a>"])


def test_captions_name_the_first_word_as_their_owner():
    jobs = [job("<a>"), job("<b>"), job("<c>")]
    slots = {f"<{name}>": f"<slot-{i}>" for i, name in enumerate("abc")}
    for caption, owner, text in (
        ("a <b> on a <a>", 1, "a {} on a <slot-0>"),
        ("<c>, <a> and <b>", 2, "{}, <slot-0> and <slot-1>"),
        ("<a> and <b> and <a>", 0, "{} and <slot-1> and {}"),
    ):
        assert together._owner(caption, jobs) == owner
        assert together._named(caption, jobs[owner], slots) == text
    with pytest.raises(JobError, match=r"must name two or more of <a>, <b>, <c>, got 'a <a>'"):
        together._owner("a <a>", jobs)


@pytest.mark.parametrize(
    ("jobs", "options", "message"),
    [
        ([job("<a>")], {}, "two or more different ones"),
        ([job("<a>"), job("<a>")], {}, "two or more different ones"),
        ([job("<a>"), job("<b>")], {"paste": 1.0}, r"paste must be in \[0, 1\), got 1.0"),
        ([job("<a>"), job("<b>", None)], {}, "an initializer token, got none for '<b>'"),
        ([job("<a>"), Job(name="b", pictures=pictures(1, 0, 16), config=job("<b>").config)], {},
         "same number of steps and pictures of one size"),
        ([job("<a>"), job("<b>", "zqé")], {}, "must be known to the model's tokenizer"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_together_is_said(tiny_sd, jobs, options, message):
    with pytest.raises(JobError, match=message):
        invert_together(tiny_sd, jobs, **options)


# --- the command


@pytest.fixture
def folders(tmp_path):
    for name, seed in (("a", 0), ("b", 1), ("both", 2)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(to_images(pictures(2, seed, 64))):
            image.save(tmp_path / name / f"{i}.png")
            if name == "both":
                (tmp_path / name / f"{i}.txt").write_text("a photo of a <a> next to a <b>")
    return tmp_path


def test_a_command_learns_two_words_into_one_file_and_knows_its_end(folders, capsys):
    command = [
        "compose", "--model", "microworld-nano", "--images", str(folders / "a"),
        str(folders / "b"), "--placeholder-tokens", "<a>", "<b>", "--initializer-tokens", "cat",
        "dog", "--together", str(folders / "both"), "--max-train-steps", "2",
        "--train-batch-size", "2", "--num-evaluation-samples", "4",
        "--output-dir", str(folders / "pair"),
    ]  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "2 words are in" in out
    assert "a photo of a <a> next to a <b>" in out
    first = formats.load_all(folders / "pair")
    assert [c.placeholder_token for c in first] == ["<a>", "<b>"]
    assert main(command) == 0
    assert [c.sha256() for c in formats.load_all(folders / "pair")] == [c.sha256() for c in first]
    assert main([*command, "--paste", "0.5"]) == 2
    assert "paste was 0.1 and is 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--placeholder-tokens", "<a>"], "got 2 folders, 1 placeholder tokens and 2 initializer"),
        (["--placeholder-tokens", "<a>", "<A>"], "placeholder_tokens must differ, got <a> <A>"),
        (["--paste", "1"], "paste must be in [0, 1), got 1"),
        (["--checkpointing-steps", "0"], "checkpointing_steps must be 1 or more"),
        (["--together", "EMPTY"], "must name two or more of <a>, <b>, got ''"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(folders, change, message, capsys):
    (folders / "empty").mkdir()
    Image.new("RGB", (64, 64)).save(folders / "empty" / "0.png")
    command = ["compose", "--model", "microworld-nano", "--images", str(folders / "a"),
               str(folders / "b"), "--placeholder-tokens", "<a>", "<b>", "--initializer-tokens",
               "cat", "dog", "--output-dir", str(folders / "pair"),
               *(str(folders / "empty") if c == "EMPTY" else c for c in change)]  # fmt: skip
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not (folders / "pair" / formats.LEARNED).exists()
