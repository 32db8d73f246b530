"""Families whose text encoder is a language model: templates, lengths, scales, and their traps."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, Flux2KleinKVPipeline
from tokenizers.processors import ByteLevel
from torch.distributions import Normal
from torch.nn import functional as F

import tiny
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.contract import Conditioning, Moments
from oneword.models.loading import load_backbone
from oneword.training.job import Job, JobError
from oneword.training.loop import invert
from oneword.vocabulary.inject import injected
from oneword.vocabulary.word import PlaceholderError


NAMES = (
    *("krea2", "ovis_image", "hunyuan_image", "qwen_image", "qwen_image21"),
    *("z_image", "z_image_omni", "flux2", "flux2_dev", "bria_fibo2", "nucleus_moe"),
)
PROMPTS = ["a photo of a cat on the moon", "a red dog"]


@pytest.fixture(scope="module")
def loaded(folders):
    return {n: load_backbone(ModelConfig(model=str(folders[n]), device="cpu")) for n in NAMES}


@pytest.fixture(params=NAMES)
def backbone(request, loaded):
    return loaded[request.param]


def vocabulary_of(backbone):
    (vocabulary,) = backbone.vocabularies.values()
    return vocabulary


def word(backbone, text="red cat", token="<Toy>"):
    vocabulary = vocabulary_of(backbone)
    return Concept(placeholder_token=token, rows={vocabulary.name: vocabulary.rows_of(text)})


def states_of(found):
    """Conditioning of the stock pipelines, which is a list where prompts are not padded."""
    if isinstance(found, torch.Tensor) and found.shape[1] == 6:  # Fibo 2's bundles of layers
        found = found.transpose(1, 2)
    states = list(found) if isinstance(found, list) else list(found.unbind())
    states = [s[0] if isinstance(s, list) else s for s in states]  # Omni's are lists of parts
    return [s.flatten(1) for s in states]  # Krea 2's have an axis for layers


@pytest.mark.parametrize("name", NAMES)
def test_conditioning_is_the_stock_pipelines_also_while_words_are_injected(folders, loaded, name):
    backbone, stock = loaded[name], DiffusionPipeline.from_pretrained(folders[name])
    whole = ("krea2", "ovis_image", "qwen_image", "qwen_image21", "bria_fibo2", "nucleus_moe")
    length = {} if name in whole else {"max_sequence_length": 96}
    with torch.no_grad():
        own = backbone.encode_prompt(PROMPTS)
        if name == "hunyuan_image":  # what it pads besides counts for nothing: see below
            length = {"batch_size": 2}
            stock.tokenizer_max_length = own.extra["mask"].shape[1]
        theirs, *others = stock.encode_prompt(list(PROMPTS), device="cpu", **length)
        with injected(backbone, [word(backbone)]):
            beside = backbone.encode_prompt(PROMPTS)
    for i, expected in enumerate(states_of(theirs)):
        assert torch.equal(own.encoder_hidden_states[i, : len(expected)], expected)
    assert torch.equal(own.encoder_hidden_states, beside.encoder_hidden_states)
    if name in ("qwen_image", "qwen_image21", "hunyuan_image", "bria_fibo2", "nucleus_moe"):
        assert torch.equal(own.extra["mask"], others[0])
    if name in ("z_image", "z_image_omni"):
        assert own.extra["mask"].sum(1).tolist() == [len(states) for states in states_of(theirs)]


def test_the_space_is_taken_where_the_tokenizer_gives_it_no_width(loaded):
    backbone = loaded["z_image"]
    vocabulary = vocabulary_of(backbone)
    original = vocabulary.tokenizer
    trimming = copy.deepcopy(original)
    trimming.backend_tokenizer.post_processor = ByteLevel(trim_offsets=True)
    vocabulary.pipeline.tokenizer = trimming
    try:
        with injected(backbone, [word(backbone)]):
            ids = vocabulary.tokenizer("a photo of a <Toy> on the moon").input_ids
    finally:
        vocabulary.pipeline.tokenizer = original
    assert len(ids) == len(original("a photo of a red cat on the moon").input_ids)


@pytest.mark.parametrize("prompt", ["{} on the moon", "a photo of a {}", "a {}, a {} and a dog"])
def test_a_word_takes_its_space_and_nothing_else_of_the_template(backbone, prompt):
    """In front of a prompt the line break before it is the template's own token."""
    vocabulary = vocabulary_of(backbone)
    mark = f"<|im_start|>user\n{prompt}<|im_end|>\n"
    plain = vocabulary.tokenizer(mark.replace("{}", "red cat")).input_ids
    first = prompt.startswith("{}")
    if first:  # no space to take: the bare pieces of "red" against one row
        plain = vocabulary.tokenizer(mark.replace("{}", " red cat")).input_ids
    with injected(backbone, [word(backbone)]):
        ids = vocabulary.tokenizer(mark.replace("{}", "<Toy>")).input_ids
        text = vocabulary.tokenizer.decode(ids)
    table = vocabulary.weight.shape[0]
    assert len(ids) == len(plain)
    assert [i if i < table else None for i in ids] == [
        None if i in vocabulary.ids("red cat") else i for i in plain
    ]
    assert sum(i >= table for i in ids) == 2 * prompt.count("{}")
    assert "<Toy>" in text


