"""Every constant of a preset, sampler, protocol, setup or edit, once more, with where it is from.

``tests/unit/config/test_published.py`` compares them with ours, all of them and both ways: a number
that changes there must change here, too, beside a source that says so.

Sources: sections and appendices are those of Gal et al. 2022, arXiv:2208.01618, and "their code" is
rinongal/textual_inversion, with the row or paragraph of the specification that this package was
built from; other papers go by their arXiv id; "Crowson 2021" is her notebooks of CLIP
guidance, and "openai/CLIP" that package; "ours" is published nowhere, and what it rests on stands
beside the constant.
"""

from __future__ import annotations

from typing import Any


Constants = dict[str, tuple[Any, str]]

COMMON: Constants = {
    "form": ("rows", "section 3 (row 2)"),
    "initializer": ("word", "section 3 (row 2)"),
    "num_vectors": (1, "section 3 (row 2)"),
    "num_negative_vectors": (1, "2211.11337"),
    "training_guidance_scale": (5.0, "2211.11337"),
    "dual_prompt_probability": (0.25, "their code (row 36)"),
    "regularization_weight": (0.0, "section 5.2 (row 35): off unless asked for"),
    "cross_initialization": (False, "2312.15905: off unless asked for"),
    "norm_pull": (0.0, "ours"),
    "learning_rate_ratio": (1.0, "section 5.2 (row 41): of the method itself"),
    "scale_lr": (False, "ours: rates are told apart from batches"),
    "lr_scheduler": ("constant", "their code (row 11)"),
    "lr_warmup_steps": (0, "their code (row 11)"),
    "adam_weight_decay": (0.0, "ours: row 11 has 0.01"),
    "random_flip": (True, "their code (2.7)"),
    "fit": ("crop", "ours: 2.7 squashes"),
    "interpolation": ("lanczos", "ours: 2.7 has bicubic"),
    "backgrounds": ("auto", "ours: 2.7 keeps what a file has under its transparency"),
    "keep": ("best", "ours: row 9 keeps the last"),
    "early_stopping": (False, "section 3 (row 9)"),
    "stop_threshold": (0.15, "2302.04841"),
    "stratified_timesteps": (False, "their code (row 12)"),
    "timestep_bias": (0.0, "their code (row 12)"),
    "timestep_power": (1.0, "their code (row 12)"),
    "prompt_templates": (
        {"object": "release27", "style": "style19"},
        "appendix D and their code (1F): the first release",
    ),
}
"""Settings of every preset that says nothing else."""

_PUBLISHED: Constants = {
    "scale_lr": (True, "section 3 (row 8)"),
    "adam_weight_decay": (1e-2, "their code (row 11)"),
    "fit": ("squash", "their code (2.7)"),
    "interpolation": ("bicubic", "their code (2.7)"),
    "backgrounds": ("none", "their code (2.7)"),
    "keep": ("last", "section 3 (row 9)"),
}
_RELEASE: Constants = _PUBLISHED | {
    "learning_rate": (5e-3, "their code (2.8)"),
    "max_train_steps": (6100, "their code (row 9)"),
    "prompt_templates": (
        {"object": "head81", "style": "style19"},
        "appendix D and their code (1F): their last version",
    ),
}
_MICROWORLD: Constants = {
    "learning_rate": (1.5e-2, "ours: measured"),
    "train_batch_size": (8, "ours: measured"),
    "max_train_steps": (250, "ours: measured"),
    "timestep_power": (3.0, "ours: measured"),
    "evaluation_steps": (10, "ours: measured"),
    "early_stopping": (True, "ours: measured"),
    "stop_threshold": (0.05, "ours: measured"),
}
_OTHERS: Constants = {
    "learning_rate": (2e-3, "diffusers: 5e-4 times batch 1 times accumulation 4"),
    "train_batch_size": (4, "diffusers"),
    "max_train_steps": (3000, "diffusers"),
}
_RELATIVE: Constants = {
    "relative_learning_rate": (0.14, "ours: diffusers' rate in units of its table"),
    "train_batch_size": (4, "diffusers"),
    "max_train_steps": (3000, "diffusers"),
}
_STOPPING: Constants = {
    "early_stopping": (True, "2302.04841"),
    "stop_threshold": (0.15, "2302.04841"),
}

