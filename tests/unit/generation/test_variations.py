"""Variations of a picture: the published pipelines as they are, and our projector."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import tiny.variations
from oneword.cli.main import main
from oneword.config.model import ModelConfig
from oneword.config.variations import KARLO_TEXT, VARIATIONS, ProjectorConfig, VariationsConfig
from oneword.errors import ConfigError, ModelError
from oneword.generation import variations
from oneword.generation.variations import KarloText, Projected, VariationsError, Wishes
from oneword.images import from_uint8, to_images
from oneword.microworld import weights
from oneword.microworld.making import models, sizes
from oneword.microworld.world import wide_drawing
from oneword.microworld.world.drawn import world_pictures
from oneword.models.guide import Guide, GuideError
from oneword.models.loading import load_backbone
from oneword.training import projector
from oneword.training.projector import ProjectorError


NAMES = tuple(VARIATIONS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny pipelines of each published model, by name."""
    place = tmp_path_factory.mktemp("varying")
    made = {name: getattr(tiny.variations, name.replace("-", "_"))() for name in NAMES}
    return {name: tiny.save(pipeline, place / name) for name, pipeline in made.items()}


@pytest.fixture
def published(folders, monkeypatch):
    """The published models in their tiny form, where their names lead."""
    for name, folder in folders.items():
        monkeypatch.setitem(VARIATIONS[name], "source", str(folder))
        monkeypatch.setitem(VARIATIONS[name], "revision", None)
    return folders


def picture(seed=0, side=40):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    )


def stock(name, source, seed):
    """What diffusers' own pipeline draws by the published settings, which are its defaults or
    those of the model's card."""
    pipeline = getattr(tiny.variations, name.replace("-", "_"))()
    pipeline.set_progress_bar_config(disable=True)
    generator, asked = torch.Generator().manual_seed(seed), {}
    if name == "sd-variations":
        values = torch.from_numpy(np.asarray(source).copy()).permute(2, 0, 1)[None] / 255
        values = torch.nn.functional.interpolate(values, (24, 24), mode="bicubic")
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
        source, asked = (values - mean) / std, {"guidance_scale": 3}
    return pipeline(image=source, generator=generator, output_type="np", **asked).images


@pytest.mark.parametrize("name", NAMES)
def test_a_published_model_draws_what_its_own_pipeline_draws(published, name):
    model = variations.load(name, Wishes(device="cpu"))
    assert model.name == name
    drawn = model.draw(picture(), [7])
    expected = torch.from_numpy(stock(name, picture(), 7)).permute(0, 3, 1, 2) * 2 - 1
    torch.testing.assert_close(drawn, expected, atol=2e-5, rtol=0)
    assert drawn.shape == (1, 3, 32, 32)


@pytest.mark.parametrize("name", NAMES)
def test_a_variation_depends_on_its_picture_and_its_own_seed_alone(published, name):
    model = variations.load(str(published[name]), Wishes(device="cpu", num_inference_steps=2))
    both = model.draw(picture(), [3, 4])
    assert torch.equal(both[1:], model.draw(picture(), [4]))
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(both[:1], model.draw(picture(1), [3]))


def test_text_goes_to_models_that_read_it(published):
    wishes = Wishes(device="cpu", num_inference_steps=2)
    model = variations.load("sd-unclip", wishes)
    plain = model.draw(picture(), [0])
    assert not torch.equal(plain, model.draw(picture(), [0], "a photo of a {} on the moon"))
    assert model.said("a photo of a {} on the moon") == "a photo of a on the moon"
    for name in ("karlo", "sd-variations"):
        with pytest.raises(
            VariationsError, match=f"with {name}.* because it reads no text next to the picture"
        ):
            variations.load(name, wishes).draw(picture(), [0], "a {}")