def test_the_longest_prompt_still_holds_its_word_and_a_longer_one_is_refused(backbone):
    vocabulary = vocabulary_of(backbone)
    concept = word(backbone)
    rows = {n: r.clone().requires_grad_() for n, r in concept.rows.items()}
    concept = replace(concept, rows=rows)
    fitting = "the" + " cat" * (vocabulary.max_length - 3) + " <Toy>"
    with injected(backbone, [concept]):
        found = backbone.encode_prompt([fitting]).encoder_hidden_states
        (gradient,) = torch.autograd.grad(found.square().sum(), list(rows.values()))
        assert gradient.abs().sum(1).min() > 0
        if backbone.family == "qwen_image21":
            return  # whose pipeline cuts nothing off
        limit = vocabulary.max_length + 4 * 96  # the template's own end may go, the word may not
        with pytest.raises(PlaceholderError, match=r"must fit .* tokens up to its placeholder"):
            backbone.encode_prompt(["the" + " cat" * limit + " <Toy>"])


def job(backbone, **fields):
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1
    settings = {
        "initializer_token": "cat",
        "max_train_steps": 1,
        "train_batch_size": 2,
        "num_evaluation_samples": 2,
        "learning_rate": 5e-3,
    }
    return Job(name="a", pictures=pictures, config=InversionConfig(**settings | fields))


def test_a_system_prompt_that_leaves_no_room_is_found_before_training(folders, tmp_path):
    """With stock tools the word is cut off in silence, and its gradient is exactly zero."""
    pipeline = DiffusionPipeline.from_pretrained(folders["flux2_dev"])
    pipeline.tokenizer.tokenizer.model_max_length = 44
    small = load_backbone(
        ModelConfig(model=str(tiny.save(pipeline, tmp_path / "small")), device="cpu")
    )
    assert vocabulary_of(small).max_length == 2
    with pytest.raises(
        JobError, match=r"must fit into 2 tokens of the text encoder \w+, up to its word"
    ):
        invert(small, job(small))


def test_qwen_image_drops_the_head_of_its_template_and_no_more(loaded):
    backbone = loaded["qwen_image"]
    pipeline, tokenizer = backbone.pipeline, vocabulary_of(backbone).tokenizer
    text = pipeline.prompt_template_encode.format("the cat")
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)
    assert tokens[pipeline.prompt_template_encode_start_idx :][:2] == ["the", "\u0120cat"]
    cond = backbone.encode_prompt(["the cat", "the cat on the moon"])
    assert cond.extra["mask"].sum(1).tolist() == [2 + 5, 5 + 5]
    assert vocabulary_of(backbone).max_length == 1024 - 5


def test_qwen_image_needs_no_mask_where_all_prompts_are_of_one_length(loaded):
    backbone = loaded["qwen_image"]
    own = backbone.encode_prompt(["the cat", "the moon"])
    assert own.extra == {}
    x_t = torch.randn(
        2, backbone.autoencoder.channels, 4, 4, generator=torch.Generator().manual_seed(0)
    )
    t = torch.tensor([0.3, 0.8])
    ones = torch.ones(own.encoder_hidden_states.shape[:2], dtype=torch.long)
    masked = Conditioning(own.encoder_hidden_states, extra={"mask": ones})
    with torch.no_grad():
        torch.testing.assert_close(backbone.predict(x_t, t, own), backbone.predict(x_t, t, masked))