PRESETS: dict[tuple[str, str], Constants] = {
    ("paper", "*"): _PUBLISHED
    | {
        "learning_rate": (5e-3, "section 3 (row 8)"),
        "train_batch_size": (8, "section 3 (row 7): 4 on each of two GPUs"),
        "max_train_steps": (5000, "section 3 (row 9)"),
        "prompt_templates": (
            {"object": "paper27dot", "style": "style19dot"},
            "appendix D and their code (1F)",
        ),
    },
    ("release", "*"): _RELEASE | {"train_batch_size": (2, "their code (2.8)")},
    ("release", "ldm"): _RELEASE | {"train_batch_size": (4, "section 3 (row 7): one GPU")},
    ("default", "*"): _OTHERS,
    ("default", "relative"): _RELATIVE,
    ("default", "microworld"): _MICROWORLD,
    ("fast", "*"): _OTHERS | _STOPPING,
    ("fast", "relative"): _RELATIVE | _STOPPING,
    ("fast", "microworld"): _MICROWORLD | _STOPPING,
}
"""By preset and recipe, over ``COMMON``."""

SETUPS: dict[str, Constants] = {
    "one-word": {},
    "two-words": {"num_vectors": (2, "section 5.2 (row 33)")},
    "three-words": {"num_vectors": (3, "section 5.2 (row 33)")},
    "progressive": {
        "form": ("progressive", "section 5.2 (row 34)"),
        "num_vectors": (3, "section 5.2 (row 34)"),
    },
    "regularized": {"regularization_weight": (1e-2, "ours: row 35, never published")},
    "per-image": {"form": ("per-image", "section 5.2 (row 36)")},
    "high-lr": {"learning_rate_ratio": (4.0, "section 5.2 (row 41): 2e-2 over 5e-3")},
    "low-lr": {"learning_rate_ratio": (0.02, "section 5.2 (row 41): 1e-4 over 5e-3")},
    "captions-short": {"form": ("captions-short", "section 5.2 (row 37)")},
    "captions-long": {"form": ("captions-long", "section 5.2 (row 37)")},
    "xti": {"form": ("xti", "2303.09522")},
    "neti": {
        "form": ("neti", "2305.15391"),
        "learning_rate": (8e-3, "2305.15391"),
        "scale_lr": (False, "2305.15391"),
    },
    "cross-init": {"cross_initialization": (True, "2312.15905")},
    "dreamartist": {
        "form": ("dreamartist", "2211.11337"),
        "num_vectors": (3, "2211.11337"),
        "num_negative_vectors": (3, "2211.11337"),
    },
    "encoder": {
        "form": ("encoder", "section 6: named as future work"),
        "initializer": ("encoder", "section 6: named as future work"),
    },
    "pivotal": {},
    "lora-dreambooth": {},
    "custom-diffusion": {},
}

SAMPLERS: dict[tuple[str, str], Constants] = {
    ("paper", "*"): {
        "guidance_scale": (5.0, "their code (row 31)"),
        "num_inference_steps": (50, "section 5.1 (row 29)"),
    },
    ("release", "ldm"): {
        "guidance_scale": (10.0, "their code (2.13)"),
        "num_inference_steps": (50, "their code (2.13)"),
    },
    ("release", "*"): {
        "guidance_scale": (7.5, "their code (2.13)"),
        "num_inference_steps": (50, "their code (2.13)"),
    },
    ("model", "*"): {},
}

