"""The contract of models.contract on an epsilon and a v-prediction pipeline, against float64."""

from __future__ import annotations

import gc
import json
import platform
import re
import shutil
import struct
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel
from diffusers.models import model_loading_utils
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModel

import single_file
import tiny
from oneword._devices import computes, pick_device, pick_dtype
from oneword.concepts.concept import Concept
from oneword.config.drawing import SamplingConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models.contract import Backbone, Moments
from oneword.models.loading import load_backbone
from oneword.models.speed import streaming
from oneword.models.speed.streaming import returning_memory, streamed
from oneword.vocabulary.inject import injected


@pytest.fixture(params=["epsilon", "v_prediction"])
def backbone(request, tiny_sd, tiny_sd_v):
    return {"epsilon": tiny_sd, "v_prediction": tiny_sd_v}[request.param]


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def alphas_cumprod():
    """The scaled-linear schedule of Stable Diffusion in float64, from its definition."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    return np.cumprod(1 - betas)


def test_it_fulfils_the_contract(backbone):
    assert isinstance(backbone, Backbone)
    assert backbone.resolution == 32
    assert list(backbone.vocabularies) == ["clip"]
    gaps = [f for f in ("guidance_scale", "num_inference_steps", "height", "width")
            if getattr(backbone.sampling, f) is None]  # fmt: skip
    assert not gaps
    frozen = (backbone.pipeline.unet, backbone.pipeline.vae, backbone.pipeline.text_encoder)
    assert not any(p.requires_grad for part in frozen for p in part.parameters())


def test_moments_are_the_vaes_scaled_posterior(backbone, pixels):
    moments = backbone.encode_image(pixels)
    vae = backbone.pipeline.vae
    posterior = vae.encode(pixels).latent_dist
    assert torch.allclose(moments.mean, posterior.mean * vae.config.scaling_factor)
    assert torch.allclose(moments.std, posterior.std * vae.config.scaling_factor)
    noise = normal(*moments.mean.shape)
    assert torch.equal(moments.sample(noise), moments.mean + moments.std * noise)
    assert isinstance(moments[1:], Moments)


def test_decoding_undoes_the_scale(backbone):
    latents = normal(2, 4, 16, 16)
    vae = backbone.pipeline.vae
    expected = vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)
    assert torch.allclose(backbone.decode_latents(latents), expected)


def test_noise_and_targets_are_the_closed_form(backbone):
    x0, noise = normal(4, 4, 16, 16), normal(4, 4, 16, 16, seed=1)
    t = torch.tensor([0, 17, 500, 999])
    a = alphas_cumprod()[t.numpy()][:, None, None, None]
    x64, n64 = x0.double().numpy(), noise.double().numpy()
    expected = np.sqrt(a) * x64 + np.sqrt(1 - a) * n64
    assert np.allclose(backbone.add_noise(x0, noise, t).numpy(), expected, atol=1e-5)
    target = backbone.target(x0, noise, t).double().numpy()
    if backbone.noise.prediction_type == "epsilon":
        assert np.array_equal(target, n64)
    else:
        assert np.allclose(target, np.sqrt(a) * n64 - np.sqrt(1 - a) * x64, atol=1e-5)


def test_timesteps_are_uniform_over_the_schedule(backbone):
    u = torch.tensor([0.0, 0.4999, 0.5, 0.9999999])
    assert backbone.sample_t(u, (16, 16)).tolist() == [0, 499, 500, 999]


def test_prediction_is_the_denoisers_and_rows_of_a_batch_do_not_mix(backbone):
    x, t = normal(3, 4, 16, 16), torch.tensor([5, 400, 900])
    cond = backbone.encode_prompt(["a cat", "a red dog", "a house on the moon"])
    with torch.no_grad():
        whole = backbone.predict(x, t, cond)
        alone = torch.cat([backbone.predict(x[i : i + 1], t[i : i + 1], cond[i : i + 1])
                           for i in range(3)])  # fmt: skip
        stock = backbone.pipeline.unet(x, t, cond.encoder_hidden_states).sample
    assert torch.equal(whole, stock)
    assert torch.allclose(whole, alone, atol=1e-5)


def test_conditioning_is_the_pipelines_own(backbone):
    states = backbone.encode_prompt(["a photo of a cat"]).encoder_hidden_states
    stock, _ = backbone.pipeline.encode_prompt("a photo of a cat", "cpu", 1, False)
    assert states.shape == (1, 77, 32)
    assert torch.equal(states, stock)


def test_drawing_is_deterministic_and_does_not_depend_on_the_batch(backbone):
    prompts, seeds = ["a cat", "a dog", "a cat"], [1, 2, 3]
    few = SamplingConfig(num_inference_steps=3)
    reports = []
    whole = backbone.draw(prompts, seeds, few, on_step=lambda *step: reports.append(step))
    alone = backbone.draw(prompts[1:2], seeds[1:2], few)
    assert torch.equal(whole, backbone.draw(prompts, seeds, few))
    assert torch.allclose(whole[1:2], alone, atol=1e-4)
    assert not torch.allclose(whole[0], whole[2], atol=1e-2)
    assert reports == [(1, 3), (2, 3), (3, 3)]
    assert whole.min() >= -1
    assert whole.max() <= 1


def test_guidance_and_the_negative_prompt_count(backbone):
    def draw(**wishes):
        return backbone.draw(["a cat"], [0], SamplingConfig(num_inference_steps=2, **wishes))

    plain = draw(guidance_scale=1.0)
    assert not torch.equal(plain, draw(guidance_scale=9.0))
    negative = draw(guidance_scale=9.0, negative_prompt="a dog")
    assert not torch.equal(draw(guidance_scale=9.0), negative)
    assert draw(height=16, width=64).shape == (1, 3, 16, 64)


def test_a_word_draws_like_the_words_it_stands_for(backbone):
    rows = backbone.vocabularies["clip"].rows_of("red cat")
    few = SamplingConfig(num_inference_steps=2)
    with injected(backbone, [Concept(placeholder_token="S*", rows={"clip": rows})]):
        word = backbone.draw(["a S*"], [4], few)
    assert torch.equal(word, backbone.draw(["a red cat"], [4], few))


# --- loading


def loaded(folder, **options):
    return load_backbone(ModelConfig(model=str(folder), device="cpu", **options))


def test_clip_skip_takes_an_earlier_layer(tiny_folder, tiny_sd):
    skipped = loaded(tiny_folder, clip_skip=1).encode_prompt(["a cat"]).encoder_hidden_states
    stock, _ = tiny_sd.pipeline.encode_prompt("a cat", "cpu", 1, False, clip_skip=1)
    assert torch.equal(skipped, stock)
    assert not torch.equal(skipped, tiny_sd.encode_prompt(["a cat"]).encoder_hidden_states)


def test_a_single_file_checkpoint_is_the_same_model(tiny_folder, tiny_sd, tmp_path):
    path = single_file.save(tiny_sd.pipeline, tmp_path / "model.safetensors")
    found = load_backbone(
        ModelConfig(model=str(path), single_file_config=str(tiny_folder), device="cpu")
    )
    x, t = normal(2, 4, 16, 16), torch.tensor([5, 900])
    with torch.no_grad():
        predictions = [
            b.predict(x, t, b.encode_prompt(["a cat", "a dog"])) for b in (tiny_sd, found)
        ]
    assert torch.equal(*predictions)
    decoded = [b.decode_latents(x) for b in (tiny_sd, found)]
    assert torch.allclose(*decoded, atol=1e-6)


def test_another_vae(tiny_folder, tmp_path, tiny_sd):
    vae = AutoencoderKL.from_config(tiny_sd.pipeline.vae.config)
    vae.save_pretrained(tmp_path / "vae")
    found = loaded(tiny_folder, vae=str(tmp_path / "vae")).pipeline.vae
    assert torch.equal(found.decoder.conv_in.weight, vae.decoder.conv_in.weight)


def test_compute_types(tiny_folder):
    backbone = loaded(tiny_folder, dtype="bf16")
    assert backbone.dtype == torch.bfloat16
    cond = backbone.encode_prompt(["a cat"])
    prediction = backbone.predict(normal(1, 4, 16, 16), torch.tensor([9]), cond)
    assert prediction.dtype == torch.float32
    assert pick_dtype("auto", torch.device("cuda")) == torch.bfloat16


def test_on_a_cpu_large_models_alone_are_narrow_of_themselves(tiny_folder, tmp_path, monkeypatch):
    """Where its processor has instructions for it; this one is not asked."""
    cpu = torch.device("cpu")
    monkeypatch.setattr("oneword._devices.is_fast_in_bf16", lambda _: True)
    file, folder = tmp_path / "one.safetensors", tmp_path / "unet"
    folder.mkdir()
    for path, size in ((file, 999_999_999), (folder / "a.safetensors", 1_000_000_000)):
        with path.open("wb") as sparse:
            sparse.truncate(size)
    assert pick_dtype("auto", cpu, str(tiny_folder)) == torch.float32
    assert pick_dtype("auto", cpu, str(file)) == torch.float32
    assert pick_dtype("auto", cpu, str(tmp_path)) == torch.bfloat16
    assert pick_dtype("auto", cpu, "stabilityai/sd") == torch.bfloat16
    assert pick_dtype("fp32", cpu, "stabilityai/sd") == torch.float32
    monkeypatch.setattr("oneword._devices.is_fast_in_bf16", lambda _: False)
    assert pick_dtype("auto", cpu, "stabilityai/sd") == torch.float32


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_types_that_the_processor_imitates_are_named(name):
    cpu, dtype = torch.device("cpu"), {"bf16": torch.bfloat16, "fp16": torch.float16}[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pick_dtype(name, cpu)
        pick_dtype("fp32", cpu)
        pick_dtype(name, torch.device("cuda"))
    said = [str(w.message) for w in caught]
    assert len(said) == (0 if computes(dtype, cpu) else 1)
    assert all(f"no instructions for {name}" in message for message in said)


def test_weights_read_one_by_one_are_those_of_the_file(tmp_path):
    """Names of old autoencoders, which diffusers changes while it loads, among them."""
    vae = AutoencoderKL(block_out_channels=(32,), norm_num_groups=8)
    vae.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, value in load_file(file).items():
        for ours, theirs in new.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        tensors[name] = value
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, file)
    with streamed():
        found = AutoencoderKL.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    for name, value in vae.state_dict().items():
        assert torch.equal(found.state_dict()[name], value.to(torch.bfloat16))


def test_a_streamed_file_answers_as_a_dictionary_of_tensors_does(tmp_path):
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    save_file(tensors, tmp_path / "x.safetensors")
    with streamed():
        found = model_loading_utils.load_state_dict(tmp_path / "x.safetensors")
    assert all(torch.equal(x, y) for x, y in zip(found.values(), tensors.values(), strict=True))
    assert torch.equal(found.get("b"), tensors["b"])
    assert found.get("c") is None
    found["c"] = found.pop("a")
    assert torch.equal(dict(found.items())["c"], tensors["a"])
    assert found.pop("a", None) is None
    with pytest.raises(KeyError):
        found.pop("a")
    assert type(model_loading_utils.load_state_dict(tmp_path / "x.safetensors")) is dict


def open_files():
    return psutil.Process().num_fds() if hasattr(psutil.Process, "num_fds") else 0


def test_a_streamed_file_of_any_type_and_shape_is_read_once(tmp_path, monkeypatch):
    """Its header, that is, which is long where there are many tensors."""
    g = torch.Generator().manual_seed(0)
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
             torch.uint8)  # fmt: skip
    tensors = {f"{t}": (100 * torch.rand(3, 5, 7, generator=g)).to(t) for t in types}
    tensors |= {"large": torch.rand(300, 400, generator=g), "scalar": torch.tensor(2.5)}
    tensors |= {f"many.{i}": torch.full((9,), float(i)) for i in range(200)}
    save_file(tensors, tmp_path / "x.safetensors")
    opened, before = [], open_files()
    real = streaming.safe_open
    monkeypatch.setattr(streaming, "safe_open", lambda *a, **k: opened.append(a) or real(*a, **k))
    with streamed():
        found = dict(model_loading_utils.load_state_dict(tmp_path / "x.safetensors").items())
    assert len(opened) == 1
    assert open_files() == before  # a process may have a thousand, and a model more tensors
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    found["large"].zero_()  # one's own: the file stays as it is
    assert torch.equal(load_file(tmp_path / "x.safetensors")["large"], tensors["large"])


def test_what_cannot_be_mapped_on_its_own_is_read_by_safetensors(tmp_path):
    tensors = {"none": torch.zeros(0, 3), "flags": torch.tensor([True, False]),
               "small": torch.tensor([0.5, 2.0]).to(torch.float8_e4m3fn)}  # fmt: skip
    save_file(tensors, tmp_path / "x.safetensors")
    # a header of any length, so that no tensor begins where its type wants it
    header = {"b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    text += b" " * (3 - len(text) % 8 + 8)
    data = struct.pack("<Q", len(text)) + text + struct.pack("<ff", 1.5, -2.0)
    (tmp_path / "y.safetensors").write_bytes(data)
    with streamed():
        found = dict(model_loading_utils.load_state_dict(tmp_path / "x.safetensors").items())
        odd = model_loading_utils.load_state_dict(tmp_path / "y.safetensors")["b"]
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert torch.equal(found[name].float(), value.float())
    assert odd.tolist() == [1.5, -2.0]


def memory():
    """The process's memory, and its peak, bytes."""
    status = Path("/proc/self/status").read_text()
    return {k: int(re.search(rf"{k}:\s*(\d+)", status)[1]) * 1024 for k in ("VmHWM", "VmRSS")}