def test_hunyuans_padding_counts_for_nothing(folders, loaded):
    """Neither that of prompts, up to 1000 tokens, nor that of what they quote."""
    backbone = loaded["hunyuan_image"]
    stock = DiffusionPipeline.from_pretrained(folders["hunyuan_image"])
    x_t = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.3, 0.8])
    with torch.no_grad():
        for prompts in (PROMPTS, ["a dog", "a cat and 'a big dog' on the moon"]):
            states, mask, glyphs, of_glyphs = stock.encode_prompt(prompts, "cpu", batch_size=2)
            assert states.shape[1] == 1000
            padded = {"mask": mask, "glyphs": glyphs, "glyphs_mask": of_glyphs}
            expected = backbone.predict(x_t, t, Conditioning(states, extra=padded))
            own = backbone.encode_prompt(prompts)
            longest = own.extra["mask"].shape[1]
            assert torch.equal(own.extra["mask"], mask[:, :longest])
            assert not mask[:, longest:].any()
            assert ("glyphs" in own.extra) == bool(of_glyphs.any())
            torch.testing.assert_close(backbone.predict(x_t, t, own), expected)
        alone = backbone.predict(x_t[:1], t[:1], backbone.encode_prompt(prompts[:1]))
        torch.testing.assert_close(alone, expected[:1])
        unquoted = backbone.encode_prompt([prompts[1].replace("'", "")])
    assert not torch.allclose(backbone.predict(x_t[1:], t[1:], unquoted), expected[1:], atol=1e-3)


def test_hunyuans_prompts_that_quote_something_are_guided_apart(loaded):
    backbone = loaded["hunyuan_image"]
    few = SamplingConfig(num_inference_steps=3, height=32, width=32)
    prompts, seeds, steps = ["a dog", 'a cat says "moon"', "a mug"], [1, 2, 3], []
    whole = backbone.draw(prompts, seeds, few, on_step=lambda *step: steps.append(step))
    assert steps == [(i + 1, 6) for i in range(6)]
    for i, prompt in enumerate(prompts):
        alone = backbone.draw([prompt], seeds[i : i + 1], few)
        assert torch.allclose(whole[i : i + 1], alone, atol=1e-4)
    with pytest.raises(ModelError, match=r"that all quote something, or none .* got 2 kinds"):
        backbone.draw(prompts, seeds, few, on_latents=lambda x, _: x)
    assert backbone.pipeline.guider.guidance_scale == 3.5
    weak = backbone.draw(prompts[:1], seeds[:1], replace(few, guidance_scale=2.0))
    assert backbone.pipeline.guider.guidance_scale == 2.0
    assert not torch.allclose(weak, whole[:1], atol=1e-3)


def test_the_distilled_hunyuan_is_trained_at_one_moment(tmp_path):
    folder = tiny.save(tiny.make("hunyuan_image", distilled=True), tmp_path / "distilled")
    backbone, seen = load_backbone(ModelConfig(model=str(folder), device="cpu")), []
    assert backbone.sampling.num_inference_steps == 8
    handle = backbone.denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    result = invert(backbone, job(backbone, placeholder_token="<toy>", max_train_steps=2))
    trained = list(seen)
    backbone.draw(["a cat"], [0], SamplingConfig(num_inference_steps=2, height=32, width=32))
    handle.remove()
    assert result.status == "finished"
    for told in trained:
        assert torch.equal(told["timestep_r"], told["timestep"])
        assert set(told["guidance"].tolist()) == {3250.0}
    drawn = seen[len(trained) :]
    assert [told["timestep_r"].tolist() for told in drawn] == [drawn[1]["timestep"].tolist(), [0.0]]
    assert all(torch.equal(told["guidance"], trained[0]["guidance"][:1]) for told in drawn)


def test_flux2_takes_three_layers_side_by_side(loaded):
    backbone = loaded["flux2"]
    layers = []

    def look(module, args, output):
        layers.append(output[0] if isinstance(output, tuple) else output)

    handles = [
        backbone.pipeline.text_encoder.model.layers[i - 1].register_forward_hook(look)
        for i in (9, 18, 27)
    ]
    found = backbone.encode_prompt(["a cat"]).encoder_hidden_states
    for handle in handles:
        handle.remove()
    assert torch.equal(found, torch.cat(layers, dim=-1))