DDIM: Constants = {
    "timestep_spacing": ("leading", "their code (2.13)"),
    "steps_offset": (1, "their code (2.13)"),
    "set_alpha_to_one": (False, "their code (2.13)"),
    "clip_sample": (False, "their code (2.13)"),
    "thresholding": (False, "their code (2.13)"),
}

LDM_SCHEDULE: Constants = {
    "beta_start": (0.00085, "their code (row 13)"),
    "beta_end": (0.012, "their code (row 13)"),
    "beta_schedule": ("scaled_linear", "their code (row 13)"),
    "num_train_timesteps": (1000, "their code (row 13)"),
    "clip_sample": (False, "their code (2.13)"),
    "set_alpha_to_one": (False, "their code (2.13)"),
    "steps_offset": (1, "their code (2.13)"),
}
"""Of the model of the paper's checkpoint."""

PROTOCOLS: dict[str, Constants] = {
    "paper": {
        "num_images_per_prompt": (64, "section 5.1 (rows 27 and 29)"),
        "sampling": (
            {"guidance_scale": 5.0, "num_inference_steps": 50},
            "section 5.1 (rows 29 and 31)",
        ),
        "fit": ("squash", "their code (2.7)"),
        "interpolation": ("bicubic", "their code (2.7)"),
    },
    "default": {
        "num_images_per_prompt": (16, "ours: quick"),
        "sampling": ({}, "ours: the model's own"),
        "fit": ("crop", "ours"),
        "interpolation": ("lanczos", "ours"),
    },
}

FAMILIES: dict[str, Constants] = {
    "ldm": {
        "guidance_scale": (5.0, "their code (row 31)"),
        "num_inference_steps": (50, "section 5.1 (row 29)"),
    },
    "stable_diffusion": {
        "guidance_scale": (7.5, "their code (2.13)"),
        "num_inference_steps": (50, "their code (2.13)"),
    },
    "microworld": {
        "guidance_scale": (4.0, "ours: measured"),
        "num_inference_steps": (25, "ours: measured"),
    },
}
"""What families that the authors drew with, or that are ours, are drawn with by default."""

