"""Figures 3 and 5 of a study: every method has its row, and one that cannot draw says why."""

from __future__ import annotations

import dataclasses
import json
import re

import huggingface_hub
import numpy as np
import pytest
import torch
from transformers import CLIPModel

from oneword.cli.main import main
from oneword.config import variations as config_of_variations
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.palavra import PalavraTrainConfig
from oneword.config.scoring import BaselinesConfig, StudyConfig
from oneword.config.variations import ProjectorConfig
from oneword.errors import ConfigError, ModelError
from oneword.evaluation import harness, metrics
from oneword.generation import variations
from oneword.images import from_uint8, read_folder, to_images
from oneword.microworld import weights
from oneword.microworld.making import models, sizes
from oneword.microworld.world.drawn import noun_pictures, world_pictures
from oneword.models.assembly import is_here
from oneword.models.clip_pairs import DEFAULT_GUIDE
from oneword.models.guide import Guide
from oneword.models.loading import load_backbone
from oneword.prompts import COMMON_WORDS
from oneword.runs.events import Ended
from oneword.runs.palavra import train_maps
from oneword.study import cost, grid, methods, page, pictures, work
from oneword.study.plan import BASELINES, GROUPS, Study
from oneword.training import projector


NANO = ModelConfig(model="microworld-nano", device="cpu")
FIGURE_5_ROWS = ("palavra-vqgan-clip", "palavra-clip-diffusion", "vqgan-clip", "clip-diffusion",
                 "variations", "one-word")  # fmt: skip


@pytest.fixture(scope="module")
def guide_folder(tmp_path_factory):
    """A CLIP of the embedded model's sizes with random weights."""
    folder = tmp_path_factory.mktemp("guide")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        tokens = models.tokenizer()
        models.clip(tokens, sizes.NANO, judge=True).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def projected(guide_folder, tmp_path_factory):
    """A projector that has hardly learned."""
    folder = tmp_path_factory.mktemp("projector")
    backbone = load_backbone(NANO)
    guide = Guide.load(str(guide_folder), NANO.model, device=backbone.device)
    config = ProjectorConfig(model=NANO, guide=str(guide_folder), output_dir=folder,
                             num_samples=8, train_batch_size=4)  # fmt: skip
    projector.train(backbone, guide, from_uint8(world_pictures(6, size=64)), config)
    return folder


@pytest.fixture
def make(guide_folder, projected):
    def study(out, **fields):
        given = {
            "output_dir": out, "concepts": ("parrot",), "seeds": (0,), "setups": ("fig5",),
            "model": NANO,
            "inversion": InversionConfig(max_train_steps=2, train_batch_size=2, evaluation_steps=2,
                                         num_evaluation_samples=2),
            "sampling": SamplingConfig(num_inference_steps=1, guidance_scale=5.0),
            "num_images_per_prompt": 2, "slots": 1,
            "baselines": BaselinesConfig(variations=str(projected), guide=str(guide_folder)),
        } | fields  # fmt: skip
        return Study(StudyConfig(**given))

    return study


def ignore(event):
    """Watch nothing."""


def without(monkeypatch, *names, why="there are no weights"):
    """Let some methods be missing, whatever lies on this machine."""

    def load(given):
        raise ModelError(f"The model must be here, got none: {why}.")

    monkeypatch.setattr(methods, "METHODS", {**methods.METHODS, **dict.fromkeys(names, load)})


def test_the_registry_knows_every_method_of_the_figures():
    assert {*methods.METHODS} == {*BASELINES}
    assert GROUPS["fig3"] == ("image-only", "one-word", "captions-short", "captions-long",
                              "variations-captions", "variations")  # fmt: skip
    assert {*GROUPS["fig5"]} == {"image-only", "prompt-only", *FIGURE_5_ROWS}


def test_sixteen_candidates_stand_against_six(make, tmp_path):
    study = make(tmp_path, setups=("fig3", "fig5"), num_images_per_prompt=64)
    assert {label: study.candidates(label) for label in study.arms} == dict.fromkeys(
        study.arms, 16
    ) | {"variations": 6, "variations-captions": 6}
    few = make(tmp_path, num_images_per_prompt=4)
    assert few.candidates("one-word") == few.candidates("variations") == 4