@pytest.mark.parametrize("name", ["qwen_image", "qwen_image21", "krea2", "nucleus_moe"])
def test_qwen_images_moments_are_scaled_by_channel(loaded, name):
    backbone = loaded[name]
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    vae, config = backbone.autoencoder.vae, backbone.autoencoder.vae.config
    transparent = name == "qwen_image21"
    film = torch.cat([pixels, torch.ones(2, 1, 32, 32)], dim=1) if transparent else pixels
    with torch.no_grad():
        posterior = vae.encode(film[:, :, None]).latent_dist
    moments = backbone.encode_image(pixels)
    for channel in range(4):
        mean, std = config.latents_mean[channel], config.latents_std[channel]
        raw = posterior.mean[:, channel, 0].double().numpy()
        assert np.allclose(moments.mean[:, channel].numpy(), (raw - mean) / std, atol=1e-5)
        raw = posterior.std[:, channel, 0].double().numpy()
        assert np.allclose(moments.std[:, channel].numpy(), raw / std, atol=1e-5)
    decoded = vae.decode(posterior.mean).sample[:, :, 0].clamp(-1, 1)
    if transparent:  # on white
        *colours, alpha = (decoded / 2 + 0.5).unbind(1)
        decoded = torch.stack([alpha * c + 1 - alpha for c in colours], dim=1) * 2 - 1
    assert torch.allclose(backbone.decode_latents(moments.mean), decoded, atol=1e-5)


@pytest.mark.parametrize("name", ["flux2", "flux2_dev", "bria_fibo2"])
def test_flux2s_moments_are_patches_scaled_by_the_batch_norm(loaded, name):
    backbone = loaded[name]
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    vae = backbone.autoencoder.vae
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
    moments = backbone.encode_image(pixels)
    latents = moments.mean
    if name == "bria_fibo2":  # which takes the same cells apart again
        assert latents.shape == (2, 4, 16, 16)
        moments = Moments(*(F.pixel_unshuffle(v, 2) for v in (moments.mean, moments.std)))
    assert moments.mean.shape == (2, 16, 8, 8)
    cells = posterior.mean.double().numpy()
    spread = np.sqrt(vae.bn.running_var.double().numpy() + vae.config.batch_norm_eps)
    center = vae.bn.running_mean.double().numpy()
    for channel in range(4):
        for row in range(2):
            for column in range(2):
                place = 4 * channel + 2 * row + column
                raw = cells[:, channel, row::2, column::2]
                own = (raw - center[place]) / spread[place]
                assert np.allclose(moments.mean[:, place].numpy(), own, atol=1e-5)
    assert torch.allclose(
        moments.std[0, :, 3, 5],
        posterior.std[0, :, 6:8, 10:12].flatten() / torch.tensor(spread).float(),
        atol=1e-5,
    )
    decoded = vae.decode(posterior.mean).sample.clamp(-1, 1)
    assert torch.allclose(backbone.decode_latents(latents), decoded, atol=1e-4)