SINGLE: Constants = {
    "inversion steps": (250, "their code (row 44)"),
    "judge": ("openai/clip-vit-base-patch32", "their code (row 31)"),
    "DINO": ("facebook/dino-vits16", "2208.12242"),
    "AdamW's first decay": (0.9, "their code (row 11)"),
    "AdamW's second decay": (0.999, "their code (row 11)"),
    "AdamW's epsilon": (1e-8, "their code (row 11)"),
    "study: pictures per prompt": (64, "section 5.1 (row 29)"),
    "study: guidance": (5.0, "their code (row 31)"),
    "study: steps": (50, "section 5.1 (row 29)"),
    "study: inversion steps": (250, "their code (row 44)"),
    "evaluation: pictures per prompt": (64, "section 5.1 (row 29)"),
    "study: seeds": ((0, 1, 2), "ours: section 5.1 does not tell how many"),
    "study: least of comparable setups": (0.2, "ours"),
    "study: low guidance": (2.0, "appendix A (row 43)"),
    "study: high guidance": (5.0, "appendix A (row 43)"),
    "study: pictures that are best": (5, "appendix B (row 47)"),
    "regularized: the weights that are compared": (
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        "ours: row 35, never published",
    ),
    "progressive: steps until the next vector": (2000, "section 5.2 (row 34)"),
    "progressive: share of a shorter run": (0.8, "section 5.2 (row 34): 4,000 of 5,000"),
    "cross-init: weight of the distance": (1e-5, "2312.15905"),
    "dreamartist: noise of the negative word": (0.07, "ours"),
    "neti: frequencies": (1024, "2305.15391"),
    "neti: spread of the frequencies of time and layer": ((0.03, 2.0), "2305.15391"),
    "neti: anchors along the time": (10, "2305.15391"),
    "neti: width of the hidden layers": (128, "2305.15391"),
    "letters of a rare word": (3, "2208.12242"),
    "average of the last rows": (0.98, "ours"),
    "scorings that decide when to stop": (10, "ours: 2302.04841 scores after each step"),
    "samples of the fixed batch": (16, "ours"),
    "diffusion times of the fixed batch": ((0.1, 0.95), "ours"),
    "share of composites": (0.1, "ours"),
    "heads of LDM's attention": (8, "their code (2.1)"),
    "scaling factor of LDM's latents": (0.18215, "their code (row 13)"),
    "LDM's context": (77, "their code (2.1)"),
    "mask cells of an edit": (4, "ours"),
    "VQGAN-CLIP: share of the pictures": (0.5, "ours: section 5.1 says jointly, without weights"),
    "VQGAN-CLIP: least side of a cutout that the guide sees whole": (0.75, "ours"),
    "rank of a LoRA": (4, "diffusers"),
    "rate of Prodigy": (1.0, "2306.06101: its code's default"),
    "course of the rate: cycles": (1, "diffusers"),
    "course of the rate: power": (1.0, "diffusers"),
    "guide": ("openai/clip-vit-base-patch16", "Crowson 2021: the 256 px notebook"),
    "mean of CLIP's pixels": ((0.48145466, 0.4578275, 0.40821073), "openai/CLIP"),
    "spread of CLIP's pixels": ((0.26862954, 0.26130258, 0.27577711), "openai/CLIP"),
    "times left out before a picture": (300, "Crowson 2021: 200 to 500"),
    "shortest cutout of a small picture": (0.75, "ours"),
    "older script: most blur": (24.0, "Crowson 2021"),
    "older script: blur by noise over signal": (0.25, "Crowson 2021"),
    "older script: most shift": (8 / 224, "Crowson 2021"),
    "unconditional model: betas": ((1e-4, 0.02, 1000), "2105.05233: its code"),
    "unconditional model: channels of a head": (64, "2105.05233: its code"),
    "unconditional model: groups of a norm": (32, "2105.05233: its code"),
    "unconditional model: blocks of a level": (2, "2105.05233: its code"),
}

_CUTS: Constants = {
    "sampler": ("ddpm", "Crowson 2021"),
    "cut_power": (1.0, "Crowson 2021"),
}
CLIP_DIFFUSION: dict[str, Constants] = {
    "hq": _CUTS
    | {
        "num_inference_steps": (1000, "Crowson 2021: the 256 px notebook"),
        "clip_scale": (1000.0, "Crowson 2021: the 256 px notebook"),
        "tv_scale": (150.0, "Crowson 2021: the 256 px notebook"),
        "range_scale": (50.0, "Crowson 2021: the 256 px notebook"),
        "num_cutouts": (16, "Crowson 2021: the 256 px notebook"),
    },
    "plain": _CUTS
    | {
        "num_inference_steps": (500, "Crowson 2021: the older script"),
        "clip_scale": (2750.0, "Crowson 2021: the older script"),
        "tv_scale": (0.0, "Crowson 2021: the older script has none"),
        "range_scale": (0.0, "Crowson 2021: the older script has none"),
        "num_cutouts": (1, "Crowson 2021: the older script"),
    },
    "latent": _CUTS
    | {
        "num_inference_steps": (50, "ours"),
        "clip_scale": (1000.0, "ours"),
        "tv_scale": (150.0, "ours"),
        "range_scale": (50.0, "ours"),
        "num_cutouts": (16, "ours: the 256 px notebook's"),
    },
}
"""Presets of CLIP-guided diffusion."""

DECODERS: dict[str, Constants] = {
    "*": {
        "steps": (75, "2206.02779, its code (row 25)"),
        "learning_rate": (1e-4, "2206.02779, its code (row 25)"),
        "goal_db": (None, "2206.02779, its code (row 25)"),
        "background_weight": (100.0, "2206.02779, its code (row 25)"),
    },
    "microworld": {
        "steps": (300, "ours: measured"),
        "learning_rate": (1e-3, "ours: measured"),
        "goal_db": (36.0, "ours"),
        "background_weight": (100.0, "2206.02779, its code (row 25)"),
    },
}
"""Tuning of a decoder to an edit's background."""