def test_noise_on_the_embedding_is_of_one_model_alone(published):
    wishes = Wishes(device="cpu", num_inference_steps=2)
    noisy = dataclasses.replace(wishes, noise_level=900)
    drawn = variations.load("sd-unclip", wishes).draw(picture(), [0])
    assert not torch.equal(drawn, variations.load("sd-unclip", noisy).draw(picture(), [0]))
    with pytest.raises(VariationsError, match="noise_level 900 with karlo because"):
        variations.load("karlo", noisy)


def test_karlo_draws_captions_over_its_prior(tmp_path, monkeypatch):
    folder = tiny.save(tiny.variations.karlo_text(), tmp_path / "text")
    for name in ("prior_steps", "num_inference_steps", "super_res_steps"):
        monkeypatch.setitem(KARLO_TEXT, name, 2)
    model = KarloText(Wishes(device="cpu"), str(folder))
    drawn = model.draw("a red mug", 0)
    assert drawn.shape == (1, 3, 32, 32)
    assert torch.equal(drawn, model.draw("a red mug", 0))
    assert not torch.equal(drawn, model.draw("a blue mug", 0))


def test_the_command_writes_variations_that_say_how_they_were_made(published, tmp_path, capsys):
    for i in range(2):
        picture(i).save(tmp_path / f"{i}.png")
    words = ["baseline", "variations", str(tmp_path / "0.png"), str(tmp_path / "1.png"),
             "--model", str(published["karlo"]), "--num-inference-steps", "2", "--device", "cpu",
             "--candidates", "2", "--output-dir", str(tmp_path / "out"),
             "--json", str(tmp_path / "list.json")]  # fmt: skip
    assert main(words) == 0
    assert "4 variations by karlo" in capsys.readouterr().out
    found = json.loads((tmp_path / "list.json").read_text())
    assert [(one["picture"], one["seed"]) for one in found] == [
        ("0.png", "0"), ("0.png", "1"), ("1.png", "0"), ("1.png", "1"),
    ]  # fmt: skip
    assert len({one["picture_sha256"] for one in found}) == 2
    assert len(list((tmp_path / "out").glob("*.png"))) == 5  # and a sheet
    last = found[-1]
    assert f"--model {published['karlo']}" in last["command"]
    again = [*last["command"].split()[1:], "--output-dir", str(tmp_path / "again"),
             "--device", "cpu"]  # fmt: skip
    assert main(again) == 0
    (one,) = [path for path in (tmp_path / "again").glob("*.png") if "seed" in path.name]
    first, second = (np.asarray(Image.open(path)) for path in (last["file"], one))
    assert (first == second).all()


