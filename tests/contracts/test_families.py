"""The contract on every family of the catalog, on tiny pipelines saved and loaded again."""

from __future__ import annotations

import copy
import functools
import inspect
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import tiny
from oneword.catalog import FAMILIES
from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.config.presets import is_validated
from oneword.errors import ModelError
from oneword.generation.generate import generate
from oneword.models import contract
from oneword.models.contract import Backbone
from oneword.models.loading import load_backbone
from oneword.training.job import Job, JobError
from oneword.training.loop import invert
from oneword.training.rates import effective_learning_rate
from oneword.vocabulary.inject import injected


STORED = Path(__file__).with_name("expected.json")
FEW = SamplingConfig(num_inference_steps=2, height=64, width=64)
UNSCORED = {"evaluation_steps": 6, "num_evaluation_samples": 1}  # or hardly
# a UNet, transformers that read a prompt beside the picture or in a row with it, a linear one
EVERY_KIND = ("sdxl", "pixart", "flux", "sana")
POOLED = [name for name, family in FAMILIES.items() if "clip_l" in family.told_by]


@pytest.fixture(scope="module", params=tiny.names())
def name(request):
    return request.param


@pytest.fixture(scope="module")
def known(name):
    """What its tiny pipeline says of itself."""
    return tiny.PIPELINES[name]


@pytest.fixture(scope="module")
def backbone(folders, name):
    return load_backbone(ModelConfig(model=str(folders[name]), device="cpu"))


@pytest.fixture(scope="module")
def learned(backbone):
    """The plain job's rows after each step."""
    rows = {}
    invert(backbone, job(**UNSCORED), on_step=lambda at: rows.update({at.step: at.word().rows}))
    return rows


@pytest.fixture(scope="module")
def loaded(folders):
    return {n: load_backbone(ModelConfig(model=str(folders[n]), device="cpu")) for n in POOLED}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def latents(backbone, count=2, seed=0):
    return normal(count, backbone.autoencoder.channels, 8, 8, seed=seed)


def clean(backbone, count=2):
    """Latents of pictures: where those are pixels, in the range in which the solver keeps them."""
    x0 = latents(backbone, count)
    return x0.clamp(-1, 1) if backbone.autoencoder.factor == 1 else x0


def times(backbone, count):
    return backbone.sample_t(torch.linspace(0.1, 0.9, count), (8, 8))


def job(**fields):
    settings = {
        "placeholder_token": "<Cat-Toy>",
        "initializer_token": "cat",
        "max_train_steps": 6,
        "train_batch_size": 2,
        "evaluation_steps": 3,
        "num_evaluation_samples": 4,
        "learning_rate": 5e-3,
        "keep": "last",
    }
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(5)) * 2 - 1
    return Job(name="a", pictures=pictures, config=InversionConfig(**settings | fields))


def everything(backbone):
    modules = [m for m in backbone.pipeline.components.values() if isinstance(m, torch.nn.Module)]
    return [t.clone() for module in modules for t in module.state_dict().values()]


@pytest.mark.parametrize("family", [n for n, f in FAMILIES.items() if f.pipelines])
def test_every_family_has_a_tiny_pipeline(family):
    assert any(known.family == family for known in tiny.PIPELINES.values()), (
        f"The family {family} must have a tiny pipeline; write tests/tiny/{family}.py with a "
        f'function under @register("{family}").'
    )


def test_it_is_what_its_record_says(backbone, known):
    record = FAMILIES[known.family]
    assert backbone.family == record.name
    assert type(backbone.pipeline).__name__ in record.pipelines
    assert backbone.noise.prediction_type in record.prediction_type.split(", ")
    sizes = {"clip"} | {e.key for e in record.text_encoders}  # a tiny one is of another size
    assert {*backbone.vocabularies} <= sizes | {e.other_size for e in record.text_encoders}


def test_it_fulfils_the_contract(backbone):
    assert isinstance(backbone, Backbone)
    for name in ("encode_prompt", "predict", "draw", "sample_t", "encode_image"):
        own = inspect.signature(getattr(type(backbone), name)).parameters
        agreed = inspect.signature(getattr(contract.Backbone, name)).parameters
        assert list(own) == list(agreed), name
    gaps = [f for f in ("guidance_scale", "num_inference_steps", "height", "width")
            if getattr(backbone.sampling, f) is None]  # fmt: skip
    assert not gaps