def test_figure_5_has_a_row_for_each_method_and_a_column_for_each_prompt(
    make, tmp_path, monkeypatch
):
    guided = FIGURE_5_ROWS[:4]
    without(monkeypatch, *guided)
    study, events = make(tmp_path / "s"), []
    ended = grid.run(study, on_event=events.append)
    assert {spec.setup for spec in ended.absent} == {*guided}
    assert {spec.setup for spec in ended.done} == {*study.arms} - {*guided}
    assert not ended.failed
    assert not any(event.failed for event in events if isinstance(event, Ended))
    told = grid.absences(study)
    assert told == dict.fromkeys(guided, "The model must be here, got none: there are no weights")
    # nothing is tried twice, and what is missing may come
    assert not [e for e in _events(study) if isinstance(e, Ended)]
    page.write(study, command="oneword study --setups fig5")
    html = (study.folder / pictures.PAGES["fig5"]).read_text()
    shown, rest = html.split("<tbody>", 1)
    heads = re.findall(r"<th>([^<]*)</th>", shown.partition("<thead>")[2])[1:]
    assert heads == [t.replace("{}", "S*") for t in study.templates(study.subjects["parrot"])]
    lines = re.findall(r"<tr><th>(.*?)</th>", rest.partition("</tbody>")[0], re.S)
    assert lines == ["training pictures", *(f"{n}: not available" for n in guided),
                     "variations", "one-word"]  # fmt: skip
    assert html.count("there are no weights") == 4
    assert "<figcaption>seed 0</figcaption>" in html
    assert not (study.folder / pictures.PAGES["fig3"]).exists()
    summary = json.loads((study.folder / "summary.json").read_text())
    assert summary["jobs"] == {"done": 4, "failed": 0, "left": 0, "not_available": 4}
    assert summary["not_available"] == told
    assert (
        "Not available here: palavra-vqgan-clip (The model must be"
        in (study.folder / "report.md").read_text()
    )
    claims = {f["where"] for f in summary["findings"]}
    assert "section 4.2, figure 5" in claims


def _events(study):
    found = []
    grid.run(study, on_event=found.append)
    return found


def test_every_method_is_drawn_with_the_same_seeds_and_its_best_is_the_judges(make, tmp_path):
    study = make(
        tmp_path / "s",
        setups=("fig3",),
        num_images_per_prompt=3,
        sampling=SamplingConfig(num_inference_steps=1, guidance_scale=1.0),
    )
    ended = grid.run(study, on_event=ignore)
    assert {spec.setup for spec in ended.absent} == {"variations-captions"}
    assert (
        "no published way to draw from its own text" in grid.absences(study)["variations-captions"]
    )
    rows = [row for row in page.gather(study) if row["kind"] != "training"]
    assert {row["num_drawn"] for row in rows} == {3}
    tools = work.bench(NANO, None, None)
    training = read_folder(work._training_folder(study, study.specs[0], 64), resolution=64).pixels
    model = variations.load(
        study.config.baselines.variations,
        variations.Wishes(device="cpu", sampling=work._sampling(study.config, tools)),
        backbone=tools.backbone,
    )
    template = "a photo of a {} on the moon"
    drawn = torch.cat([
        model.draw(to_images(training[seed % 5 : seed % 5 + 1])[0], [seed], template)
        for seed in range(3)
    ])  # fmt: skip
    features, true = tools.judge.images(drawn).double(), tools.judge.images(training).double()
    (text,) = tools.judge.texts([harness.bare(template)]).double()
    (row,) = [r for r in rows if r["setup"] == "variations" and r["prompt"] == template]
    assert row["image_similarity"] == pytest.approx(
        metrics.image_similarity(features.float(), true.float()), abs=1e-4
    )
    scores = [(float((f @ true.T).mean()) + float(f @ text)) / 2 for f in features]
    assert row["best_seed"] == int(np.argmax(scores))
    assert row["best_of"] == 3
    read = tools.oracle.read(drawn)
    seen = [one["concept"] == "parrot" and one["scene"] == "moon" for one in read]
    assert row["seen_and_obeyed"] == sum(seen) / 3
    page.write(study, command="x")
    html = (study.folder / pictures.PAGES["fig3"]).read_text()
    assert "best: seed" in html
    assert "variations-captions: not available" in html