RATE_FACTORS: Constants = {
    "adamw": (1.0, "ours: the presets' rates are AdamW's"),
    "adamw8bit": (1.0, "2110.02861: the rates of 32 bits are kept"),
    "lion": (0.3, "2302.06675: a third to a tenth; its library found a third better"),
    "adafactor": (1.0, "ours: in AdamW's units where nothing is scaled by the rows' size"),
}

TUNING_RATES: dict[str, Constants] = {
    "full": {"*": (1e-6, "their code (2.15)"), "microworld": (1e-4, "ours: measured")},
    "lora": {"*": (1e-4, "diffusers"), "microworld": (1e-3, "ours: measured")},
    "kv": {"*": (8e-5, "2212.04488: 1e-5 times 8"), "microworld": (1e-3, "ours: measured")},
}

TUNING: dict[tuple[str, str], Constants] = {
    ("pivotal", "*"): {
        "tuned_weights": ("full", "appendix A (rows 45 and 46)"),
        "train_word": (False, "their code (row 46)"),
        "prior_loss_weight": (0.0, "appendix A (row 45)"),
        "num_class_images": (100, "2208.12242"),
    },
    ("lora-dreambooth", "*"): {
        "tuned_weights": ("lora", "diffusers"),
        "train_word": (False, "2208.12242"),
        "tuning_steps": (500, "diffusers"),
        "prior_loss_weight": (1.0, "2208.12242"),
        "num_class_images": (100, "diffusers"),
    },
    ("lora-dreambooth", "microworld"): {
        "tuned_weights": ("lora", "diffusers"),
        "train_word": (False, "2208.12242"),
        "tuning_steps": (150, "ours: measured"),
        "prior_loss_weight": (1.0, "2208.12242"),
        "num_class_images": (24, "ours: measured"),
    },
    ("custom-diffusion", "*"): {
        "tuned_weights": ("kv", "2212.04488"),
        "train_word": (True, "2212.04488"),
        "tuning_steps": (250, "2212.04488"),
        "prior_loss_weight": (1.0, "2212.04488"),
        "num_class_images": (200, "2212.04488"),
    },
    ("custom-diffusion", "microworld"): {
        "tuned_weights": ("kv", "2212.04488"),
        "train_word": (True, "2212.04488"),
        "tuning_steps": (150, "ours: measured"),
        "prior_loss_weight": (1.0, "2212.04488"),
        "num_class_images": (24, "ours: measured"),
    },
}

RECIPES: dict[str, Constants] = {
    "ldm-dreambench": {
        "preset": ("paper", "section 3 (rows 1 to 14)"),
        "num_images_per_prompt": (64, "section 5.1 (row 29)"),
        "num_inference_steps": (50, "section 5.1 (row 29)"),
        "guidance_scale": (5.0, "their code (row 31)"),
        "guidance_scales": ([2.0, 10.0], "appendix A (row 43): 2 keeps structure, 5 to 10 lose it"),
        "num_inversion_steps": (250, "their code (row 44)"),
        "set_sizes": ([1, 2, 3, 4, 5, 6], "appendix B (row 47), as far as DreamBench has pictures"),
        "seeds": ([0, 1, 2], "ours"),
    },
    "sd15-dreambench": {
        "num_images_per_prompt": (64, "section 5.1 (row 29)"),
        "num_inference_steps": (50, "section 5.1 (row 29)"),
        "guidance_scale": (5.0, "their code (row 31)"),
        "guidance_scales": ([2.0, 10.0], "appendix A (row 43): 2 keeps structure, 5 to 10 lose it"),
        "num_inversion_steps": (250, "their code (row 44)"),
        "set_sizes": ([1, 2, 3, 4, 5, 6], "appendix B (row 47), as far as DreamBench has pictures"),
        "seeds": ([0, 1, 2], "ours"),
    },
}
"""Of studies on published models; their other keys are names and places."""

