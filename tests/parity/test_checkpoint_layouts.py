"""Published checkpoints by their names and shapes, on the meta device: all map, none is left.

The names and counts are those of the public files; no weights are needed to see that they fit.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, LDMTextToImagePipeline, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

import single_file
import tiny
from oneword.errors import ModelError
from oneword.models.loading import _family_of_file
from oneword.vocabulary.vocabulary import Vocabulary


def meta(names):
    return {name: torch.empty(shape, device="meta") for name, shape in names.items()}


def unet(width, linear=False):
    """UNet of LDM-1.4B (width 1280), SD 1.x (768) and 2.x (1024)."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            cross_attention_dim=width,
            attention_head_dim=(5, 10, 20, 20) if linear else 8,
            use_linear_projection=linear,
        )


def vae():
    with torch.device("meta"):
        return AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        )


def ldm_bert_names():
    """Of CompVis/ldm-text2im-large-256, folder bert."""
    names = {
        "model.embed_tokens.weight": (30522, 1280),
        "model.embed_positions.weight": (77, 1280),
        "model.layer_norm.weight": (1280,),
        "model.layer_norm.bias": (1280,),
        "to_logits.weight": (30522, 1280),
        "to_logits.bias": (30522,),
    }
    for i in range(32):
        layer = f"model.layers.{i}."
        for projection in ("q_proj", "k_proj", "v_proj"):
            names[f"{layer}self_attn.{projection}.weight"] = (512, 1280)
        names |= {
            f"{layer}self_attn.out_proj.weight": (1280, 512),
            f"{layer}self_attn.out_proj.bias": (1280,),
            f"{layer}self_attn_layer_norm.weight": (1280,),
            f"{layer}self_attn_layer_norm.bias": (1280,),
            f"{layer}fc1.weight": (5120, 1280),
            f"{layer}fc1.bias": (5120,),
            f"{layer}fc2.weight": (1280, 5120),
            f"{layer}fc2.bias": (1280,),
            f"{layer}final_layer_norm.weight": (1280,),
            f"{layer}final_layer_norm.bias": (1280,),
        }
    return names


def test_the_papers_model_is_the_one_that_is_published():
    with torch.device("meta"):
        bert = LDMBertModel(LDMBertConfig())
    bert.load_state_dict(meta(ldm_bert_names()), strict=True, assign=True)
    pipeline = tiny.make("ldm")
    pipeline.bert = bert
    vocabulary = Vocabulary("bert", pipeline, "tokenizer", bert)
    assert vocabulary.dim == 1280
    assert [table.weight.shape for table in vocabulary.tables()] == [(30522, 1280)]
    assert isinstance(pipeline, LDMTextToImagePipeline)
    found = unet(1280).state_dict()
    assert len(found) == 686
    attention = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    assert found[attention].shape == (1280, 1280)
    assert len(vae().state_dict()) == 248


KNOWN = {  # of v1-5-pruned-emaonly and v2-1_768, with their shapes
    768: {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.input_blocks.1.1.proj_in.weight": (320, 320, 1, 1),
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
        "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.bias": (2560,),
        "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.output_blocks.5.2.conv.bias": (1280,),
        "model.diffusion_model.input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "model.diffusion_model.time_embed.2.weight": (1280, 1280),
        "model.diffusion_model.out.2.weight": (4, 320, 3, 3),
        "first_stage_model.encoder.down.0.block.0.conv1.weight": (128, 128, 3, 3),
        "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        "first_stage_model.decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
        "first_stage_model.encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
    },
    1024: {
        "model.diffusion_model.input_blocks.1.1.proj_in.weight": (320, 320),
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 1024),
    },
}


@pytest.mark.parametrize("width", KNOWN)
def test_single_files_of_stable_diffusion_map_without_rest(width):
    """Through the converter that ``from_single_file`` uses; nothing is left over."""
    model, autoencoder = unet(width, linear=width == 1024), vae()
    tensors = single_file.names(model, autoencoder)
    for name, shape in KNOWN[width].items():
        assert tuple(tensors[name].shape) == shape, name
    assert len(tensors) == 686 + 248
    converted = single_file_utils.convert_ldm_unet_checkpoint(
        dict(tensors), {**model.config, "num_class_embeds": None}
    )
    model.load_state_dict(converted, strict=True, assign=True)
    converted = single_file_utils.convert_ldm_vae_checkpoint(dict(tensors), autoencoder.config)
    autoencoder.load_state_dict(converted, strict=True, assign=True)


def test_the_text_encoder_of_single_files_maps_without_rest():
    with torch.device("meta"):
        encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                num_attention_heads=12, projection_dim=768,
            )
        )  # fmt: skip
    prefix = "cond_stage_model.transformer.text_model."
    published = {prefix + name: value for name, value in encoder.state_dict().items()}
    assert len(published) == 196
    assert published[f"{prefix}embeddings.token_embedding.weight"].shape == (49408, 768)
    assert published[f"{prefix}encoder.layers.11.mlp.fc1.weight"].shape == (3072, 768)
    converted = single_file_utils.convert_ldm_clip_checkpoint(dict(published))
    found = {name.removeprefix("text_model."): value for name, value in converted.items()}
    encoder.load_state_dict(found, strict=True, assign=True)


@pytest.mark.parametrize(
    ("names", "family"),
    [
        ({"model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight":
          (320, 768)}, "stable_diffusion"),
        ({"model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight":
          (320, 1024)}, "stable_diffusion"),
        ({"conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,)},
         "sdxl"),
        ({"model.diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.bias": (9216,),
          "model.diffusion_model.pos_embed": (1, 36864, 1)}, "sd3"),
        ({"double_blocks.0.img_attn.norm.key_norm.scale": (128,)}, "flux"),
        ({"double_blocks.0.img_attn.norm.key_norm.scale": (128,),
          "guidance_in.in_layer.bias": (8,), "img_in.weight": (1, 64)}, "flux"),
    ],
)  # fmt: skip
def test_the_family_of_a_single_file_is_seen_in_its_tensors(tmp_path, names, family):
    save_file({n: torch.zeros(shape) for n, shape in names.items()}, tmp_path / "m.safetensors")
    assert _family_of_file(tmp_path / "m.safetensors").name == family


def test_a_single_file_of_another_family_is_named(tmp_path):
    fill = {"double_blocks.0.img_attn.norm.key_norm.scale": torch.zeros(128)}
    fill |= {"guidance_in.in_layer.bias": torch.zeros(8), "img_in.weight": torch.zeros(1, 384)}
    save_file(fill, tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match="supported family, got flux-fill"):
        _family_of_file(tmp_path / "m.safetensors")
