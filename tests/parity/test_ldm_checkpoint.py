"""The paper's model from a file with the published names: every tensor finds its place."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, LDMTextToImagePipeline, UNet2DConditionModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)
from safetensors.torch import save_file

import single_file
import tiny
from oneword.config.drawing import SamplingConfig
from oneword.config.inversion import InversionConfig
from oneword.config.model import ModelConfig
from oneword.errors import ModelError
from oneword.models import ldm_checkpoint
from oneword.models.loading import load_backbone
from oneword.training.job import Job
from oneword.training.loop import invert


LEFT_BEHIND = {
    "betas": (1000,), "alphas_cumprod": (1000,), "alphas_cumprod_prev": (1000,),
    "sqrt_one_minus_alphas_cumprod": (1000,), "log_one_minus_alphas_cumprod": (1000,),
    "sqrt_recipm1_alphas_cumprod": (1000,), "posterior_mean_coef1": (1000,),
    "posterior_log_variance_clipped": (1000,), "lvlb_weights": (1000,), "logvar": (1000,),
    "model_ema.decay": (), "model_ema.num_updates": (),
}  # fmt: skip
"""Some of what the authors' training leaves in its file beside the weights."""


def schedule(name, shape):
    """The published noise schedule; of other names just zeros."""
    if name != "alphas_cumprod":
        return torch.zeros(shape)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return torch.cumprod(1 - betas, 0).float()


def networks(*, levels, width, text, layers, vae, words, ffn, head):
    """UNet, autoencoder and BERT with the published settings, in a size of one's own."""
    attends = [min(i, 3) < 3 for i in range(levels)]
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=2, attention_head_dim=8,
        cross_attention_dim=text, block_out_channels=width,
        down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
    )  # fmt: skip
    autoencoder = AutoencoderKL(
        block_out_channels=vae, latent_channels=4, layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * len(vae),
        up_block_types=("UpDecoderBlock2D",) * len(vae),
    )  # fmt: skip
    bert = LDMBertModel(LDMBertConfig(
        vocab_size=words, d_model=text, encoder_layers=layers, encoder_ffn_dim=ffn, head_dim=head,
    ))  # fmt: skip
    return unet, autoencoder, bert


@pytest.fixture(scope="module")
def small():
    tokens = tiny.tokenizers.bert_tokenizer()
    with tiny.parts.seeded(0):
        made = networks(
            levels=2,
            width=(32, 64),
            text=32,
            layers=2,
            vae=(32,) * 4,
            words=len(tokens),
            ffn=64,
            head=4,
        )
    return [part.eval() for part in made], tokens


@pytest.fixture
def checkpoint(small, tmp_path):
    """A file under the published names, with BERT's words beside it."""
    (unet, vae, bert), tokens = small
    tensors = single_file.names(unet, vae) | single_file.bert_names(bert)
    tensors |= {name: schedule(name, shape) for name, shape in LEFT_BEHIND.items()}
    torch.save({"state_dict": tensors}, tmp_path / "model.ckpt")
    words = sorted(tokens.get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words))
    return tmp_path / "model.ckpt", tensors


def test_the_published_file_maps_without_rest():
    """At the published size, as shapes: the names below are those of the authors' own code."""
    with torch.device("meta"):
        unet, vae, bert = networks(
            levels=4, width=(320, 640, 1280, 1280), text=1280, layers=32,
            vae=(128, 256, 512, 512), words=30522, ffn=5120, head=64,
        )  # fmt: skip
    tensors = single_file.names(unet, vae) | single_file.bert_names(bert)
    unet_1 = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0"
    known = {
        "model.diffusion_model.time_embed.0.weight": (1280, 320),
        f"{unet_1}.attn2.to_k.weight": (320, 1280),
        "model.diffusion_model.input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "model.diffusion_model.middle_block.1.proj_in.weight": (1280, 1280, 1, 1),
        "model.diffusion_model.output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.out.2.bias": (4,),
        "first_stage_model.encoder.down.0.block.0.norm1.weight": (128,),
        "first_stage_model.encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
        "cond_stage_model.transformer.token_emb.weight": (30522, 1280),
        "cond_stage_model.transformer.pos_emb.emb.weight": (77, 1280),
        "cond_stage_model.transformer.attn_layers.layers.0.0.weight": (1280,),
        "cond_stage_model.transformer.attn_layers.layers.62.1.to_q.weight": (512, 1280),
        "cond_stage_model.transformer.attn_layers.layers.62.1.to_out.bias": (1280,),
        "cond_stage_model.transformer.attn_layers.layers.63.1.net.0.0.weight": (5120, 1280),
        "cond_stage_model.transformer.attn_layers.layers.63.1.net.2.weight": (1280, 5120),
        "cond_stage_model.transformer.norm.bias": (1280,),
        "cond_stage_model.transformer.to_logits.weight": (30522, 1280),
    }  # fmt: skip
    assert {name: tuple(tensors[name].shape) for name in known} == known
    found = ldm_checkpoint.parts(tensors)
    for part, own in zip(found, (unet, vae, bert), strict=True):
        shapes = {name: value.shape for name, value in own.state_dict().items()}
        assert {name: value.shape for name, value in part.state_dict().items()} == shapes
    unet, vae, bert = found
    assert unet.config.attention_head_dim == 8
    assert vae.config.scaling_factor == 0.18215
    assert (unet.config.sample_size, vae.config.sample_size) == (32, 256)
    assert (bert.config.encoder_attention_heads, bert.config.head_dim) == (8, 64)
    assert sum(p.numel() for part in found for p in part.parameters()) == pytest.approx(
        1.54e9, rel=0.01
    )