def test_fixed_cases_are_as_they_were(backbone, name):
    """Sums of a fixed prediction: a change of any library or of ours that moves them is seen."""
    with torch.no_grad():
        cond = backbone.encode_prompt(["a photo of a cat on the moon", "a red dog"])
        found = backbone.predict(latents(backbone), times(backbone, 2), cond)
    numbers = [float(found.mean()), float(found.std()), *found[0, 0, 0, :4].tolist()]
    stored = json.loads(STORED.read_text())
    assert name in stored, f"{STORED.name} must hold {name}; run python {__file__}"
    assert np.allclose(numbers, stored[name], rtol=1e-3, atol=1e-4), numbers


def test_a_list_of_prompts_is_left_as_it_was(backbone):
    """Z-Image's own encode_prompt writes its template into the list that it is given."""
    prompts = ["a photo of a cat on the moon", "a red dog"]
    backbone.encode_prompt(prompts)
    assert prompts == ["a photo of a cat on the moon", "a red dog"]


def test_the_default_rate_is_its_recipes(backbone, known):
    """In units of the table where no rate is published, and not validated here."""
    config = InversionConfig().resolved(backbone.family)
    assert not is_validated("default", backbone.family)
    is_relative = FAMILIES[known.family].recipe == "relative"
    assert (config.learning_rate is None) == is_relative
    for vocabulary in backbone.vocabularies.values():
        absolute, relative = effective_learning_rate(config, vocabulary)
        assert relative == pytest.approx(0.14 if is_relative else 2e-3 / vocabulary.std())
        assert absolute == pytest.approx(0.14 * vocabulary.std() if is_relative else 2e-3)


def test_noise_and_targets_are_the_closed_form(backbone):
    x0, noise = latents(backbone, 3), latents(backbone, 3, seed=1)
    t = times(backbone, 3)
    x64, n64 = x0.double().numpy(), noise.double().numpy()
    n64 *= backbone.pipeline.config.get("noise_scale", 1.0)  # PRXPixel's
    if backbone.noise.prediction_type == "flow":
        s = t.double().numpy()[:, None, None, None]
        noised, target = (1 - s) * x64 + s * n64, n64 - x64
    elif backbone.noise.prediction_type == "trigflow":
        angle = t.double().numpy()[:, None, None, None]
        noised = np.cos(angle) * x64 + np.sin(angle) * n64
        target = np.cos(angle) * n64 - np.sin(angle) * x64
    else:
        config = backbone.pipeline.scheduler.config
        if config.beta_schedule == "squaredcos_cap_v2":  # Nichol and Dhariwal 2021, equation 17
            f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
            betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
        else:
            power = {"linear": 1, "scaled_linear": 2}[config.beta_schedule]
            ends = config.beta_start ** (1 / power), config.beta_end ** (1 / power)
            betas = np.linspace(*ends, config.num_train_timesteps, dtype=np.float64) ** power
        powers = np.cumprod(1 - betas)
        if (scale := config.get("snr_shift_scale")) is not None:  # shifted, and ends without signal
            root = np.sqrt(powers / (scale + (1 - scale) * powers))
            powers = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        a = powers[t.numpy()][:, None, None, None]
        noised = np.sqrt(a) * x64 + np.sqrt(1 - a) * n64
        v = np.sqrt(a) * n64 - np.sqrt(1 - a) * x64
        target = n64 if backbone.noise.prediction_type == "epsilon" else v
    assert np.allclose(backbone.add_noise(x0, noise, t).numpy(), noised, atol=1e-5)
    assert np.allclose(backbone.target(x0, noise, t).numpy(), target, atol=1e-5)