def test_six_candidates_are_drawn_where_nothing_is_said(tmp_path):
    config = VariationsConfig(pictures=(tmp_path / "0.png",))
    assert config.drawn_seeds == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pictures": ()}, "pictures must name a picture, got none"),
        ({"candidates": 0}, "candidates must be 1 or more, got 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"model": ""}, "model must be a name, got an empty string"),
        ({"guidance_scale": -1.0}, "guidance_scale must be 0 or more, got -1"),
        ({"num_inference_steps": 0}, "num_inference_steps must be 1 or more, got 0"),
        ({"noise_level": 1000}, "noise_level must be in 0..999, got 1000"),
    ],
)
def test_settings_of_variations_are_checked(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        VariationsConfig(**{"pictures": (tmp_path / "0.png",)} | changes)


def test_what_is_no_model_of_variations_is_refused(tmp_path, tiny_folder, without_hub):
    wishes = Wishes(device="cpu")
    must = "A model that varies pictures must be karlo, sd-unclip, sd-variations, microworld"
    with pytest.raises(VariationsError, match=f"{must}.*which is a StableDiffusionPipeline"):
        variations.load(str(tiny_folder), wishes)
    with pytest.raises(VariationsError, match=f"{must}.*got {tmp_path}"):
        variations.load(str(tmp_path), wishes)
    with pytest.raises(VariationsError, match=f"{must}.*got nobody/nothing: "):
        variations.load("nobody/nothing", wishes)
    with pytest.raises(ModelError, match="must be a complete UnCLIPImageVariationPipeline"):
        variations.load("karlo", wishes)


# --- the projector


@pytest.fixture(scope="module")
def nano():
    return load_backbone(ModelConfig(model="microworld-nano", device="cpu"))


def pair(folder, seed=0):
    """A CLIP of the embedded model's sizes with random weights, where a guide may lie."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251
        tokens = models.tokenizer()
        models.clip(tokens, sizes.NANO, judge=True).save_pretrained(folder)
    tokens.save_pretrained(folder)
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def guide_folder(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("guide"))


@pytest.fixture(scope="module")
def guide(guide_folder):
    return Guide.load(str(guide_folder), "microworld-nano", device=torch.device("cpu"))


@pytest.fixture(scope="module")
def shown():
    return from_uint8(world_pictures(12, seed=1, size=64))


def settings(guide_folder, out, **changes):
    return ProjectorConfig(**{
        "model": ModelConfig(model="microworld-nano", device="cpu"), "guide": str(guide_folder),
        "num_samples": 4 * 30, "train_batch_size": 4, "learning_rate": 3e-3, "output_dir": out,
    } | changes)  # fmt: skip


@pytest.fixture(scope="module")
def trained(nano, guide, guide_folder, shown, tmp_path_factory):
    """A projector after thirty steps, and the model's weights as they were before."""
    before = {n: p.clone() for n, p in nano.denoiser.state_dict().items()}
    folder = tmp_path_factory.mktemp("projector")
    found = projector.train(nano, guide, shown, settings(guide_folder, folder))
    return folder, found, before


def test_training_lowers_the_loss_and_leaves_the_model_alone(trained, nano):
    _, found, before = trained
    assert found.steps == 30
    assert found.loss < found.first_loss - 1e-3
    for name, value in nano.denoiser.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(p.requires_grad for p in nano.denoiser.parameters())


def test_an_untrained_projector_says_what_the_encoder_says_of_the_initializer(
    nano, guide, guide_folder, shown, tmp_path
):
    run = projector._Run(nano, guide, shown, settings(guide_folder, tmp_path))
    vectors = run.projector(run.features)
    (place,) = vectors
    assert place == "clip.last_hidden_state"
    assert vectors[place].shape == (12, 4, 48)
    assert torch.equal(vectors[place][0], vectors[place][5])


def test_the_gradient_is_that_of_equation_2_through_the_frozen_model(
    nano, guide, guide_folder, shown, tmp_path
):
    """Against the difference of the loss along the gradient of the network's last bias."""
    seen = {}

    def first(shift):
        run = projector._Run(nano, guide, shown, settings(guide_folder, tmp_path))
        last = run.projector.net[-1].bias
        with torch.no_grad():
            last += shift

        def note(done, total, value):
            seen["gradient"], seen["loss"] = last.grad.clone(), value
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run.run(note)
        (tmp_path / projector.STATE).unlink()
        return seen["loss"]

    first(torch.zeros(()))
    gradient = seen["gradient"]
    direction = gradient / gradient.norm()
    slope = (first(0.2 * direction) - first(-0.2 * direction)) / 0.4
    assert float(gradient.norm()) == pytest.approx(slope, rel=0.03)
    assert slope > 1e-3


def test_a_stopped_training_goes_on_to_the_same_bits(
    trained, nano, guide, guide_folder, shown, tmp_path
):
    _, unbroken, _ = trained

    def stop(done, total, value):
        if done == 11:
            raise KeyboardInterrupt

    config = settings(guide_folder, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        projector.train(nano, guide, shown, config, on_step=stop)
    assert not (tmp_path / projector.FILE).exists()
    steps = []
    found = projector.train(
        nano, guide, shown, config, on_step=lambda done, total, value: steps.append(done)
    )
    assert steps == list(range(12, 31))
    assert (found.loss, found.first_loss) == (unbroken.loss, unbroken.first_loss)
    for name, value in found.projector.state_dict().items():
        assert torch.equal(value, unbroken.projector.state_dict()[name])
    other = dataclasses.replace(config, learning_rate=1e-3)
    with pytest.raises(ProjectorError, match=r"another learning_rate: 0\.003, not 0\.001"):
        projector.train(nano, guide, shown, other)


def test_what_is_drawn_depends_on_the_picture_and_on_the_prompt(trained, nano, shown):
    folder, found, _ = trained
    wishes = Wishes(num_inference_steps=2, device="cpu")
    model = variations.load(str(folder), wishes, backbone=nano)
    assert isinstance(model, Projected)
    assert model.backbone is nano
    assert model.name == "projector (ours) on microworld-nano"
    first, second = to_images(shown[:2])
    drawn = model.draw(first, [0, 1])
    assert drawn.shape == (2, 3, 64, 64)
    torch.testing.assert_close(drawn[1:], model.draw(first, [1]), atol=1e-4, rtol=0)
    assert not torch.equal(drawn, model.draw(second, [0, 1]))
    assert not torch.equal(drawn, model.draw(first, [0, 1], "a photo of a {} on the moon"))
    with pytest.raises(
        VariationsError, match=r"must contain {} in place of the picture, got 'a mug'"
    ):
        model.draw(first, [0], "a mug")
    read = projector.load(folder, torch.device("cpu"))
    features = projector.features_of(model.guide, shown[:1])
    word = read.word(features, "<picture>")
    assert word.sha256() == found.word(features, "<picture>").sha256()


def test_a_projector_is_refused_where_it_does_not_fit(trained, nano, guide, tmp_path, tiny_sd):
    folder, found, _ = trained
    with pytest.raises(ProjectorError, match="was trained on microworld-nano"):
        projector.check_fits(found, tiny_sd, guide, folder)
    later = dataclasses.replace(found, version="0123456789ab")
    with pytest.raises(ProjectorError, match="was trained on another version of microworld-nano"):
        projector.check_fits(later, nano, guide, folder)
    renamed = dataclasses.replace(found, base_model="elsewhere/microworld-nano")
    projector.check_fits(renamed, nano, guide, folder)
    other = Guide.load(str(pair(tmp_path, 1)), "microworld-nano", device=torch.device("cpu"))
    with pytest.raises(ProjectorError, match="was trained with another guide"):
        projector.check_fits(found, nano, other, folder)
    with pytest.raises(VariationsError, match=r"Cannot use revision .* published models"):
        variations.load(str(folder), Wishes(revision="main"), backbone=nano)
    with pytest.raises(GuideError, match="because it is also the judge"):
        variations.load(str(folder), Wishes(judge=found.guide), backbone=nano)


def test_a_damaged_projector_is_refused(trained, tmp_path):
    folder, _, _ = trained
    device = torch.device("cpu")
    with pytest.raises(ProjectorError, match="must be a file of oneword baseline projector, got"):
        projector.load(tmp_path, device)
    (tmp_path / projector.FILE).write_bytes(b"nothing")
    with pytest.raises(ProjectorError, match="got another form"):
        projector.load(tmp_path, device)
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / projector.FILE)
    with pytest.raises(ProjectorError, match="got another form"):
        projector.load(tmp_path, device)
    tensors, told = projector._read(folder / projector.FILE, projector._FORM)
    told["places"] = {"clip.last_hidden_state": [4, 47]}
    projector._write(tmp_path / projector.FILE, tensors, told)
    with pytest.raises(ProjectorError, match="must contain the tensors that it names"):
        projector.load(tmp_path, device)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_vectors": 0}, "num_vectors must be 1 or more, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0"),
        ({"seed": -1}, "seed must be in 0"),
        ({"model": ModelConfig(model="a/b")}, "without pictures because"),
    ],
)
def test_settings_of_a_projector_are_checked(changes, message):
    with pytest.raises(ConfigError, match=message):
        ProjectorConfig(**changes)