def test_times_follow_each_familys_shift(loaded):
    u = torch.tensor([0.1, 0.5, 0.9])
    t = Normal(0.0, 1.0).icdf(u.double()).sigmoid()
    found = loaded["z_image"].sample_t(u, (16, 16)).double()
    assert torch.allclose(found, 3 * t / (1 + 2 * t), atol=1e-6)
    patches = (32 // 2) * (48 // 2)
    mu = (0.9 - 0.5) / (8192 - 256) * (patches - 256) + 0.5
    found = loaded["qwen_image"].sample_t(u, (32, 48)).double()
    assert torch.allclose(found, np.exp(mu) / (np.exp(mu) + 1 / t - 1), atol=1e-6)
    # where each cell is a token
    found = loaded["qwen_image21"].sample_t(u, (16, 24)).double()
    assert torch.allclose(found, np.exp(mu) / (np.exp(mu) + 1 / t - 1), atol=1e-6)
    # two published lines over the number of patches, for 10 and for 200 steps
    patches = 32 * 48
    ten, many = 8.73809524e-05 * patches + 1.89833333, 0.00016927 * patches + 0.45666666
    for name, steps in (("flux2", 4), ("flux2_dev", 50)):
        mu = many + (steps - 200) * (many - ten) / 190
        found = loaded[name].sample_t(u, (32, 48)).double()
        assert torch.allclose(found, np.exp(mu) / (np.exp(mu) + 1 / t - 1), atol=1e-6), name


@pytest.mark.parametrize(("guidance", "negative"), [(0.0, ""), (5.0, "a dog")])
def test_omni_draws_the_stock_pipelines_pictures(folders, loaded, guidance, negative):
    stock = DiffusionPipeline.from_pretrained(folders["z_image_omni"])
    theirs = stock(
        prompt="a cat", negative_prompt=negative or None, guidance_scale=guidance, height=64,
        width=64, num_inference_steps=2, generator=torch.Generator().manual_seed(3),
        max_sequence_length=96, output_type="pt",
    ).images  # fmt: skip
    few = SamplingConfig(
        num_inference_steps=2, height=64, width=64, guidance_scale=guidance,
        negative_prompt=negative,
    )  # fmt: skip
    own = loaded["z_image_omni"].draw(["a cat"], [3], few)
    assert torch.allclose((own + 1) / 2, theirs, atol=1e-5)


def test_distilled_models_are_drawn_in_few_steps(folders, loaded, tmp_path):
    shutil.copytree(folders["z_image"], tmp_path / "Z-Image-Turbo")
    turbo = load_backbone(ModelConfig(model=str(tmp_path / "Z-Image-Turbo"), device="cpu"))
    assert (turbo.sampling.guidance_scale, turbo.sampling.num_inference_steps) == (0.0, 8)
    assert loaded["z_image"].sampling.guidance_scale == 5.0
    pipeline = DiffusionPipeline.from_pretrained(folders["qwen_image21"])
    pipeline.register_to_config(sample_sigmas=[1.0, 0.8, 0.4])
    few = load_backbone(ModelConfig(model=str(tiny.save(pipeline, tmp_path / "few")), device="cpu"))
    assert few.sampling.num_inference_steps == 3
    for steps in (None, 2):
        asked, done = SamplingConfig(num_inference_steps=steps, height=32, width=32), []
        few.draw(["a cat"], [0], asked, on_step=lambda *step: done.append(step))  # noqa: B023
        assert done[-1] == (steps or 3, steps or 3)
    whole = tiny.save(tiny.make("flux2", distilled=False), tmp_path / "klein")
    klein = load_backbone(ModelConfig(model=str(whole), device="cpu"))
    assert klein.sampling.num_inference_steps == 50
    assert loaded["flux2"].sampling.num_inference_steps == 4


def test_klein_that_remembers_pictures_is_klein(folders, loaded, tmp_path):
    parts = DiffusionPipeline.from_pretrained(folders["flux2"]).components
    stock = Flux2KleinKVPipeline(**parts)
    kv = load_backbone(ModelConfig(model=str(tiny.save(stock, tmp_path / "kv")), device="cpu"))
    assert kv.family == "flux2"
    assert kv.sampling.num_inference_steps == 4
    few = SamplingConfig(num_inference_steps=2, height=64, width=64)
    theirs = stock(
        prompt="a cat", height=64, width=64, num_inference_steps=2, output_type="pt",
        generator=torch.Generator().manual_seed(3), max_sequence_length=96,
    ).images  # fmt: skip
    own = kv.draw(["a cat"], [3], few)
    assert torch.allclose((own + 1) / 2, theirs, atol=1e-5)
    assert torch.allclose(own, loaded["flux2"].draw(["a cat"], [3], few), atol=1e-5)
    assert invert(kv, job(kv)).status == "finished"


def test_settings_that_a_family_has_not_are_refused(folders):
    message = "clip_skip 1 with .* because it has no CLIP; leave it out"
    for name in NAMES:
        with pytest.raises(ModelError, match=message):
            load_backbone(ModelConfig(model=str(folders[name]), device="cpu", clip_skip=1))


def test_a_tokenizer_without_its_chat_template_is_refused(folders, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(folders["z_image"])
    pipeline.tokenizer.chat_template = None
    bare = tiny.save(pipeline, tmp_path / "bare")
    with pytest.raises(ModelError, match=r"must have a chat template.* is missing"):
        load_backbone(ModelConfig(model=str(bare), device="cpu"))


@pytest.mark.parametrize("layout", ["oneword", "comfyui"])
def test_files_name_the_encoder_and_the_family(backbone, tmp_path, layout):
    learned = invert(backbone, job(backbone, placeholder_token="<Cat-Toy>")).concept
    (path,) = formats.save_concept(learned, tmp_path / "word.safetensors", layout)
    found = formats.load_concept(path)
    (name,) = backbone.vocabularies
    assert list(found.rows) == [name]
    assert torch.equal(found.rows[name], learned.rows[name])
    with injected(backbone, [found]):
        backbone.encode_prompt([f"a {found.placeholder_token}"])
    if layout == "oneword":
        assert found.provenance["family"] == backbone.family
        assert found.provenance["base_model"] == backbone.name