def test_every_tensor_of_a_file_is_used_and_the_model_is_the_same(checkpoint, small, tmp_path):
    path, _ = checkpoint
    backbone = load_backbone(ModelConfig(model=str(path), device="cpu"))
    assert backbone.family == "ldm"
    (unet, vae, bert), tokens = small
    for own, part in ((unet, backbone.pipeline.unet), (vae, backbone.pipeline.vqvae),
                      (bert, backbone.pipeline.bert)):  # fmt: skip
        state = part.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in own.state_dict().items())
    folder = tiny.save(
        LDMTextToImagePipeline(
            vqvae=vae, unet=unet, bert=bert, tokenizer=tokens, scheduler=tiny.parts.scheduler()
        ),
        tmp_path / "folder",
    )
    same = load_backbone(ModelConfig(model=str(folder), device="cpu"))
    few = SamplingConfig(num_inference_steps=2, height=64, width=64)
    drawn = [b.draw(["a photo of a cat"], [3], few) for b in (backbone, same)]
    assert torch.allclose(*drawn, atol=1e-5)
    scheduler = backbone.pipeline.scheduler
    scheduler.set_timesteps(50)
    assert scheduler.timesteps.tolist() == list(range(981, 0, -20))
    assert float(scheduler.final_alpha_cumprod) == pytest.approx(0.99915, abs=5e-6)


def test_a_file_that_names_a_class_of_lightning_is_read(checkpoint, small, tmp_path):
    """As the first files of Stable Diffusion and of taming's autoencoders do."""
    path, tensors = checkpoint
    single_file.save_as_lightning({"state_dict": tensors}, path)
    unet = load_backbone(ModelConfig(model=str(path), device="cpu")).pipeline.unet
    (own, _, _), _ = small
    assert torch.equal(unet.conv_in.weight, own.conv_in.weight)


def test_a_word_is_learned_on_it(checkpoint):
    path, _ = checkpoint
    backbone = load_backbone(ModelConfig(model=str(path), device="cpu"))
    config = InversionConfig(
        preset="paper", initializer_token="cat", max_train_steps=2, train_batch_size=1,
        evaluation_steps=1, num_evaluation_samples=1,
    )  # fmt: skip
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    result = invert(backbone, Job(name="a", pictures=pictures, config=config))
    assert {name: rows.shape for name, rows in result.concept.rows.items()} == {"bert": (1, 32)}


def altered(path, tensors, **changes):
    """The same file with some tensors left out or put in."""
    found = {name: value for name, value in (tensors | changes).items() if value is not None}
    save_file({n: v.contiguous() for n, v in found.items()}, path.with_suffix(".safetensors"))
    return ModelConfig(model=str(path.with_suffix(".safetensors")), device="cpu")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cond_stage_model.transformer.norm.bias", None, r"Missing key.*model\.layer_norm\.bias"),
        ("cond_stage_model.transformer.mem.weight", torch.zeros(1), "Unexpected key.*mem"),
        ("model.diffusion_model.out.2.bias", None, "Missing key.*conv_out"),
        ("model.diffusion_model.out.2.weight", None, r"lacks the tensor .*out\.2\.weight"),
        (
            "first_stage_model.quant_conv.weight",
            torch.zeros(8, 9, 1, 1),
            "size mismatch.*quant_con",
        ),
        ("control_model.a", torch.zeros(1), "tensors of something else, such as control_model"),
        ("alphas_cumprod", torch.ones(1000), "its noise schedule .* is not that of txt2img-1p4B"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(checkpoint, name, value, message):
    path, tensors = checkpoint
    with pytest.raises(ModelError, match=message):
        load_backbone(altered(path, tensors, **{name: value}))


@pytest.mark.usefixtures("without_hub")
def test_the_words_are_berts_own(checkpoint, tmp_path):
    """Beside the file, in a folder that is named, or else on the hub, which is not there."""
    path, _ = checkpoint
    backbone = load_backbone(ModelConfig(model=str(path), device="cpu"))
    ids = backbone.pipeline.tokenizer("A Cat.").input_ids
    words = backbone.pipeline.tokenizer.convert_ids_to_tokens(ids)
    assert words == ["[CLS]", "a", "cat", ".", "[SEP]"]  # without case, stops apart
    assert backbone.pipeline.tokenizer.model_max_length == 77
    (tmp_path / "vocab.txt").rename(tmp_path / "words.txt")
    with pytest.raises(
        ModelError, match=r"put the vocab\.txt of google-bert/bert-base-uncased next"
    ):
        load_backbone(ModelConfig(model=str(path), device="cpu"))
    folder = tmp_path / "pipeline"
    tiny.tokenizers.bert_tokenizer().save_pretrained(folder / "tokenizer")
    named = ModelConfig(model=str(path), device="cpu", single_file_config=str(folder))
    assert load_backbone(named).pipeline.tokenizer("A Cat.").input_ids == ids