def test_the_familys_own_scheduler_follows_the_target_to_the_picture(backbone):
    """Told the target at every step, it passes through ``add_noise`` at each of its times."""
    scheduler = copy.deepcopy(backbone.pipeline.scheduler)
    dynamic = scheduler.config.get("use_dynamic_shifting")
    arc = backbone.noise.prediction_type == "trigflow"
    scheduler.set_timesteps(
        4, **({"mu": 0.8} if dynamic else {"intermediate_timesteps": None} if arc else {})
    )
    x0, noise = clean(backbone).double(), latents(backbone, seed=1).double()
    flow, x = backbone.noise.prediction_type == "flow", None
    rounding = 1e-5
    if hasattr(scheduler, "lambda_t"):  # DPM-Solver's rounded table is divided by the signal
        signal = scheduler.alphas_cumprod[int(scheduler.timesteps[0])].sqrt()
        rounding += 4 * torch.finfo(torch.float32).eps / float(signal)
    for i, step in enumerate(scheduler.timesteps[: 4 if arc else None]):
        t = (scheduler.sigmas[i] if flow else step).expand(2)
        expected = backbone.add_noise(x0, noise, t)
        x = expected if x is None else x
        assert torch.allclose(x, expected, atol=rounding), i
        x = scheduler.step(backbone.target(x0, noise, t), step, x, return_dict=False)[0]
    left = 0.0 if flow or arc else float((1 - scheduler.alphas_cumprod[0]).sqrt())
    if hasattr(backbone.noise, "least_time"):  # PRXPixel's pipeline goes a part of its last step
        x0 = torch.lerp(backbone.add_noise(x0, noise, t), x0, float(t[0]) / 0.05)
    assert torch.allclose(x, x0, atol=rounding + 5 * left)


def test_moments_are_scaled_and_shifted_by_the_vaes_config(backbone, known):
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    moments = backbone.encode_image(pixels)
    if known.own_latents:
        pytest.skip("scaled by channel, or not at all: in their own tests")
    vae = backbone.autoencoder.vae
    if vae is None:  # pictures are their own latents
        assert torch.equal(moments.mean, pixels)
        assert not moments.std.any()
        assert torch.equal(backbone.decode_latents(moments.mean), pixels)
        return
    config, encoded = vae.config, vae.encode(pixels)
    shift = config.get("shift_factor") or 0.0
    if hasattr(encoded, "latent_dist"):
        mean, std = encoded.latent_dist.mean, encoded.latent_dist.std
    else:  # Sana's and DreamLite's
        mean, std = encoded[0], torch.zeros_like(encoded[0])
    assert torch.allclose(moments.mean, (mean - shift) * config.scaling_factor)
    assert torch.allclose(moments.std, std * config.scaling_factor)
    decoded = vae.decode(moments.mean / config.scaling_factor + shift).sample
    assert torch.allclose(backbone.decode_latents(moments.mean), decoded.clamp(-1, 1), atol=1e-5)


