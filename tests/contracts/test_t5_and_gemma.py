"""What sets families with a T5, a Gemma or a GLM alone apart from the others."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import T5Tokenizer

import tiny
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.contract import Conditioning
from oneword.models.families import bria, lumina2
from oneword.models.loading import load_backbone
from oneword.training.job import Job, JobError
from oneword.training.loop import invert
from oneword.vocabulary.inject import injected
from oneword.vocabulary.word import PlaceholderError


FEW = SamplingConfig(num_inference_steps=2, height=64, width=64)
NAMES = (
    *("pixart", "pixart_alpha", "sana", "lumina2", "chroma"),
    "sana_sprint",
    "deepfloyd_if",
    "auraflow",
    "cogview4",
    "lumina",
    "bria",
    "cogview3",
    "prx",
    "kandinsky3",
)
LOWERED = ("pixart", "pixart_alpha", "sana", "sana_sprint", "deepfloyd_if", "lumina")
BINNED = ("pixart", "pixart_alpha", "sana", "sana_sprint", "prx")
SPELLED = ("lumina", "prx")  # Gemma has no token for a prompt's first word, which no space precedes


@pytest.fixture(scope="module")
def loaded(folders):
    return {n: load_backbone(ModelConfig(model=str(folders[n]), device="cpu")) for n in NAMES}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def backbone(loaded, name):
    return loaded[name]


def word(backbone, text="red cat", token="<Cat-Toy>"):
    rows = {n: v.rows_of(text) for n, v in backbone.vocabularies.items()}
    return Concept(placeholder_token=token, rows=rows)


def states(backbone, prompt):
    """What the denoiser reads of a prompt: the hidden states that the mask leaves."""
    cond = backbone.encode_prompt([prompt])
    states = cond.encoder_hidden_states[0]
    return states[cond.extra["mask"][0].bool()] if "mask" in cond.extra else states


def test_plain_prompts_are_conditioned_as_the_stock_pipeline_draws_them(folders, name, backbone):
    """With its own defaults: length, instruction or system prompt, case, mask."""
    stock, seen = DiffusionPipeline.from_pretrained(folders[name]), {}
    stock.set_progress_bar_config(disable=True)

    def look(module, args, kwargs):
        seen.update(kwargs)

    denoiser = getattr(stock, "transformer", None) or stock.unet
    denoiser.register_forward_pre_hook(look, with_kwargs=True)
    size = {"use_resolution_binning": False} if name in BINNED else {}
    prompt = "A photo of a Red cat, on the MOON"
    stock(
        prompt, num_inference_steps=2, guidance_scale=1.0, height=64, width=64,
        output_type="latent", **size,
    )  # fmt: skip
    found = backbone.encode_prompt([prompt, "a dog"])[:1]
    if "lengths" in found.extra:  # what follows belongs to other prompts of the batch
        own = {n: x[:, : found.extra["lengths"][0]] for n, x in found.extra.items() if x.ndim > 1}
        found = Conditioning(found.encoder_hidden_states[:, : found.extra["lengths"][0]], extra=own)
    assert torch.allclose(found.encoder_hidden_states, seen["encoder_hidden_states"], atol=1e-6)
    if name == "chroma":  # whose own mask counts the picture's patches, too
        ours, theirs = found.extra["mask"], seen["attention_mask"]
        assert torch.equal(ours, theirs[:, : ours.shape[1]])
    elif "encoder_attention_mask" in seen:
        assert torch.equal(found.extra["mask"], seen["encoder_attention_mask"])
    elif "encoder_mask" in seen:
        assert torch.equal(found.extra["mask"], seen["encoder_mask"])
    elif "attention_mask" in seen:
        assert torch.equal(found.extra["mask"], seen["attention_mask"])
    else:
        assert "mask" not in found.extra


@pytest.mark.parametrize(
    "prompt", ["a photo of a {} on the moon", "{} on the moon", "a {}, dirty", "a {}"]
)
def test_a_row_takes_the_place_of_a_word_with_its_space(backbone, prompt):
    # T5's tokenizer puts a space before whatever follows an added token, as in stock pipelines
    gapped = isinstance(backbone.pipeline.tokenizer, T5Tokenizer)
    apart = prompt.replace(",", " ,") if gapped else prompt
    if backbone.family in SPELLED and prompt.startswith("{"):
        pytest.skip("spelled without its space, which the pipeline takes away")
    if backbone.family == "cogview4" and prompt.startswith("{"):
        apart = f" {prompt}"  # without its space GLM spells the word
    plain = states(backbone, apart.format("red cat"))
    with injected(backbone, [word(backbone)]):
        found = states(backbone, prompt.format("<Cat-Toy>"))
    assert torch.allclose(found, plain, atol=1e-5)


@pytest.mark.parametrize("name", LOWERED)
def test_the_word_keeps_its_case_where_the_prompt_is_lower_cased(loaded, name):
    backbone = loaded[name]
    plain = states(backbone, "a photo of a red cat on the moon")
    pair = [word(backbone), word(backbone, "dog", "<cat-toy>"), word(backbone, "mug", "CAT")]
    with injected(backbone, pair, replace=True):
        found = states(backbone, "  A PHOTO of a <Cat-Toy> ON the Moon ")
        other = states(backbone, "a photo of a <cat-toy> on the moon")
        shouted = states(backbone, "a photo of a CAT and a Cat and a CATTLE")
        inside = backbone.pipeline._text_preprocessing("  A <Cat-Toy>,  A\nCAT ")
        stock = type(backbone.pipeline)._text_preprocessing
        assert inside == ["a <Cat-Toy>,  a\nCAT"]
    assert torch.allclose(found, plain, atol=1e-5)
    assert torch.allclose(other, states(backbone, "a photo of a dog on the moon"), atol=1e-5)
    expected = states(backbone, "a photo of a mug and a cat and a cattle")
    assert torch.allclose(shouted, expected, atol=1e-5)
    for text in ("  A Photo ", ["A", " b"], ""):
        ours = backbone.pipeline._text_preprocessing(text)
        assert ours == stock(backbone.pipeline, text)


@pytest.mark.parametrize("name", LOWERED)
def test_the_word_survives_cleaning(loaded, name, monkeypatch):
    """Cleaning, which the stock pipelines may do, takes ``<Cat-Toy>`` for HTML."""
    backbone = loaded[name]
    module = __import__(type(backbone.pipeline).__module__, fromlist=["x"])
    monkeypatch.setattr(module, "is_bs4_available", lambda: True)
    monkeypatch.setattr(module, "is_ftfy_available", lambda: True)
    monkeypatch.setattr(
        type(backbone.pipeline),
        "_clean_caption",
        lambda _, text: re.sub("<[^>]*>", "", text).strip().lower(),
    )
    with injected(backbone, [word(backbone)]):
        found = backbone.pipeline._text_preprocessing("A <b>Photo</b> of <Cat-Toy>", True)
    assert found == ["a photo of <Cat-Toy>"]
    assert backbone.pipeline._text_preprocessing("A <Cat-Toy>", True) == ["a"]


def test_prx_cleans_what_stands_beside_a_word_as_beside_any(loaded):
    """Its pipeline cleans prompts by rules that look across the word, and always."""
    backbone = loaded["prx"]
    clean = backbone.pipeline.text_preprocessor.clean_text
    stock = type(backbone.pipeline.text_preprocessor)().clean_text
    prompts = (
        "  A PHOTO of (a) {}, http://x.com/y *ON* the -- Moon. ",
        "a {}, dirty",
        "{}; one-two-three-four",
        "a-b-c-d-{}",
        "'{}'",
        "a word, a woord and {} and {}!",
    )
    pair = [word(backbone), word(backbone, "dog", "CAT")]
    with injected(backbone, pair, replace=True):
        for prompt in prompts:
            expected = stock(prompt.replace("{}", "robot")).replace("robot", "<Cat-Toy>")
            assert clean(prompt.replace("{}", "<Cat-Toy>")) == expected
        assert clean("A CAT and a Cat and a CATTLE") == "a CAT and a cat and a cattle"
        with pytest.raises(PlaceholderError, match=r"cleans it and loses .*"):
            backbone.encode_prompt(["a cat", "x1<Cat-Toy>"])
    assert clean("A <Cat-Toy>, CAT") == stock("A <Cat-Toy>, CAT") == "a <cat-toy>, cat"


def test_prx_has_either_of_two_autoencoders(tmp_path):
    folder = tiny.save(tiny.make("prx", autoencoder=tiny.make("sana").vae), tmp_path / "dc")
    backbone = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    moments = backbone.encode_image(pixels)
    assert moments.mean.shape == (1, 8, 8, 8)
    assert not moments.std.any()
    cond = backbone.encode_prompt(["a cat"])
    assert backbone.predict(moments.mean, torch.tensor([0.5]), cond).shape == moments.mean.shape
    assert backbone.draw(["a cat"], [0], FEW).shape == pixels.shape


def test_the_memory_of_prx_is_known_before_it_is_loaded(folders):
    """Its text encoder is a part that is stored with the settings of the whole."""
    backbone = load_backbone(ModelConfig(model=str(folders["prx"]), device="cpu", memory="low"))
    assert "expected peak" in backbone.memory


def test_prx_is_loaded_without_a_word_about_diffusers_classes(folders):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        load_backbone(ModelConfig(model=str(folders["prx"]), device="cpu"))


def test_prx_without_ftfy_is_refused(folders, monkeypatch):
    monkeypatch.delattr("diffusers.pipelines.prx.pipeline_prx.ftfy")
    with pytest.raises(ModelError, match=r"Cannot use PRX because ftfy.* pip install ftfy"):
        load_backbone(ModelConfig(model=str(folders["prx"]), device="cpu"))


def test_the_last_place_that_a_prompt_has_still_counts(backbone):
    """What stands before the prompt uses up its length: a word there would learn nothing."""
    (vocabulary,) = backbone.vocabularies.values()
    specials = len(vocabulary.tokenizer("a").input_ids) - 1
    fill = vocabulary.max_length - specials - 1
    # which GLM has without a space before it, too; Gemma spells it where nothing stands before
    the, begun = "the ", 3 if backbone.family in SPELLED else 1
    first, second = word(backbone, "cat"), word(backbone, "dog")
    with injected(backbone, [first]):
        one = states(backbone, the + "red " * (fill - begun) + "<Cat-Toy>")
    with injected(backbone, [second]):
        other = states(backbone, the + "red " * (fill - begun) + "<Cat-Toy>")
        with pytest.raises(PlaceholderError, match=r"shorten the prompt, or move the placeholder"):
            states(backbone, the + "red " * (fill + 2) + "<Cat-Toy>")
    assert not torch.allclose(one, other, atol=1e-3)
    pictures = torch.zeros(1, 3, 64, 64)
    config = InversionConfig(
        placeholder_token="<Cat-Toy>", initializer_token="cat", max_train_steps=1,
        train_batch_size=1, num_evaluation_samples=1,
    )  # fmt: skip
    caption = the + "red " * (fill - begun + 1) + "<Cat-Toy>"
    with pytest.raises(JobError, match=rf"must fit into {fill + 1} tokens of .*, up to its word"):
        invert(backbone, Job(name="a", pictures=pictures, config=config, captions=(caption,)))


def test_a_system_prompt_that_leaves_no_room_is_refused():
    pipeline = tiny.make("lumina2")
    pipeline.system_prompt = "superior images " * 130
    with pytest.raises(ModelError, match=r"must leave room for a prompt in 256 tokens, got 2\d\d"):
        lumina2.Lumina2(pipeline, ModelConfig(model="long", device="cpu"))


@pytest.mark.parametrize(("name", "shift"), [("sana", 3.0), ("lumina2", 6.0)])
def test_times_follow_the_schedulers_shift(loaded, name, shift):
    u = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    t = (2**0.5 * torch.erfinv(2 * u - 1)).sigmoid()
    expected = shift * t / (1 + (shift - 1) * t)
    found = loaded[name].sample_t(u.float(), (8, 8)).double()
    assert torch.allclose(found, expected, atol=1e-6)


def test_cogview4_shifts_noise_levels_and_tells_unshifted_times(loaded):
    backbone, seen = loaded["cogview4"], []
    u = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    t = (2**0.5 * torch.erfinv(2 * u - 1)).sigmoid()
    factor = 0.75 * (8 * 16 / 4 / 256) ** 0.5 + 0.25
    levels = backbone.sample_t(u.float(), (8, 16))
    assert torch.allclose(levels.double(), factor / (factor + 1 / t - 1), atol=1e-6)
    handle = backbone.denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    crops = torch.tensor([[480, 640, 0, 16]] * 3)
    with torch.no_grad():
        cond = backbone.encode_prompt(["a cat"] * 3)
        backbone.predict(torch.zeros(3, 4, 8, 16), levels, cond, crops)
        backbone.predict(torch.zeros(3, 4, 8, 16), levels, cond)
    handle.remove()
    assert torch.allclose(seen[0]["timestep"].double() / 1000, t, atol=1e-6)
    told = [seen[0][n][1].tolist() for n in ("original_size", "crop_coords", "target_size")]
    assert told == [[480, 640], [0, 16], [64, 128]]
    told = [seen[1][n][1].tolist() for n in ("original_size", "crop_coords", "target_size")]
    assert told == [[64, 128], [0, 0], [64, 128]]


@pytest.mark.parametrize("name", ["cogview4", "kandinsky3"])
def test_each_prompt_is_padded_as_if_it_were_alone(loaded, name):
    """The text encoder or the denoiser reads the padding, and is not told to leave it out."""
    backbone = loaded[name]
    prompts = ["a cat", "a cat on the moon " * 6, "a dog", "red " * 20]
    x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = backbone.sample_t(torch.tensor([0.2, 0.4, 0.6, 0.8]), (8, 8))
    steps = []
    with torch.no_grad():
        whole = backbone.predict(x, t, backbone.encode_prompt(prompts))
        alone = [
            backbone.predict(x[i : i + 1], t[i : i + 1], backbone.encode_prompt(prompts[i : i + 1]))
            for i in range(4)
        ]
    assert torch.allclose(whole, torch.cat(alone), atol=1e-5)
    drawn = backbone.draw(prompts, [1, 2, 3, 4], FEW, on_step=lambda *step: steps.append(step))
    parts = [backbone.draw([p], [i + 1], FEW) for i, p in enumerate(prompts)]
    assert torch.allclose(drawn, torch.cat(parts), atol=1e-4)
    assert steps == [(i + 1, 6) for i in range(6)]
    with pytest.raises(ModelError, match=r"prompts of the same length .* got 3 kinds"):
        backbone.draw(prompts, [1, 2, 3, 4], FEW, on_latents=lambda x, _: x)


def test_kandinskys_longest_prompts_have_no_padding(loaded):
    """One token shorter they have one, and then fewer tokens count."""
    backbone = loaded["kandinsky3"]
    full, less = "red " * 127, "red " * 126  # and one token for the end
    cond = backbone.encode_prompt([full, less, "a cat"])
    assert cond.extra["mask"].sum(1).tolist() == [128, 127, 3]
    assert cond.extra["lengths"].tolist() == [128, 128, 4]
    x, t = torch.zeros(3, 4, 8, 8), torch.tensor([5, 500, 900])
    with torch.no_grad():
        whole = backbone.predict(x, t, cond)
        for i, prompt in enumerate((full, less, "a cat")):
            alone = backbone.predict(x[i : i + 1], t[i : i + 1], backbone.encode_prompt([prompt]))
            assert torch.allclose(whole[i : i + 1], alone, atol=1e-5)


def test_kandinskys_latents_are_what_its_autoencoder_gives(loaded):
    backbone = loaded["kandinsky3"]
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    moments, vae = backbone.encode_image(pixels), backbone.pipeline.movq
    with torch.no_grad():
        latents = vae.encode(pixels).latents
        decoded = vae.decode(latents, force_not_quantize=True).sample.clamp(-1, 1)
    assert torch.equal(moments.mean, latents)
    assert not moments.std.any()
    assert torch.equal(backbone.decode_latents(latents), decoded)


def test_bria_with_another_kind_of_noise_is_refused():
    pipeline = tiny.make("bria")
    pipeline.scheduler = tiny.parts.scheduler()
    with pytest.raises(ModelError, match=r"must come with FlowMatchEuler.* got DDIMScheduler in x"):
        bria.Bria(pipeline, ModelConfig(model="x", device="cpu"))


def test_alpha_at_1024_px_is_told_the_pictures_size(loaded):
    backbone, seen = loaded["pixart_alpha"], []
    handle = backbone.denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["added_cond_kwargs"]), with_kwargs=True
    )
    with torch.no_grad():
        cond = backbone.encode_prompt(["a cat"] * 2)
        backbone.predict(torch.zeros(2, 4, 8, 16), torch.tensor([5, 9]), cond)
    handle.remove()
    assert seen[0]["resolution"].tolist() == [[64, 128]] * 2
    assert seen[0]["aspect_ratio"].tolist() == [[0.5]] * 2


def test_alpha_in_one_step_is_refused(loaded):
    """Where the scheduler returns no picture of one step, diffusers' pipeline breaks."""
    with pytest.raises(ModelError, match=r"must be drawn in 2 steps or more .* got 1"):
        loaded["pixart_alpha"].draw(["a cat"], [0], replace(FEW, num_inference_steps=1))
    drawn = loaded["pixart"].draw(["a cat"], [0], replace(FEW, num_inference_steps=1))
    assert drawn.shape == (1, 3, 64, 64)