asks_linux = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="asks the Linux kernel"
)


def wide_unet():
    return UNet2DModel(
        sample_size=8,
        block_out_channels=(384, 384),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )


def wide_clip():
    return CLIPTextModel(CLIPTextConfig(vocab_size=1000, hidden_size=768, num_hidden_layers=7))


@asks_linux
@pytest.mark.parametrize("make", [wide_unet, wide_clip])
def test_weights_of_another_type_never_lie_in_memory_whole(tmp_path, make):
    """A file of some 155 MB in fp32, loaded as bf16: half stays, and less than all is beside it."""
    wide = make()
    kind, size = type(wide), sum(p.numel() for p in wide.parameters()) * 4
    wide.save_pretrained(tmp_path)
    del wide
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = memory()["VmRSS"]
    with streamed():
        kind.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert size > 150e6
    assert memory()["VmHWM"] - before < size


@asks_linux
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_what_a_cast_has_freed_goes_back_to_the_system():
    """As much is left as the narrow copies take: no holes where the wide ones were."""
    torch.empty(4_000_000).fill_(1.0)  # from here on glibc would keep what is freed
    gc.collect()
    with returning_memory():
        before = memory()["VmRSS"]
        kept = [torch.ones(800_000).to(torch.bfloat16) for _ in range(60)]
        grown = memory()["VmRSS"] - before
    assert grown < 1.2 * sum(2 * t.numel() for t in kept)