PALAVRA: dict[str, Constants] = {
    "*": {
        "hidden": (4096, "2204.01694, its README"),
        "dropout": (0.25, "2204.01694, its README"),
        "set_size": (5, "2204.01694, its README"),
        "batch_size": (256, "2204.01694, its README"),
        "epochs": (300, "2204.01694, its README: its code's default is 1000"),
        "learning_rate": (1e-4, "2204.01694, its README"),
        "rate_factor": (0.2, "2204.01694, its code"),
        "rate_passes": (200, "2204.01694, its code, which counts three passes an epoch"),
        "contrastive_weight": (1.0, "2204.01694, its code"),
        "row_weight": (512.0, "2204.01694, its README"),
        "temperature": (0.25, "2204.01694, its code"),
    },
    "microworld": {
        "hidden": (512, "ours"),
        "dropout": (0.25, "2204.01694, its README"),
        "set_size": (5, "2204.01694, its README"),
        "batch_size": (64, "ours"),
        "epochs": (300, "2204.01694, its README"),
        "learning_rate": (1e-3, "ours"),
        "rate_factor": (0.2, "2204.01694, its code"),
        "rate_passes": (300, "ours"),
        "contrastive_weight": (1.0, "2204.01694, its code"),
        "row_weight": (512.0, "2204.01694, its README"),
        "temperature": (0.25, "2204.01694, its code"),
    },
}
"""Stage A of PALAVRA, by which CLIP it learns on."""

PALAVRA_SINGLE: Constants = {
    "layers": (3, "2204.01694, its code"),
    "passes in an epoch": (3, "2204.01694, its code: pictures, texts, the test"),
    "held back": (5, "2204.01694, its code: every fifth"),
    "prompts": (
        (
            "This is a photo of a *", "This photo contains a *", "A photo of a *",
            "This is an illustrations of a *", "This illustrations contains a *",
            "An illustrations of a *", "This is a sketch of a *", "This sketch contains a *",
            "A sketch of a *", "This is a diagram of a *", "This diagram contains a *",
            "A diagram of a *", "A *", "We see a *", "*", "We see an * in this photo",
            "We see an * in this image", "We see an * in this illustration", "We see a * photo",
            "We see a * image", "We see a * illustration", "* photo", "* image", "* illustration",
        ),
        "2204.01694, its code",
    ),
    "prompt of the test": ("This is a photo of a *", "2204.01694, its code"),
    "prompt of the word": ("*", "2204.01694, its README: no prompt but the word"),
    "prompt that finds": ("a photo of a *", "2204.01694, its code: A photo of a *"),
    "steps": (30, "2204.01694, its README"),
    "rate": (1e-2, "2204.01694, its code"),
    "temperature": (0.25, "2204.01694, its code"),
    "mode": ("coarse", "2204.01694, its README: mode 1"),
    "coarse phrase": ("item", "2204.01694, its code"),
}  # fmt: skip
"""PALAVRA's other constants."""