def test_predictions_do_not_mix_within_a_batch(backbone):
    x, t = latents(backbone, 3), times(backbone, 3)
    cond = backbone.encode_prompt(["a cat", "a red dog", "a house on the moon"])
    with torch.no_grad():
        whole = backbone.predict(x, t, cond)
        alone = [backbone.predict(x[i : i + 1], t[i : i + 1], cond[i : i + 1]) for i in range(3)]
    assert whole.shape == x.shape
    assert torch.allclose(whole, torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("width", [64, 128])
def test_one_denoising_step_is_the_pipelines_own(backbone, known, width, monkeypatch):
    """What the stock pipeline hands its scheduler in midway is what ``predict`` gives."""
    seen, scheduler = [], backbone.pipeline.scheduler
    step = scheduler.step
    flow = backbone.noise.prediction_type == "flow"

    @functools.wraps(step)
    def look(prediction, t, sample, *args, **kwargs):
        level = scheduler.sigmas[scheduler.step_index or 0] if known.own_times else t / 1000
        seen.append((prediction, level if flow else t, sample))
        return step(prediction, t, sample, *args, **kwargs)

    monkeypatch.setattr(scheduler, "step", look)
    assert 64 % backbone.step_px == 0
    two = SamplingConfig(num_inference_steps=2, height=64, width=width)
    default = backbone.sampling.guidance_scale
    guidance = default if known.unguided is None else known.unguided
    backbone.draw(["a cat"], [3], SamplingConfig(guidance_scale=guidance).overlaid(two))
    prediction, t, sample = seen[-1]
    size = (64 // backbone.autoencoder.factor, width // backbone.autoencoder.factor)
    with torch.no_grad():
        cond = backbone.encode_prompt(["a cat"])
        own = backbone.predict(backbone._from_step(sample, size), t.reshape(1), cond)
    assert torch.allclose(own, backbone._from_step(prediction, size).float(), atol=1e-5)


def test_drawing_is_deterministic_and_does_not_depend_on_the_batch(backbone):
    prompts, seeds = ["a cat", "a dog", "a cat"], [1, 2, 3]
    whole = backbone.draw(prompts, seeds, FEW)
    alone = backbone.draw(prompts[1:2], seeds[1:2], FEW)
    assert whole.shape == (3, 3, 64, 64)
    assert torch.equal(whole, backbone.draw(prompts, seeds, FEW))
    assert torch.allclose(whole[1:2], alone, atol=1e-4)
    assert not torch.allclose(whole[0], whole[2], atol=1e-2)
    assert -1 <= whole.min() <= whole.max() <= 1


def test_pictures_are_drawn_over_and_inpainted(backbone, known):
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    if "over a picture" not in known.draws:
        with pytest.raises(ModelError, match=r"draw only from noise|diffusers has no such"):
            backbone.draw(["a cat"], [0], FEW, image=picture[:1])
        return
    more = SamplingConfig(num_inference_steps=4, height=64, width=64)
    weak, strong = (
        backbone.draw(["a cat", "a dog"], [1, 2], more, image=picture, strength=strength)
        for strength in (0.3, 0.9)
    )
    rebuilt = backbone.decode_latents(backbone.encode_image(picture).mean)
    assert (weak - rebuilt).square().mean() < (strong - rebuilt).square().mean()
    if "inpaints" not in known.draws:
        with pytest.raises(ModelError, match=f"{known.family} cannot draw inside masks"):
            backbone.draw(["a cat"], [0], FEW, image=picture[:1], mask=torch.ones(1, 1, 64, 64))
        return
    mask = torch.zeros(2, 1, 64, 64)
    kept, anew = (
        [backbone.draw([prompt] * 2, [1, 2], more, image=picture, mask=mask + paint)
         for prompt in ("a cat", "a red dog on the moon")]
        for paint in (0, 1)
    )  # fmt: skip
    assert torch.equal(*kept)  # where nothing is painted the prompt does not count
    assert not torch.equal(*anew)


def test_latents_are_seen_before_every_step_and_at_the_end(backbone):
    """Times fall from the first step's to none, and what is given back is what goes on."""
    sampling = SamplingConfig(num_inference_steps=3, height=64, width=64)
    seen, steps = [], []

    def look(x, t):
        seen.append((t, x.clone()))
        return x

    watched = backbone.draw(
        ["a cat"] * 2, [1, 2], sampling, on_latents=look, on_step=lambda *s: steps.append(s)
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]
    times = [t for t, _ in seen]
    assert times[-1] is None
    assert times[:-1] == sorted(times[:-1], reverse=True)
    assert len(times) == 4
    assert torch.allclose(backbone.decode_latents(seen[-1][1]), watched, atol=1e-5)
    size = (64 // backbone.autoencoder.factor,) * 2
    noise = backbone._noise([torch.Generator().manual_seed(s) for s in (1, 2)], size)
    assert torch.equal(seen[0][1], noise)
    unwatched = backbone.draw(["a cat"] * 2, [8, 9], sampling, latents=noise)
    assert torch.equal(unwatched, watched)
    x0 = latents(backbone)
    x0 = torch.nn.functional.interpolate(x0, size)
    held = backbone.draw(
        ["a cat"] * 2, [1, 2], sampling, on_latents=lambda x, t: x0 if t is None else x
    )
    assert torch.allclose(held, backbone.decode_latents(x0), atol=1e-5)


def test_the_time_of_a_step_is_the_noise_that_its_latents_have(backbone, monkeypatch):
    """A denoiser that always says "this picture" leaves its picture at each time's own noise."""
    sampling = SamplingConfig(num_inference_steps=4, height=64, width=64, guidance_scale=1.0)
    size = (64 // backbone.autoencoder.factor,) * 2
    x0 = torch.nn.functional.interpolate(clean(backbone, 1), size)
    noise = backbone._noise([torch.Generator().manual_seed(3)], size)
    off = []

    def look(x, t):
        if t is None:
            return x
        expected = backbone.add_noise(x0, noise, torch.full((1,), t)).to(x)
        off.append(float((x - expected).abs().max()) if off else 0.0)
        return expected if len(off) == 1 else x  # the first are noise alone

    kind = type(backbone.pipeline.scheduler)
    stock = kind.step

    @functools.wraps(stock)
    def perfect(self, prediction, t, x, **options):
        time = torch.as_tensor(t).reshape(1)
        if backbone.noise.prediction_type == "flow":
            time = self.sigmas[self.timesteps.tolist().index(float(t))].reshape(1)
        target = backbone._in_step(backbone.target(x0, noise, time)).to(x)
        return stock(self, target, t, x, **options)

    monkeypatch.setattr(kind, "step", perfect)
    backbone.draw(["a cat"], [3], sampling, on_latents=look)
    assert len(off) == 4
    assert max(off) < 1e-3


def test_a_word_is_what_it_stands_for(backbone):
    """Rows copied from words condition and draw exactly like them, in every encoder at once."""
    rows = {n: v.rows_of("red cat") for n, v in backbone.vocabularies.items()}
    with injected(backbone, [Concept(placeholder_token="<Toy>", rows=rows)]):
        word = backbone.encode_prompt(["a photo of a <Toy> on the moon"])
        drawn = backbone.draw(["a <Toy>"], [4], FEW)
    plain = backbone.encode_prompt(["a photo of a red cat on the moon"])
    assert torch.allclose(word.encoder_hidden_states, plain.encoder_hidden_states, atol=1e-5)
    if plain.pooled is not None:
        assert torch.allclose(word.pooled, plain.pooled, atol=1e-5)
    assert torch.allclose(drawn, backbone.draw(["a red cat"], [4], FEW), atol=1e-4)


def test_only_the_rows_change_and_every_encoder_learns(backbone, tmp_path):
    before = everything(backbone)
    tokenizers = {n: v.tokenizer for n, v in backbone.vocabularies.items()}
    result = invert(backbone, job(num_vectors=2, evaluation_steps=6))
    assert result.status == "finished"
    assert all(torch.equal(a, b) for a, b in zip(before, everything(backbone), strict=True))
    assert all(v.tokenizer is tokenizers[n] for n, v in backbone.vocabularies.items())
    for name, vocabulary in backbone.vocabularies.items():
        assert len(vocabulary.ids("cat")) == 1, name
        moved = result.concept.rows[name] - vocabulary.rows_of("cat")
        assert moved.abs().min(dim=1).values.max() > 0, name
    assert result.losses[-1][1] < result.losses[0][1]
    formats.save_concept(result.concept, tmp_path / "word.safetensors")
    assert formats.load_concept(tmp_path / "word.safetensors").sha256() == result.concept.sha256()


def test_a_subset_of_the_encoders_is_trained(backbone):
    first, *others = backbone.vocabularies
    result = invert(backbone, job(train_encoders=(first,), max_train_steps=2))
    assert not torch.equal(result.concept.rows[first], backbone.vocabularies[first].rows_of("cat"))
    for name in others:
        assert torch.equal(result.concept.rows[name], backbone.vocabularies[name].rows_of("cat"))
    with pytest.raises(JobError, match=r"must name text encoders of the model .* got clip_x"):
        invert(backbone, job(train_encoders=("clip_x",)))


def learns_the_same(folder, backbone, learned, load, options, tolerance):
    """Distances are in units of how far training moved the rows."""
    other = load(ModelConfig(model=str(folder), device="cpu", **options))
    if "dtype" not in options:
        # a VAE's sums are rounded by where its weights happen to lie, and by slices; training
        # enlarges that: looked at apart
        ours, theirs = (b.encode_image(job().pictures).mean for b in (backbone, other))
        assert (theirs - ours).norm() <= 1e-5 * ours.norm()
        other.autoencoder = backbone.autoencoder
    steps = 6 if "dtype" in options else 2  # what is rounded coarsely evens out over more
    saved = invert(other, job(max_train_steps=steps, **UNSCORED))
    for encoder, rows in learned[steps].items():
        moved = (rows - backbone.vocabularies[encoder].rows_of("cat")).norm()
        assert (saved.concept.rows[encoder] - rows).norm() <= tolerance * moved, encoder


def test_all_ways_to_save_memory_at_once_learn_the_same_rows(folders, name, backbone, learned):
    """Layers that visit are computed again, and the VAE waits elsewhere and reads in slices."""
    # all samples at once: sums in parts round otherwise, which the optimiser enlarges
    options = {"offload": "all", "memory": "lowest", "micro_batch_size": 64}
    learns_the_same(folders[name], backbone, learned, load_backbone, options, 1e-5)


def test_bf16_learns_nearly_the_same_rows(folders, name, known, backbone, learned):
    load = FAMILIES[known.family].imported().load
    learns_the_same(folders[name], backbone, learned, load, {"dtype": "bf16"}, 0.35)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in EVERY_KIND else pytest.mark.slow) for n in tiny.names()],
    indirect=True,
)
@pytest.mark.parametrize(
    "options", [{"gradient_checkpointing": True, "offload": "vae"}, {"offload": "text"}], ids=str
)
def test_single_ways_to_save_memory_learn_the_same_rows(
    folders, name, known, backbone, learned, options
):
    """Parts of what all at once is above: here of each kind of denoiser, elsewhere by choice."""
    # a way that is asked for in full need not be chosen by what each would take
    load = FAMILIES[known.family].imported().load
    learns_the_same(folders[name], backbone, learned, load, options, 1e-5)


def test_a_long_prompt_that_would_cut_the_word_off_is_refused_before_training(backbone):
    long = " ".join(["a photo of a cat"] * 240) + " <Cat-Toy>"
    pictures = job().pictures
    settings = job().config
    with pytest.raises(JobError, match=r"must fit .* tokens of .*, up to its word"):
        invert(backbone, Job(name="a", pictures=pictures, config=settings, captions=(long,) * 3))


# --- details of single families


@pytest.mark.parametrize("name", POOLED)
def test_the_pooled_output_is_taken_at_the_end_of_the_prompt(folders, loaded, name):
    """Stock tools pool at the new word, so that what follows it changes nothing."""
    eos = loaded[name]
    rows = {n: v.rows_of("red") + 0.1 for n, v in eos.vocabularies.items()}
    word = Concept(placeholder_token="<w>", rows=rows)
    prompts = ["a <w> in the cat", "a <w> in the dog"]
    legacy = load_backbone(ModelConfig(model=str(folders[name]), device="cpu", pool="legacy"))
    with injected(eos, [word]), injected(legacy, [word]):
        ours = eos.encode_prompt(prompts).pooled
        theirs = legacy.encode_prompt(prompts).pooled
        plain = [b.encode_prompt(["a cat"]).pooled for b in (eos, legacy)]
    assert not torch.allclose(ours[0], ours[1])
    assert torch.equal(theirs[0], theirs[1])
    assert torch.equal(*plain)
    learned = invert(legacy, job()).concept
    assert learned.provenance["pool"] == "legacy"
    with pytest.warns(UserWarning, match="pooled 'legacy', but is drawn with 'eos'; pass --pool"):
        generate(eos, ["a <Cat-Toy>"], [0], concepts=[learned], sampling=FEW)


def test_sdxl_is_told_the_true_crop(loaded):
    backbone, seen = loaded["sdxl"], []

    def look(module, args, kwargs):
        seen.append(kwargs["added_cond_kwargs"]["time_ids"].tolist())

    handle = backbone.denoiser.register_forward_pre_hook(look, with_kwargs=True)
    cond = backbone.encode_prompt(["a cat"] * 2)
    crops = torch.tensor([[480, 640, 0, 16], [64, 32, 8, 0]])
    with torch.no_grad():
        told = backbone.predict(latents(backbone), times(backbone, 2), cond, crops)
        untold = backbone.predict(latents(backbone), times(backbone, 2), cond)
    handle.remove()
    assert seen[0] == [[480, 640, 0, 16, 16, 16], [64, 32, 8, 0, 16, 16]]
    assert seen[1] == [[16, 16, 0, 0, 16, 16]] * 2
    assert not torch.equal(told, untold)


def test_flow_times_follow_the_schedulers_shift(loaded):
    u = torch.tensor([0.1, 0.5, 0.9])
    t = Normal(0.0, 1.0).icdf(u.double()).sigmoid()
    found = loaded["sd3"].sample_t(u, (16, 16)).double()
    assert torch.allclose(found, 3 * t / (1 + 2 * t), atol=1e-6)
    tokens = (32 // 2) * (48 // 2)
    mu = (1.15 - 0.5) / (4096 - 256) * (tokens - 256) + 0.5
    found = loaded["flux"].sample_t(u, (32, 48)).double()
    assert torch.allclose(found, np.exp(mu) / (np.exp(mu) + 1 / t - 1), atol=1e-6)


def test_flux_without_guidance_and_sd3_without_t5(tmp_path):
    schnell = load_backbone(ModelConfig(
        model=str(tiny.save(tiny.make("flux", guidance=False), tmp_path / "schnell")), device="cpu"
    ))  # fmt: skip
    assert schnell.sampling.num_inference_steps == 4
    assert invert(schnell, job()).status == "finished"
    small = load_backbone(ModelConfig(
        model=str(tiny.save(tiny.make("sd3", with_t5=False), tmp_path / "small")), device="cpu"
    ))  # fmt: skip
    assert list(small.vocabularies) == ["clip_l", "clip_g"]
    assert invert(small, job()).status == "finished"


@pytest.mark.parametrize("name", ["ldm", "flux", "flux2"])
def test_a_negative_prompt_is_refused_where_there_is_none(folders, name):
    backbone = load_backbone(ModelConfig(model=str(folders[name]), device="cpu"))
    with pytest.raises(ModelError, match=r"negative prompt .* because it takes none"):
        backbone.draw(["a cat"], [0], replace(FEW, negative_prompt="a dog"))


def test_a_vae_that_overflows_runs_in_fp32_from_then_on(folders):
    backbone = load_backbone(ModelConfig(model=str(folders["flux"]), device="cpu", dtype="bf16"))
    decode = backbone.autoencoder.vae.decode

    def overflowing(z, *args, **kwargs):
        out = decode(z, *args, **kwargs)
        if z.dtype != torch.float32:
            out.sample.mul_(float("inf"))
        return out

    backbone.autoencoder.vae.decode = overflowing
    with pytest.warns(
        UserWarning, match="gave NaN or infinity in torch.bfloat16; it will run in fp32"
    ):
        drawn = backbone.draw(["a cat"], [0], FEW)
    assert torch.isfinite(drawn).all()
    assert backbone.autoencoder.vae.dtype == torch.float32


def test_the_vae_leaves_the_device_while_it_has_nothing_to_do(folders, monkeypatch):
    backbone = load_backbone(ModelConfig(model=str(folders["sdxl"]), device="cpu", offload="vae"))
    vae = backbone.autoencoder.vae
    moves = []
    monkeypatch.setattr(type(vae), "device", property(lambda _: torch.device(moves[-1])))
    monkeypatch.setattr(vae, "to", lambda place: moves.append(str(place)))
    # it waits elsewhere than the model is, here by its word alone
    moves.append("meta")
    backbone.encode_image(torch.zeros(1, 3, 64, 64))
    assert moves == ["meta", "cpu", "cpu"]  # to the model's device, here the same, and away
    backbone.encode_image(torch.zeros(1, 3, 64, 64))
    assert moves == ["meta", "cpu", "cpu"]  # already there, as within its tuning: it stays
    moves.append("meta")
    with pytest.raises(RuntimeError):
        backbone.encode_image(torch.zeros(1, 3, 0, 0))
    assert moves[3:] == ["meta", "cpu", "cpu"]  # it leaves when something goes wrong there, too


if __name__ == "__main__":  # prints what expected.json holds
    import tempfile

    found = {}
    for name in tiny.names():
        with tempfile.TemporaryDirectory() as folder:
            model = load_backbone(
                ModelConfig(model=str(tiny.save(tiny.make(name), Path(folder))), device="cpu")
            )
        with torch.no_grad():
            cond = model.encode_prompt(["a photo of a cat on the moon", "a red dog"])
            out = model.predict(latents(model), times(model, 2), cond)
        found[name] = [float(out.mean()), float(out.std()), *out[0, 0, 0, :4].tolist()]
    STORED.write_text(json.dumps(found, indent=1) + "\n")