def test_steps_are_told_and_a_negative_prompt_counts(backbone):
    steps = []
    plain = backbone.draw(["a cat"], [0], FEW, on_step=lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]
    against = replace(FEW, negative_prompt="a red dog")
    if backbone.family == "sana_sprint":
        with pytest.raises(ModelError, match=r"negative prompt 'a red dog'"):
            backbone.draw(["a cat"], [0], against)
        return
    assert not torch.equal(plain, backbone.draw(["a cat"], [0], against))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "pixart",
            {"clip_skip": 1},
            "clip_skip 1 with PixArt because it has no CLIP; leave it out",
        ),
        ("sana", {"clip_skip": 2}, "Sana because it has no CLIP"),
        ("sana_sprint", {"clip_skip": 2}, "Sana-Sprint because it has no CLIP"),
        ("sana_sprint", {"vae": "x"}, "needs the model's own VAE"),
        ("deepfloyd_if", {"clip_skip": 2}, "DeepFloyd IF because it has no CLIP"),
        (
            "deepfloyd_if",
            {"vae": "x"},
            "--vae x with DeepFloyd IF because it draws pixels .*; leave it out",
        ),
        ("lumina2", {"clip_skip": 2}, "Lumina 2 because it has no CLIP"),
        ("chroma", {"clip_skip": 2}, "Chroma because it has no CLIP"),
        ("cogview4", {"clip_skip": 2}, "CogView4 because it has no CLIP"),
        ("lumina", {"clip_skip": 2}, "Lumina-Next because it has no CLIP"),
        ("bria", {"clip_skip": 2}, "Bria because it has no CLIP"),
        ("cogview3", {"clip_skip": 2}, "CogView3 because it has no CLIP"),
        ("auraflow", {"clip_skip": 2}, "AuraFlow because it has no CLIP"),
        ("prx", {"clip_skip": 2}, "PRX because it has no CLIP"),
        ("kandinsky3", {"clip_skip": 2}, "Kandinsky 3 because it has no CLIP"),
        ("kandinsky3", {"vae": "x"}, "needs the model's own VAE"),
        ("sana", {"vae": "x"}, "needs the model's own VAE"),
    ],
)
def test_what_the_family_does_not_have_is_refused(folders, name, fields, message):
    with pytest.raises(ModelError, match=message):
        load_backbone(ModelConfig(model=str(folders[name]), device="cpu", **fields))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("pixart", "t5xxl"),
        ("sana", "gemma"),
        ("sana_sprint", "gemma"),
        ("deepfloyd_if", "t5xxl"),
        ("chroma", "t5xxl"),
        ("cogview4", "glm4"),
        ("lumina", "gemma"),
        ("bria", "t5xxl"),
        ("cogview3", "t5xxl"),
        ("auraflow", "pile_t5xl"),
        ("prx", "t5gemma"),
        ("kandinsky3", "flan_ul2"),
    ],
)
def test_files_name_the_encoder_as_other_tools_do(loaded, name, key, tmp_path):
    """And the word of any such file fits the model, without being told the family."""
    backbone = loaded[name]
    concept = word(backbone)
    formats.save_concept(concept, tmp_path / "cat-toy.safetensors", "comfyui")
    assert list(load_file(tmp_path / "cat-toy.safetensors")) == [key]
    plain = states(backbone, "a red cat")
    aliases = {"t5xxl": ("t5",), "gemma": ("gemma2_2b",)}
    for alias in (key, "emb_params", "x", *aliases.get(key, ())):
        save_file({alias: concept.rows[key]}, tmp_path / f"{alias}.safetensors")
        read = formats.load_concept(tmp_path / f"{alias}.safetensors").named("<Cat-Toy>")
        with injected(backbone, [read]):
            assert torch.allclose(states(backbone, "a <Cat-Toy>"), plain, atol=1e-5)
