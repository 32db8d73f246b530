"""Captions and masks by tiny models of the real classes, and what lies in the folder afterwards."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    DetrConfig,
    DetrForSegmentation,
    DetrImageProcessorPil,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MaskFormerConfig,
    ResNetConfig,
    SegformerConfig,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
    SegformerImageProcessorPil,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessorPil,
)
from transformers.utils import import_utils

import tiny
from oneword.cli.main import main
from oneword.config.annotating import AnnotateConfig
from oneword.errors import ConfigError, ModelError
from oneword.images import ImageError, mask_of, read_folder, read_image
from oneword.models.annotators import Captioner, Marker
from oneword.runs.annotate import annotate


SENTENCE = "a red ball on the beach"
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 32}  # fmt: skip
VISION = SMALL | {"image_size": 24, "patch_size": 8}


def photo(seed=0, width=60, height=40):
    """A red box on grey, and where it is."""
    rng = np.random.default_rng(seed)
    values = rng.integers(90, 150, (height, width, 3), dtype=np.uint8)
    top, left = (int(rng.integers(4, side // 2)) for side in (height, width))
    values[top : top + height // 3, left : left + width // 3] = (230, 20, 20)
    mask = np.zeros((height, width), bool)
    mask[top : top + height // 3, left : left + width // 3] = True
    return Image.fromarray(values), mask


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        photo(i)[0].save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("annotators")


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251
        return make()


@pytest.fixture(scope="module")
def blip(place):
    """A BLIP that has learned to say one sentence."""
    tokens = tiny.tokenizers.bert_tokenizer()
    config = BlipConfig(
        text_config=SMALL | {
            "vocab_size": len(tokens), "bos_token_id": tokens.cls_token_id,
            "eos_token_id": tokens.sep_token_id, "sep_token_id": tokens.sep_token_id,
            "pad_token_id": tokens.pad_token_id, "max_position_embeddings": 32,
            "encoder_hidden_size": 16, "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        vision_config=VISION,
        projection_dim=16,
        image_text_hidden_size=16,
    )  # fmt: skip
    processor = BlipProcessor(BlipImageProcessorPil(size={"height": 24, "width": 24}), tokens)

    def make():
        model = BlipForConditionalGeneration(config).train()
        inputs = processor(images=photo()[0], text=SENTENCE, return_tensors="pt")
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for _ in range(60):
            loss = model(**inputs, labels=inputs["input_ids"]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.eval()

    folder = place / "blip"
    seeded(make).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def segformer(place):
    """A SegFormer that has learned where red boxes are."""
    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 16],
        patch_sizes=[3, 3], strides=[2, 2], num_attention_heads=[1, 1], mlp_ratios=[2, 2],
        decoder_hidden_size=16, classifier_dropout_prob=0.0, hidden_dropout_prob=0.0,
        drop_path_rate=0.0, id2label={0: "wall, background", 1: "ball, toy", 2: "sky"},
        label2id={"wall, background": 0, "ball, toy": 1, "sky": 2},
    )  # fmt: skip
    processor = SegformerImageProcessorPil(size={"height": 48, "width": 48})
    pictures, masks = zip(*(photo(100 + i) for i in range(8)), strict=True)

    def make():
        model = SegformerForSemanticSegmentation(config).train()
        pixels = processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        labels = torch.stack([
            torch.tensor(np.array(Image.fromarray(m).resize((48, 48), 0))).long()
            for m in masks
        ])  # fmt: skip
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for _ in range(40):
            loss = model(pixel_values=pixels, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.eval()

    folder = place / "segformer"
    seeded(make).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def git(place):
    tokens = tiny.tokenizers.bert_tokenizer()
    config = GitConfig(
        vision_config=VISION, vocab_size=len(tokens), bos_token_id=tokens.cls_token_id,
        eos_token_id=tokens.sep_token_id, max_position_embeddings=64, **SMALL,
    )  # fmt: skip
    crop = {"height": 24, "width": 24}
    images = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size=crop)
    seeded(lambda: GitForCausalLM(config)).save_pretrained(place / "git")
    GitProcessor(images, tokens).save_pretrained(place / "git")
    return place / "git"


@pytest.fixture(scope="module")
def vit_gpt2(place):
    """Two halves of two families, without a processor of both."""
    tokens = tiny.tokenizers.bert_tokenizer()
    decoder = GPT2Config(
        vocab_size=len(tokens), n_embd=16, n_layer=1, n_head=2, n_positions=64,
        bos_token_id=tokens.cls_token_id, eos_token_id=tokens.sep_token_id,
        add_cross_attention=True, is_decoder=True,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION), decoder)
    config.decoder_start_token_id, config.pad_token_id = tokens.cls_token_id, tokens.pad_token_id
    model = seeded(lambda: VisionEncoderDecoderModel(config))
    model.generation_config.decoder_start_token_id = tokens.cls_token_id
    model.generation_config.pad_token_id = tokens.pad_token_id
    model.save_pretrained(place / "vit-gpt2")
    ViTImageProcessorPil(size={"height": 24, "width": 24}).save_pretrained(place / "vit-gpt2")
    tokens.save_pretrained(place / "vit-gpt2")
    return place / "vit-gpt2"


@pytest.fixture(scope="module")
def llava(place):
    """A model that chats."""
    tokens = tiny.tokenizers.qwen_tokenizer(1024, ["<|image_pad|>"])
    crop = {"height": 24, "width": 24}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size=crop),
        tokens,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<|image_pad|>",
        chat_template=(
            "{% for m in messages %}{{ m.role }}: {% for c in m.content %}"
            "{% if c.type == 'image' %}<|image_pad|>{% else %}{{ c.text }}{% endif %}"
            "{% endfor %}{% endfor %} assistant: "
        ),
    )
    text = LlamaConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512,
        bos_token_id=None, eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION | {"num_hidden_layers": 2}),
        text_config=text,
        image_token_id=tokens.convert_tokens_to_ids("<|image_pad|>"),
    )
    seeded(lambda: LlavaForConditionalGeneration(config)).save_pretrained(place / "llava")
    processor.save_pretrained(place / "llava")
    return place / "llava"


@pytest.fixture(scope="module")
def detr(place):
    """A random model of segments, one by one, with a score each."""
    config = DetrConfig(
        use_timm_backbone=False,
        backbone_config=ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1],
            layer_type="basic", out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=6,
        id2label={0: "cat", 1: "ball"}, label2id={"cat": 0, "ball": 1},
    )  # fmt: skip
    model = seeded(lambda: DetrForSegmentation(config))
    with torch.no_grad():  # sure of everything, and of nothing that it is no thing
        head = model.detr.class_labels_classifier
        head.weight.mul_(500)
        head.bias.copy_(torch.tensor([0.0, 0.0, -1000.0]))
    model.save_pretrained(place / "detr")
    size = {"shortest_edge": 32, "longest_edge": 64}
    DetrImageProcessorPil(size=size).save_pretrained(place / "detr")
    return place / "detr"


# --- the models


def test_a_captioner_says_what_its_model_has_learned(blip):
    captioner = Captioner(str(blip), device="cpu")
    assert captioner(photo()[0]) == SENTENCE
    assert captioner(photo(width=80, height=30)[0].convert("RGB")) == SENTENCE


@pytest.mark.parametrize("name", ["git", "vit_gpt2", "llava"])
def test_captioners_of_other_kinds_give_one_line_and_always_the_same(name, request):
    captioner = Captioner(str(request.getfixturevalue(name)), device="cpu")
    first, again = captioner(photo()[0]), captioner(photo()[0])
    assert first == again
    assert "\n" not in first
    assert first == " ".join(first.split())


def test_a_model_that_chats_is_asked(llava, blip):
    pictures = []
    captioner = Captioner(str(llava), device="cpu", prompt="a small cat ?")
    inputs, start = captioner._asked(photo()[0])
    text = captioner.reader.decode(inputs["input_ids"][0])
    assert "a small cat ?" in text
    assert text.count("<|image_pad|>") == 9  # patches of 24 px
    assert start == inputs["input_ids"].shape[1]
    assert inputs["pixel_values"].shape == (1, 3, 24, 24)
    assert not pictures
    with pytest.raises(
        ModelError, match=r"Cannot ask .*blip for 'what\?' because it does not chat"
    ):
        Captioner(str(blip), device="cpu", prompt="what?")


def test_a_marker_finds_what_its_model_has_learned(segformer):
    marker = Marker(str(segformer), ["Ball"], device="cpu")
    assert marker.labels == {"ball, toy"}
    for seed in (0, 1, 2):
        image, truth = photo(seed)
        found = marker(image)
        assert found.size == image.size
        marked = np.asarray(found) > 127
        assert (marked & truth).sum() / (marked | truth).sum() > 0.8
    assert Marker(str(segformer), ["sky"], device="cpu")(photo()[0]) is None


def test_a_library_that_a_model_needs_is_named(tmp_path, monkeypatch):
    """MaskFormer and its kin match segments with scipy."""
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "scipy", (lambda: False, "{0} wants scipy"))
    MaskFormerConfig().save_pretrained(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"library .* is missing .*scipy.*; install it"):
        Marker(str(tmp_path), ["cat"], device="cpu")


def test_a_model_whose_files_are_for_another_task_is_none(segformer, blip, tmp_path):
    """Its head would be random."""
    SegformerForImageClassification(SegformerConfig.from_pretrained(segformer)).save_pretrained(
        tmp_path / "classes"
    )
    SegformerImageProcessorPil().save_pretrained(tmp_path / "classes")
    with pytest.raises(ModelError, match="its files lack decode_head"):
        Marker(str(tmp_path / "classes"), ["sky"], device="cpu")
    retrieval = BlipForImageTextRetrieval(BlipConfig.from_pretrained(blip))
    retrieval.save_pretrained(tmp_path / "retrieval")
    BlipProcessor.from_pretrained(blip).save_pretrained(tmp_path / "retrieval")
    with pytest.raises(ModelError, match="its files lack text_decoder"):
        Captioner(str(tmp_path / "retrieval"), device="cpu")


def test_a_marker_takes_the_segments_of_its_labels(detr):
    marker = Marker(str(detr), ["cat"], device="cpu")
    segments = marker.pipeline(photo()[0])
    assert {segment["label"] for segment in segments} == {"cat"}
    expected = np.zeros((40, 60), bool)
    for segment in segments:
        expected |= np.asarray(segment["mask"]) > 0
    assert expected.any()
    assert ((np.asarray(marker(photo()[0])) > 0) == expected).all()
    assert Marker(str(detr), ["ball"], device="cpu")(photo()[0]) is None


def test_labels_that_a_marker_does_not_know_are_said(segformer):
    with pytest.raises(
        ModelError, match=r"does not know 'cat'; name .*: wall, background, ball, toy"
    ):
        Marker(str(segformer), ["cat"], device="cpu")
    with pytest.raises(ModelError, match="knows 3 kinds of things; name yours by --mask-labels"):
        Marker(str(segformer), device="cpu")


@pytest.mark.parametrize("kind", [Captioner, Marker])
def test_a_model_that_is_none_is_one_sentence(kind, tiny_folder, judge_folder, blip, segformer):
    other = segformer if kind is Captioner else blip
    what = "caption with" if kind is Captioner else "mask with"
    for model in (tiny_folder, judge_folder, other, "/no/such/folder"):
        with pytest.raises(
            ModelError, match=rf"^Cannot {what} .* because it is not a complete"
        ) as found:
            kind(str(model), device="cpu")
        assert "\n" not in str(found.value)
        assert "; pass one, such as " in str(found.value)


# --- the folder


def test_captions_and_masks_lie_where_training_finds_them(photos, blip, segformer, tmp_path):
    found = annotate(
        photos, caption=Captioner(str(blip), device="cpu"),
        mark=Marker(str(segformer), ["ball"], device="cpu"), placeholder_token="<toy>", noun="ball",
    )  # fmt: skip
    assert len(found.written) == 6
    assert (found.kept, found.unmarked) == ((), ())
    assert (photos / "1.txt").read_text() == "a red <toy> on the beach\n"
    pictures = read_folder(photos, resolution=40)
    assert pictures.skipped == ()
    assert pictures.captions == ("a red <toy> on the beach",) * 3
    truth = torch.stack([torch.tensor(photo(i)[1][:, 10:50]) for i in range(3)])[:, None]
    marked = pictures.masks > 0.5
    assert (marked & truth).sum() / (marked | truth).sum() > 0.8
    assert found.sheet == tmp_path / "photos-pictures.png"
    assert read_image(found.sheet).width > 3 * 256


def test_what_is_there_stays_unless_it_is_asked_for(photos):
    (photos / "0.txt").write_text("mine")
    (photos / "metadata.jsonl").write_text(json.dumps({"file_name": "1.png", "text": "listed"}))
    Image.new("L", (60, 40), 255).save(photos / "0.mask.png")
    with Image.open(photos / "1.png") as image:
        cut = image.convert("RGBA")
    cut.putpixel((0, 0), (0, 0, 0, 0))
    cut.save(photos / "1.png")
    makers = {
        "caption": lambda image: "made",
        "mark": lambda image: Image.new("L", image.size, 200),
    }
    found = annotate(photos, **makers)
    assert {path.name for path in found.written} == {"2.txt", "2.mask.png"}
    assert found.kept == (
        "the caption of 0.png", "the mask of 0.png", "the caption of 1.png", "the mask of 1.png"
    )  # fmt: skip
    assert (photos / "0.txt").read_text() == "mine"
    assert mask_of(photos / "0.png").getextrema() == (255, 255)
    again = annotate(photos, overwrite=True, **makers)
    assert len(again.written) == 6
    assert read_folder(photos, resolution=16).captions == ("S*, made",) * 3
    assert mask_of(photos / "1.png").getextrema() == (200, 200)


def test_pictures_of_one_name_do_not_overwrite_each_other(photos):
    photo(5)[0].save(photos / "0.jpg")
    said = iter("abcd")
    found = annotate(photos, caption=lambda image: next(said), overwrite=True)
    assert (photos / "0.txt").read_text() == "S*, a\n"
    assert found.kept == ("the caption of 0.png",)


def test_a_folder_of_ones_own_is_read_by_training(photos, tmp_path):
    own = tmp_path / "texts"
    found = annotate(
        photos, caption=lambda image: "a ball", mark=lambda image: Image.new("L", image.size, 255),
        noun="ball", output_dir=own,
    )  # fmt: skip
    assert {path.parent for path in found.written} == {own}
    assert {path.name for path in photos.iterdir()} == {"0.png", "1.png", "2.png"}
    assert found.sheet == tmp_path / "texts-pictures.png"
    pictures = read_folder(photos, resolution=16, caption_dir=own, mask_dir=own)
    assert pictures.captions == ("a S*",) * 3
    assert annotate(photos, caption=lambda image: "x", output_dir=own).written == ()


def test_a_picture_without_the_thing_has_no_mask_and_is_named(photos):
    found = annotate(photos, mark=lambda image: None)
    assert found.unmarked == ("0.png", "1.png", "2.png")
    assert found.written == ()
    with pytest.raises(ImageError, match="as large as its picture, got one of 5 x 5 for 0"):
        annotate(photos, mark=lambda image: Image.new("L", (5, 5)))


def test_a_model_must_be_named(photos):
    with pytest.raises(ConfigError, match="without a model; pass --caption-with or --mask-with"):
        AnnotateConfig(folder=photos)
    with pytest.raises(ConfigError, match="caption_prompt without caption_with"):
        AnnotateConfig(folder=photos, mask_with="x", caption_prompt="y")
    with pytest.raises(ConfigError, match="mask_labels without mask_with"):
        AnnotateConfig(folder=photos, caption_with="x", mask_labels=("y",))


def test_the_command_writes_them_and_names_the_sheet(photos, blip, segformer, capsys):
    command = ["pictures", str(photos), "--caption-with", str(blip), "--mask-with", str(segformer),
               "--placeholder-token", "<toy>", "--initializer-token", "ball",
               "--device", "cpu"]  # fmt: skip
    assert main(command) == 0
    said = capsys.readouterr()
    assert "Wrote 6 files. Check " in said.out
    assert (photos / "2.txt").read_text() == "a red <toy> on the beach\n"
    assert main(command) == 0
    said = capsys.readouterr()
    assert "Wrote 0 files" in said.out
    assert "the mask of 2.png exists and was kept (--overwrite replaces it)" in said.err
    assert main(["pictures", str(photos), "--caption-with", str(segformer)]) == 2
    assert "Cannot caption with" in capsys.readouterr().err