VQGAN_CLIP: dict[str, Constants] = {
    "crowson": {
        "num_steps": (500, "ours: it runs until it is stopped; nerdyrodent's number"),
        "learning_rate": (0.05, "Crowson 2021: the z+quantize notebook"),
        "weight_decay": (0.0, "Crowson 2021: the z+quantize notebook"),
        "num_cutouts": (64, "Crowson 2021: the z+quantize notebook"),
        "resolution": (480, "Crowson 2021: the z+quantize notebook"),
        "start": ("codebook", "Crowson 2021: the z+quantize notebook"),
        "cutouts": ("cropped", "Crowson 2021: the z+quantize notebook"),
    },
    "nerdyrodent": {
        "num_steps": (500, "nerdyrodent at 07a2489"),
        "learning_rate": (0.1, "nerdyrodent at 07a2489"),
        "weight_decay": (0.01, "nerdyrodent at 07a2489: torch's AdamW without a word"),
        "num_cutouts": (32, "nerdyrodent at 07a2489"),
        "resolution": (512, "nerdyrodent at 07a2489"),
        "start": ("uniform", "nerdyrodent at 07a2489"),
        "cutouts": ("augmented", "nerdyrodent at 07a2489"),
    },
    "on the embedded models": {
        "num_steps": (200, "ours"),
        "num_cutouts": (16, "ours"),
    },
}
"""The notebook "VQGAN+CLIP (z+quantize method)" of 2021, and nerdyrodent/VQGAN-CLIP at 07a2489."""

AUGMENTATIONS: Constants = {
    "SHARE": (0.7, "nerdyrodent at 07a2489"),
    "DEGREES": (15.0, "nerdyrodent at 07a2489"),
    "SHIFT": (0.1, "nerdyrodent at 07a2489"),
    "DISTORTION": (0.7, "nerdyrodent at 07a2489"),
    "HUE": (0.1, "nerdyrodent at 07a2489"),
    "SATURATION": (0.1, "nerdyrodent at 07a2489"),
    "ERASED_AREA": ((0.1, 0.4), "nerdyrodent at 07a2489"),
    "ERASED_ASPECT": ((0.3, 1 / 0.3), "nerdyrodent at 07a2489"),
    "NOISE": (0.1, "nerdyrodent at 07a2489"),
}
"""Of VQGAN-CLIP's cutouts."""

VARIATIONS: dict[str, Constants] = {
    "karlo": {
        "source": ("kakaobrain/karlo-v1-alpha-image-variations", "diffusers"),
        "guidance_scale": (8.0, "diffusers: decoder_guidance_scale of its pipeline"),
        "num_inference_steps": (25, "diffusers: steps of the decoder"),
        "super_res_steps": (7, "diffusers: steps of the enlarging networks"),
    },
    "sd-unclip": {
        "source": ("stabilityai/stable-diffusion-2-1-unclip", "diffusers"),
        "guidance_scale": (10.0, "diffusers: default of its pipeline"),
        "num_inference_steps": (20, "diffusers: default of its pipeline"),
        "noise_level": (0, "diffusers: default of its pipeline"),
    },
    "sd-variations": {
        "source": ("lambdalabs/sd-image-variations-diffusers", "diffusers"),
        "revision": ("v2.0", "diffusers: the model's card"),
        "guidance_scale": (3.0, "diffusers: the model's card"),
        "num_inference_steps": (50, "diffusers: default of its pipeline"),
    },
    "karlo from text": {
        "source": ("kakaobrain/karlo-v1-alpha", "diffusers"),
        "prior_guidance_scale": (4.0, "diffusers: default of its pipeline"),
        "prior_steps": (25, "diffusers: default of its pipeline"),
        "guidance_scale": (8.0, "diffusers: default of its pipeline"),
        "num_inference_steps": (25, "diffusers: default of its pipeline"),
        "super_res_steps": (7, "diffusers: default of its pipeline"),
    },
    "candidates": {
        "of a word": (16, "section 4.7 (row 26)"),
        "of variations": (6, "section 4.7 (row 26): of DALL-E 2"),
    },
    "projector": {
        "num_vectors": (4, "2204.06125: its decoder has four tokens of the embedding"),
        "num_samples": (50_000, "ours"),
        "num_pictures": (4096, "ours"),
        "train_batch_size": (16, "ours"),
        "learning_rate": (1e-3, "ours"),
        "hidden": (512, "ours"),
        "warmup_steps": (100, "ours"),
        "weight_decay": (0.01, "ours"),
        "initializer": ("photo", "ours"),
    },
}
"""Of models that vary a picture, and of the projector that does it on models of this package."""