def test_a_weight_variant(tiny_sd, tmp_path):
    tiny_sd.pipeline.save_pretrained(tmp_path, variant="fp16")
    assert loaded(tmp_path, variant="fp16").resolution == 32


def test_the_safety_checker_is_kept_for_drawing_and_can_be_turned_off(tmp_path):
    pipeline = tiny.make("stable_diffusion")
    config = CLIPConfig(
        text_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                     "intermediate_size": 16},
        vision_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                       "intermediate_size": 16, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )  # fmt: skip
    checker = StableDiffusionSafetyChecker(config)
    with torch.no_grad():
        checker.concept_embeds_weights.fill_(-9.0)  # everything is flagged
    pipeline.register_modules(
        safety_checker=checker,
        feature_extractor=CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
    )
    pipeline.register_to_config(requires_safety_checker=True)
    tiny.save(pipeline, tmp_path / "checked")
    few = SamplingConfig(num_inference_steps=1)
    with pytest.warns(UserWarning, match=r"safety checker blackened picture\(s\) \[0\]"):
        black = loaded(tmp_path / "checked").draw(["a cat"], [0], few)
    assert black.eq(-1).all()
    free = loaded(tmp_path / "checked", safety_checker=False).draw(["a cat"], [0], few)
    assert not free.eq(-1).all()