def test_the_commands_train_a_projector_and_draw_with_it(guide_folder, tmp_path, capsys):
    words = ["baseline", "projector", "--model", "microworld-nano", "--device", "cpu",
             "--guide", str(guide_folder), "--num-pictures", "4", "--num-samples", "8",
             "--train-batch-size", "2", "--output-dir", str(tmp_path / "p")]  # fmt: skip
    assert main(words) == 0
    assert "after 4 steps" in capsys.readouterr().out
    picture().save(tmp_path / "a.png")
    words = ["baseline", "variations", str(tmp_path / "a.png"), "--model", str(tmp_path / "p"),
             "--num-inference-steps", "2", "--candidates", "1", "--device", "cpu",
             "--prompt", "a {} on the beach", "--output-dir", str(tmp_path / "out")]  # fmt: skip
    assert main(words) == 0
    assert "1 variations by projector (ours) on microworld-nano" in capsys.readouterr().out


def test_a_projectors_time_may_be_up(guide_folder, tmp_path, capsys):
    words = ["baseline", "projector", "--model", "microworld-nano", "--device", "cpu",
             "--guide", str(guide_folder), "--num-pictures", "4", "--num-samples", "6",
             "--train-batch-size", "2", "--output-dir", str(tmp_path / "p")]  # fmt: skip
    assert main([*words, "--minutes", "1e-9"]) == 0
    assert "Time is up. To continue, run the same command again." in capsys.readouterr().out
    assert (tmp_path / "p" / projector.STATE).is_file()
    assert not (tmp_path / "p" / projector.FILE).exists()
    assert main(words) == 0
    assert "after 3 steps" in capsys.readouterr().out
    assert main([*words, "--minutes", "0"]) == 2
    assert "minutes must be above 0, got 0.0" in capsys.readouterr().err