def test_what_is_missing_is_tried_again_when_asked(make, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        without(patch, "variations")
        study = make(tmp_path / "s", setups=("variations", "image-only"))
        assert [spec.setup for spec in grid.run(study, on_event=ignore).absent] == ["variations"]
    assert grid.standing(make(tmp_path / "s", setups=("variations",))).absent
    again = make(tmp_path / "s", setups=("variations", "image-only"), retry_failed=True)
    assert len(grid.run(again, on_event=ignore).done) == 2
    assert not work.absent_file(study.folder, study.specs[0]).exists()


def test_a_method_that_breaks_while_it_draws_fails_its_job(make, tmp_path, monkeypatch):
    def load(given):
        def draw(shown, template, seed):
            raise ModelError("The model must draw, got nothing.")

        return draw

    monkeypatch.setattr(methods, "METHODS", {**methods.METHODS, "variations": load})
    study = make(tmp_path / "s", setups=("variations",))
    ended = grid.run(study, on_event=ignore)
    assert [spec.setup for spec in ended.failed] == ["variations"]
    assert not ended.absent


def test_other_sizes_are_brought_to_the_models(make, tmp_path, monkeypatch):
    def load(given):
        return lambda shown, template, seed: torch.zeros(1, 3, 256, 256)

    monkeypatch.setattr(methods, "METHODS", {**methods.METHODS, "vqgan-clip": load})
    study = make(tmp_path / "s", setups=("vqgan-clip",))
    given = methods.Given(
        config=study.config, backbone=load_backbone(NANO), subject=study.subjects["parrot"],
        seed=0, sampling=study.config.sampling, pictures_dir=tmp_path,
    )  # fmt: skip
    drawn = methods.method("vqgan-clip", given, torch.zeros(2, 3, 64, 64))("a {}", [0, 1])
    assert drawn.shape == (2, 3, 64, 64)
    assert given.text("a photo of a {} on the moon") == "a photo of a bird on the moon"


def test_a_judge_that_guides_is_refused(make, tmp_path, guide_folder):
    own = str(weights.judge_folder("microworld-nano"))
    study = make(tmp_path / "s", baselines=BaselinesConfig(guide=own))
    with pytest.raises(ConfigError, match="because it is also the judge"):
        grid.run(study, on_event=ignore)
    copy = tmp_path / "copy"
    CLIPModel.from_pretrained(own).half().save_pretrained(copy)
    for path in weights.judge_folder("microworld-nano").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    study = make(tmp_path / "t", baselines=BaselinesConfig(guide=str(copy)))
    with pytest.raises(ConfigError, match="because it is also the judge"):
        grid.run(study, on_event=ignore)


def test_settings_of_the_methods_bind_a_folder_once_they_have_drawn(make, tmp_path):
    study = make(tmp_path / "s", setups=("variations", "image-only"))
    grid.claim(study).release()
    other = BaselinesConfig(variations="karlo", guide=study.config.baselines.guide)
    grid.claim(make(tmp_path / "s", setups=("variations",), baselines=other)).release()
    (done,) = [spec for spec in study.specs if spec.setup == "variations"]
    work.write_rows(study.folder, done, [{"kind": "photo"}])
    with pytest.raises(ConfigError, match=r"baselines\.variations was 'karlo' and is"):
        grid.claim(study)


def test_the_command_tells_what_is_not_available_and_ends_well(
    tmp_path, projected, guide_folder, monkeypatch, capsys
):
    without(monkeypatch, *FIGURE_5_ROWS[:4])
    words = ["study", "--model", "microworld-nano", "--device", "cpu", "--concepts", "parrot",
             "--setups", "vqgan-clip", "variations", "--seeds", "0", "--out", str(tmp_path / "s"),
             "--num-inference-steps", "1", "--num-images-per-prompt", "1",
             "--variations", str(projected), "--guide", str(guide_folder)]  # fmt: skip
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "1 of 2 jobs are done" in out
    assert "not available: vqgan-clip (The model must be here" in out
    assert "Once what is missing is here, run again with --retry-failed." in out
    assert main([*words, "--dry-run"]) == 0
    assert "1 belong to methods that are not available here." in capsys.readouterr().out


@pytest.fixture
def guided(tmp_path):
    """A study of guided methods on the embedded model's own guide, in a few steps each."""

    def study(*setups, **more):
        return Study(StudyConfig(
            output_dir=tmp_path / "guided", concepts=("parrot",), seeds=(0,), setups=setups,
            model=NANO, sampling=SamplingConfig(num_inference_steps=1, guidance_scale=1.0),
            num_images_per_prompt=1,
            baselines=BaselinesConfig(**{"vqgan_steps": 2, "diffusion_steps": 4} | more),
        ))  # fmt: skip

    return study


def test_guided_methods_draw_on_the_embedded_model(guided):
    study = guided("vqgan-clip", "clip-diffusion", "palavra-vqgan-clip")
    ended = grid.run(study, on_event=ignore)
    assert not ended.failed
    assert {spec.setup for spec in ended.done} == {"vqgan-clip", "clip-diffusion"}
    told = grid.absences(study)
    assert (
        "PALAVRA's maps were not given; train them with oneword palavra train"
        in (told["palavra-vqgan-clip"])
    )
    rows = {s: [r for r in page.gather(study) if r["setup"] == s] for s in study.arms}
    drawn = {s: {r["image_similarity"] for r in own} for s, own in rows.items()}
    # in a few steps not every code of VQGAN-CLIP comes to another row
    assert len(drawn["clip-diffusion"]) == len(rows["clip-diffusion"]) == 8
    assert len(drawn["vqgan-clip"]) > 1


def test_a_dry_run_times_methods_that_optimise_every_picture(guided):
    study = guided("vqgan-clip", "clip-diffusion", "palavra-vqgan-clip", "image-only")
    found = cost.estimate(study, study.specs)
    assert found.guided_s.keys() == {"vqgan-clip", "clip-diffusion"}  # there are no maps
    assert min(found.guided_s.values()) > 0
    drawings = sum(study.drawing_passes(s) for s in study.specs if s.setup not in found.guided_s)
    assert found.drawing_s == pytest.approx(found.drawing_pass_s * drawings)
    whole = found.training_s + found.drawing_s + sum(found.guided_s.values())
    assert found.wall_s(2) == pytest.approx(whole / 2)
    longer = guided("vqgan-clip", vqgan_steps=400)
    assert methods.steps_of("palavra-vqgan-clip", given_of(longer)) == 400
    assert methods.steps_of("clip-diffusion", given_of(longer)) == 4
    usual = guided("clip-diffusion", vqgan_steps=None, diffusion_steps=None)
    assert methods.steps_of("vqgan-clip", given_of(usual)) == 200
    assert methods.steps_of("clip-diffusion", given_of(usual)) == 50


def given_of(study):
    tools = work.bench(NANO, None, None)
    spec = study.specs[0]
    return methods.Given(
        config=study.config, backbone=tools.backbone, subject=study.subjects["parrot"], seed=0,
        sampling=study.config.sampling, pictures_dir=work._training_folder(study, spec, 64),
    )  # fmt: skip


def test_they_draw_towards_or_from_the_training_pictures(guided):
    study = guided("vqgan-clip", "clip-diffusion", vqgan_steps=10)
    given, shown = given_of(study), from_uint8(world_pictures(2, size=64))
    for setup in ("vqgan-clip", "clip-diffusion"):
        draw = methods.METHODS[setup](given)
        one = draw(shown, "a photo of a {} on the moon", 0)
        assert torch.equal(one, draw(shown, "a photo of a {} on the moon", 0))
        first, second = (
            draw(own, "a photo of a {} on the moon", 0) for own in (shown[:1], shown[1:])
        )
        assert not torch.equal(first, second)
        assert not torch.equal(one, draw(shown, "an oil painting of a {}", 0))
        assert not torch.equal(one, draw(shown, "a photo of a {} on the moon", 2))


def test_palavras_word_is_learned_and_drawn(guided, tmp_path):
    maps = tmp_path / "maps"
    train_maps(PalavraTrainConfig(clip="microworld-nano", output_dir=maps, num_pictures=2, epochs=1,
                                  hidden=8, batch_size=16, set_size=1, device="cpu"))  # fmt: skip
    study = guided("palavra-vqgan-clip", "palavra-clip-diffusion", palavra=maps)
    given, shown = given_of(study), from_uint8(world_pictures(2, size=64))
    for setup in ("palavra-vqgan-clip", "palavra-clip-diffusion"):
        draw = methods.METHODS[setup](given)
        one = draw(shown, "a photo of a {} on the moon", 0)
        assert one.shape == (1, 3, 64, 64)
        assert torch.equal(one, draw(shown.flip(0), "a photo of a {} on the moon", 0))
        plain = methods.METHODS[setup.removeprefix("palavra-")](given)
        assert not torch.equal(one, plain(shown, "a photo of a {} on the moon", 0))
    assert (study.folder / "palavra" / "parrot--seed0" / "learned_embeds.safetensors").is_file()


def test_things_of_the_second_world_have_rows_of_what_draws_them(wide_model, tmp_path):
    """The artists' ones, which have neither noun nor descriptions, beside those that have both."""
    model = ModelConfig(model=wide_model, device="cpu")
    study = Study(StudyConfig(
        output_dir=tmp_path / "s", concepts=("rocket", "parrot"), seeds=(0,), model=model,
        setups=("fig3", "clip-diffusion", "initializer"), num_images_per_prompt=1, slots=1,
        inversion=InversionConfig(max_train_steps=1, train_batch_size=1, num_evaluation_samples=1),
        sampling=SamplingConfig(num_inference_steps=1, guidance_scale=1.0),
        baselines=BaselinesConfig(diffusion_steps=2),
    ))  # fmt: skip
    left_out = {"captions-short", "captions-long", "variations-captions", "initializer"}
    every = {*study.arms}
    own = {name: {s.setup for s in study.specs if s.concept == name} for name in study.subjects}
    assert own == {"rocket": every - left_out, "parrot": every}
    assert len(study.notes) == len(left_out)
    assert study.notes[0].endswith("which have neither noun nor descriptions: rocket.")
    ended = grid.run(study, on_event=ignore)
    assert not ended.failed
    assert {s.setup for s in ended.absent} == {"variations-captions", "variations"}
    assert "it has no projector; train one with" in grid.absences(study)["variations"]
    rows = [r for r in page.gather(study) if r["kind"] != work.TRAINING]
    for setup in ("one-word", "clip-diffusion", "image-only"):
        for name in study.subjects:
            some = [r for r in rows if (r["setup"], r["concept"]) == (setup, name)]
            assert all(r["world"] == 2 and 0 <= r["seen"] <= 1 for r in some)
            assert any(r.get("seen_and_obeyed") is not None for r in some)
            assert any("silhouette_overlap" in r for r in some)
    page.write(study, command="x")
    tools = work.bench(model, None, None)
    given = methods.Given(
        config=study.config, backbone=tools.backbone, subject=study.subjects["rocket"], seed=0,
        sampling=study.config.sampling, pictures_dir=tmp_path,
    )  # fmt: skip
    boats = from_uint8(noun_pictures("boat", 6, size=64))
    named = methods._with_noun("clip-diffusion", given, boats).noun
    assert named in COMMON_WORDS["microworld"]["object"]
    assert methods._with_noun("variations", given, boats).noun == ""


def test_what_will_be_downloaded_is_named_before(guided, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    karlo, text = (
        own["source"] for own in (config_of_variations.VARIATIONS["karlo"],
                                  config_of_variations.KARLO_TEXT)
    )  # fmt: skip
    real = dataclasses.replace(guided("fig5").config, model=ModelConfig(model=str(tiny_folder)))

    def named(*setups, **own):
        return methods.downloads(
            dataclasses.replace(real, baselines=BaselinesConfig(**own)), setups
        )

    assert named("one-word", "variations", "variations-captions") == []  # nothing unasked
    assert named("vqgan-clip") == [DEFAULT_GUIDE]
    assert named("variations", variations="karlo") == [karlo]
    assert named("variations", "variations-captions", variations="karlo") == [karlo, text]
    assert named("variations", variations=str(tiny_folder)) == []
    embedded = guided("fig5").config
    assert methods.downloads(embedded, GROUPS["fig5"]) == []  # all of it is in the package
    folder = tmp_path / "hub" / f"models--{karlo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    assert not is_here(karlo)  # nothing but its name
    (folder / "snapshots" / ("a" * 40) / "model.safetensors").write_bytes(b"weights")
    assert is_here(karlo)
    assert named("variations", "variations-captions", variations="karlo") == [text]


def test_a_real_model_without_a_vqgan_says_so(guided, tiny_sd):
    study = guided("vqgan-clip")
    config = dataclasses.replace(study.config, model=tiny_sd.config)
    given = dataclasses.replace(given_of(study), config=config, backbone=tiny_sd)
    with pytest.raises(methods.NotAvailableError, match="no VQGAN was given; pass --vqgan FILE"):
        methods.METHODS["vqgan-clip"](given)
    with pytest.raises(ConfigError, match="vqgan_steps must be 1 or more, got 0"):
        BaselinesConfig(vqgan_steps=0)