def broken(tmp_path, tiny_folder, change):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_folder, folder)
    change(folder)
    return folder


def rewrite(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "model_index.json").unlink(), "with a model_index.json"),
        (lambda f: (f / "model_index.json").write_text("{"), "must name its pipeline class"),
        (
            lambda f: rewrite(f / "model_index.json", _class_name="KandinskyPipeline"),
            "supported family .* got KandinskyPipeline",
        ),
        (
            lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").unlink(),
            "must be a whole StableDiffusionPipeline",
        ),
        (lambda f: shutil.rmtree(f / "tokenizer"), "got no tokenizer in"),
        (lambda f: (f / "tokenizer" / "tokenizer.json").unlink(), "must know the|must be a whole"),
        (
            lambda f: rewrite(f / "scheduler" / "scheduler_config.json", prediction_type="sample"),
            "must predict epsilon or v_prediction, got 'sample'",
        ),
        (
            lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut"),
            "must be a whole StableDiffusionPipeline",
        ),
    ],
)
def test_a_folder_that_is_no_whole_pipeline_is_refused(tmp_path, tiny_folder, change, message):
    with pytest.raises(ModelError, match=message):
        loaded(broken(tmp_path, tiny_folder, change))


def test_an_inpainting_unet_is_refused(tmp_path, tiny_folder):
    def widen(folder):
        path = folder / "unet" / "diffusion_pytorch_model.safetensors"
        state = load_file(path)
        state["conv_in.weight"] = torch.cat([state["conv_in.weight"]] * 2, dim=1).contiguous()
        save_file(state, path)
        rewrite(folder / "unet" / "config.json", in_channels=8)

    with pytest.raises(ModelError, match="inpainting models are not supported"):
        loaded(broken(tmp_path, tiny_folder, widen))


def test_paths_that_hold_no_model_are_refused(tmp_path):
    with pytest.raises(ModelError, match="which does not exist"):
        loaded(tmp_path / "none")
    (tmp_path / "model.txt").write_text("hi")
    with pytest.raises(ModelError, match="checkpoint"):
        loaded(tmp_path / "model.txt")
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="must be a whole"):
        loaded(tmp_path / "model.safetensors")


def test_a_device_that_is_not_there_is_refused():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ModelError, match="must exist on this machine, got 'warp'"):
        pick_device("warp")