def test_a_model_of_the_second_world_has_its_projector_from_its_own_pictures(
    wide_model, tmp_path, monkeypatch, capsys
):
    drawn = world_pictures(3, seed=5, size=64, world=2)
    seeds = np.random.default_rng(np.random.SeedSequence((5, 83))).integers(0, 2**40, 3)
    assert np.array_equal(drawn, wide_drawing.render_batch(seeds.tolist(), 64)[0])
    folder = tmp_path / "second"
    shutil.copytree(wide_model, folder)
    shown = []
    plain = projector.train
    monkeypatch.setattr(projector, "train", lambda *a, **k: shown.append(a[2]) or plain(*a, **k))
    words = ["baseline", "projector", "--model", str(folder), "--device", "cpu", "--seed", "5",
             "--num-pictures", "3", "--num-samples", "4", "--train-batch-size", "2",
             "--output-dir", str(folder / "projector")]  # fmt: skip
    assert main(words) == 0
    assert torch.equal(shown[0], from_uint8(drawn))
    folder = folder.rename(tmp_path / "moved")  # it goes along
    model = variations.load(str(folder), Wishes(num_inference_steps=1, device="cpu"))
    assert isinstance(model, Projected)
    picture().save(tmp_path / "a.png")
    words = [
        "baseline",
        "variations",
        str(tmp_path / "a.png"),
        "--candidates",
        "1",
        "--num-inference-steps",
        "1",
        "--device",
        "cpu",
        "--output-dir",
        str(tmp_path / "o"),
    ]
    assert main([*words, "--model", str(folder)]) == 0
    # another model of the same world and guide
    shutil.copytree(folder, tmp_path / "later")
    unet = next((tmp_path / "later" / "pipeline" / "unet").glob("*.safetensors"))
    unet.write_bytes(unet.read_bytes()[:-1] + b"\x01")
    told = {n: v for n, v in weights.card_of(tmp_path / "later").items() if n != "sha256"}
    weights.seal(tmp_path / "later", told)
    assert main([*words, "--model", str(tmp_path / "later")]) == 2
    assert "was trained on" in capsys.readouterr().err


def test_an_embedded_model_without_a_projector_says_how_to_make_one(monkeypatch, tmp_path):
    monkeypatch.setattr(variations.weights, "projector_folder", lambda name: tmp_path)
    with pytest.raises(VariationsError, match="train one with oneword baseline projector --model"):
        variations.load("microworld-nano", Wishes(device="cpu"))
