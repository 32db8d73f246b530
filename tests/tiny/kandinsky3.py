"""A tiny pipeline of Kandinsky 3."""

from __future__ import annotations

from diffusers import DDPMScheduler, Kandinsky3Pipeline, Kandinsky3UNet, VQModel
from diffusers.models.unets.unet_kandinsky3 import Kandinsky3ConditionalGroupNorm

from tiny.encoders import t5
from tiny.parts import seeded
from tiny.registry import register
from tiny.tokenizers import t5_tokenizer


@register("kandinsky3", own_latents=True)
def pipeline(seed: int = 1) -> Kandinsky3Pipeline:
    """A T5 of width 48, a UNet of one level, a MoVQ that shrinks by 8."""
    with seeded(seed):
        denoiser = Kandinsky3UNet(
            time_embedding_dim=32,
            groups=4,
            attention_head_dim=8,
            layers_per_block=2,
            block_out_channels=(16,),
            cross_attention_dim=16,
            encoder_hid_dim=48,
        )
        for module in denoiser.modules():
            if isinstance(module, Kandinsky3ConditionalGroupNorm):
                module.context_mlp[1].reset_parameters()  # deaf to time before training
                module.context_mlp[1].weight.data *= 0.3
        return Kandinsky3Pipeline(
            tokenizer=t5_tokenizer(),
            text_encoder=t5(48),
            unet=denoiser,
            scheduler=DDPMScheduler(
                beta_schedule="squaredcos_cap_v2", clip_sample=False, steps_offset=1
            ),
            movq=VQModel(
                block_out_channels=(8, 8, 8, 8),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                latent_channels=4,
                num_vq_embeddings=12,
                norm_num_groups=4,
                vq_embed_dim=4,
            ),
        )
