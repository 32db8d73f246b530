"""Whether other tools take our files: their own loaders, called from checkouts.

    python benchmarks/clients.py --checkouts comfyui=PATH a1111=PATH forge=PATH kohya=PATH \
        invokeai=PATH onetrainer=PATH authors=PATH

For each tool, words of several models are written with its ``--to`` layout, its loader is imported
from the checkout in a process of its own and reads the file, and the rows that it finds are
compared with ours, to the bit. (``a1111`` may be a checkout of Forge, which carries its code.) What
a loader's file imports and does not need to read a word (a web server, a database of models, a
library that is not installed) is replaced by a stand-in that does nothing. diffusers is installed
here; its loader is tested in ``tests/parity``.

Exit status: 0, or 1 if a tool refused a file or found other rows.
"""

from __future__ import annotations

import _briefly  # noqa: F401  (before torch)


# isort: split

import importlib
import importlib.abc
import importlib.machinery
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
import tyro
from _common import record

from oneword.concepts import formats
from oneword.concepts.concept import Concept
from oneword.concepts.formats.contents import FormatError


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write words for each tool and let the tool's own code read them."""

    checkouts: tuple[str, ...]
    """TOOL=PATH: a tool by its ``--to`` name, and the folder of its source."""
    json: Path | None = None
    """File for the table."""


WIDTHS = {"clip_l": 768, "clip_h": 1024, "clip_g": 1280, "t5xxl": 4096}
WORDS = {
    "Stable Diffusion 1": ("clip_l",),
    "Stable Diffusion 2": ("clip_h",),
    "SDXL": ("clip_l", "clip_g"),
    "Flux": ("clip_l", "t5xxl"),
    "LDM": ("clip_g",),  # as wide as the paper's BERT
}
STEM = "my-cat"


def rows(encoder: str, num: int) -> torch.Tensor:
    """The rows of a made-up word."""
    generator = torch.Generator().manual_seed(WIDTHS[encoder] + num)
    return torch.randn((num, WIDTHS[encoder]), generator=generator)


# --- stand-ins for what a loader's file imports and does not need


class _Empty(ModuleType):
    """A module in which every name is there: a class to inherit from, or something to call."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value: Any = type(name, (), {}) if name[0].isupper() else MagicMock(name=name)
        setattr(self, name, value)
        return value


class _Nothing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules that do nothing: those below ``packages``, but for ``real`` ones."""

    def __init__(self, packages: Sequence[str], real: Sequence[str]) -> None:
        self.packages, self.real = packages, real

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        del path, target
        below = any(name == p or name.startswith(f"{p}.") for p in self.packages)
        needed = any(name == r or r.startswith(f"{name}.") for r in self.real)
        if not below or needed:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> Any:
        return _Empty(spec.name)

    def exec_module(self, module: Any) -> None:
        pass


# --- the loaders; each reads a file and gives the rows it found, by encoder


Found = Mapping[str, torch.Tensor]


def _a1111(file: Path, encoders: Sequence[str]) -> Found:
    safe = importlib.import_module("modules.safe")
    # the web UI reads every file through it
    torch.load = safe.load  # noqa: TID251
    shared = importlib.import_module("modules.shared")
    shared.cmd_opts.disable_safe_unpickle = False
    importlib.import_module("modules.devices").device = "cpu"
    module = importlib.import_module("modules.textual_inversion.textual_inversion")
    embedding = module.create_embedding_from_data(_pickled(file), file.stem, file.name)
    return _one_or_pair(embedding.vec, encoders)


def _pickled(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return importlib.import_module("safetensors.torch").load_file(file)
    data = torch.load(file, map_location="cpu")  # noqa: TID251  (the tool's own, see above)
    if data is None:
        raise ValueError("refused by safe.py")
    return data


def _forge(file: Path, encoders: Sequence[str]) -> Found:
    module = importlib.import_module("backend.text_processing.textual_inversion")
    database = module.EmbeddingDatabase(lambda _texts, **_: {"input_ids": [[1, 2, 3]]})
    database.load_from_file(str(file), file.name)
    return _one_or_pair(database.word_embeddings[file.stem].vec, encoders)


def _one_or_pair(vec: Any, encoders: Sequence[str]) -> Found:
    return vec if isinstance(vec, dict) else {encoders[0]: vec}


def _comfyui(file: Path, encoders: Sequence[str]) -> Found:
    module = importlib.import_module("comfy.sd1_clip")
    found = {}
    for encoder in encoders:
        width = WIDTHS[encoder]
        if encoder == "t5xxl":  # its tokenizer finds words with the same function
            loaded = module.load_embed(file.stem, str(file.parent), width, encoder)
            found[encoder] = loaded.reshape(-1, loaded.shape[-1])
            continue
        tokenizer = module.SDTokenizer(
            embedding_directory=str(file.parent), embedding_size=width, embedding_key=encoder
        )
        (tokens,) = tokenizer.tokenize_with_weights(f"a photo of embedding:{file.stem} here")
        found[encoder] = torch.stack([t for t, _ in tokens if isinstance(t, torch.Tensor)])
    return found


def _kohya(file: Path, encoders: Sequence[str]) -> Found:
    if len(encoders) == 1:
        module = importlib.import_module("train_textual_inversion")
        (loaded,) = module.TextualInversionTrainer.load_weights(MagicMock(), str(file))
        return {encoders[0]: loaded}
    module = importlib.import_module("sdxl_train_textual_inversion")
    trainer = module.SdxlTextualInversionTrainer
    return dict(
        zip(("clip_l", "clip_g"), trainer.load_weights(MagicMock(), str(file)), strict=True)
    )


def _invokeai(file: Path, encoders: Sequence[str]) -> Found:
    kinds = importlib.import_module("invokeai.backend.model_manager.configs.textual_inversion")
    disk = SimpleNamespace(
        path=file, weight_files=lambda: {file}, load_state_dict=lambda _path=None: _pickled(file)
    )
    base = {"clip_l": "SD1", "clip_h": "SD2"}[encoders[0]] if len(encoders) == 1 else "SDXL"
    kind = getattr(kinds, f"TI_File_{base}_Config")
    if not kind._file_looks_like_embedding(disk):
        raise ValueError("does not look like an embedding")
    kind._validate_base(disk)
    module = importlib.import_module("invokeai.backend.textual_inversion")
    loaded = module.TextualInversionModelRaw.from_checkpoint(file)
    found = {encoders[-1]: loaded.embedding}
    return found | ({encoders[0]: loaded.embedding_2} if len(encoders) == 2 else {})


def _onetrainer(file: Path, encoders: Sequence[str]) -> Found:
    mixin = importlib.import_module("modules.modelLoader.mixin.EmbeddingLoaderMixin")
    model = SimpleNamespace(embedding_state_dicts={})
    name = SimpleNamespace(uuid="word", model_name=str(file))
    names = SimpleNamespace(all_embedding=lambda: [name])
    mixin.EmbeddingLoaderMixin()._load(model, str(file.parent), names)
    # the setup makes the model's embedding of what was read; its model stands here with nothing but
    # embeddings to ask for their dtype
    kind = "StableDiffusion" if len(encoders) == 1 else {"clip_g": "StableDiffusionXL"}.get(
        encoders[1], "Flux"
    )  # fmt: skip
    module = importlib.import_module(f"modules.modelSetup.Base{kind}Setup")
    kept: list[torch.Tensor] = []
    setattr(
        module, f"{kind}ModelEmbedding",
        lambda _uuid, *values: kept.extend(v for v in values if isinstance(v, torch.Tensor)),
    )  # fmt: skip
    layer = torch.nn.Embedding(1, 1)
    encoder = SimpleNamespace(get_input_embeddings=lambda: layer)
    for part in ("text_encoder", "text_encoder_1", "text_encoder_2"):
        setattr(model, part, encoder)
    for part in ("tokenizer", "tokenizer_1", "tokenizer_2"):
        setattr(model, part, None)
    for part in ("all_text_encoder_embeddings", "all_text_encoder_1_embeddings",
                 "all_text_encoder_2_embeddings"):  # fmt: skip
        setattr(model, part, list)
    setup = MagicMock(train_device=torch.device("cpu"))
    config = MagicMock()
    config.all_embedding_configs.return_value = [SimpleNamespace(
        uuid="word", placeholder="x", is_output_embedding=False)]  # fmt: skip
    getattr(module, f"Base{kind}Setup")._setup_embeddings(setup, model, config)
    return dict(zip(encoders, kept, strict=True))


def _authors(file: Path, encoders: Sequence[str]) -> Found:
    module = importlib.import_module("ldm.modules.embedding_manager")
    manager = module.EmbeddingManager.__new__(module.EmbeddingManager)
    torch.nn.Module.__init__(manager)
    manager.load(str(file))
    # it replaces the sign's place in a sentence by the rows
    sign = int(next(iter(manager.string_to_token_dict.values())))
    width, num = WIDTHS[encoders[0]], len(rows(encoders[0], _num_rows(file)))
    manager.max_vectors_per_token, manager.progressive_words = num, False
    manager.progressive_counter = 0
    ids = torch.tensor([[7, sign, *[8] * 14]])
    replaced = manager(ids, torch.zeros((1, 16, width)))
    return {encoders[0]: replaced[0, 1 : 1 + num]}


def _num_rows(file: Path) -> int:
    return int(file.parent.name)


@dataclass(frozen=True)
class Tool:
    """A tool's loader, and what its file imports without need."""

    load: Callable[[Path, Sequence[str]], Found]
    packages: tuple[str, ...] = ()
    """Packages whose modules are stand-ins."""
    real: tuple[str, ...] = field(default=())
    """Modules of theirs that are not."""


TOOLS = {
    "comfyui": Tool(_comfyui, ("comfy",), ("comfy.sd1_clip",)),
    "a1111": Tool(
        _a1111, ("modules",), ("modules.safe", "modules.textual_inversion.textual_inversion"),
    ),
    "forge": Tool(_forge),
    "kohya": Tool(
        _kohya, ("library", "toml"), ("train_textual_inversion", "sdxl_train_textual_inversion"),
    ),
    "invokeai": Tool(
        _invokeai,
        ("invokeai", "compel", "onnxruntime", "gguf", "picklescan"),
        ("invokeai.backend.model_manager.configs.textual_inversion",
         "invokeai.backend.textual_inversion", "invokeai.backend.raw_model",
         "invokeai.backend.model_manager.taxonomy",
         "invokeai.backend.model_manager.configs.identification_utils"),
    ),
    "onetrainer": Tool(
        _onetrainer, ("modules", "mgds"),
        ("modules.modelLoader.mixin.EmbeddingLoaderMixin",
         "modules.modelSetup.BaseStableDiffusionSetup",
         "modules.modelSetup.BaseStableDiffusionXLSetup", "modules.modelSetup.BaseFluxSetup"),
    ),
    "authors": Tool(_authors, ("ldm",), ("ldm.modules.embedding_manager",)),
}  # fmt: skip


# --- the table


Written = tuple[Path, tuple[str, ...]]
"""A file, and the text encoders that its word has rows for."""


def _child(name: str, checkout: str, written: Sequence[Written], to: Any) -> None:
    """Let the tool read its files, and compare."""
    tool = TOOLS[name]
    os.chdir(checkout)
    sys.path.insert(0, checkout)
    sys.argv = [name]
    sys.meta_path.insert(0, _Nothing(tool.packages, tool.real))
    for file, encoders in written:
        try:
            found = tool.load(file, encoders)
            differing = [
                encoder
                for encoder in encoders
                if not torch.equal(found[encoder].detach(), rows(encoder, _num_rows(file)))
            ]
            to.send(f"other rows: {', '.join(differing)}" if differing else "the same rows")
        except Exception as error:  # whatever a tool's loader says
            to.send(f"refused: {type(error).__name__}: {error}")


def read(name: str, checkout: Path, written: Sequence[Written]) -> Iterator[str]:
    """What the tool makes of each file, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(name, str(checkout.resolve()), written, theirs))
    process.start()
    theirs.close()
    for _ in written:
        try:
            yield ours.recv()
        except EOFError:
            yield "refused: its process died"
    process.join()


def commit(checkout: Path) -> str:
    """A checkout's commit and date; empty if it is no repository."""
    done = subprocess.run(
        ["git", "-C", str(checkout), "log", "-1", "--format=%h %cs"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip()


def main() -> int:
    """Run the command line."""
    arguments = tyro.cli(Arguments, description=__doc__)
    checkouts = dict(pair.partition("=")[::2] for pair in arguments.checkouts)
    unknown = [name for name in checkouts if name not in TOOLS]
    if unknown:
        print(f"A tool must be one of {', '.join(TOOLS)}, got {unknown[0]!r}.", file=sys.stderr)
        return 2
    table: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, checkout in checkouts.items():
            layout: Any = name
            lines: list[dict[str, Any]] = []
            written: list[Written] = []
            for model, encoders in WORDS.items():
                for num in (1, 3):
                    path = Path(folder, name, "-".join(encoders), str(num))
                    path.mkdir(parents=True)
                    word = Concept(
                        placeholder_token="<my-cat>",
                        rows={encoder: rows(encoder, num) for encoder in encoders},
                    )
                    file = path / f"{STEM}{formats.WRITERS[layout][0]}"
                    try:
                        written.append((formats.save_concept(word, file, layout)[0], encoders))
                        answer = ""
                    except FormatError as error:
                        answer = f"not written: {error}"
                    lines.append({"model": model, "rows": num, "answer": answer})
            answers = read(name, Path(checkout), written)
            for line in lines:
                line["answer"] = line["answer"] or next(answers)
                row = {"tool": name, "commit": commit(Path(checkout))} | line
                table.append(row)
                print("  ".join(str(value) for value in row.values()), flush=True)
    record(arguments.json, model=None, table=table)
    return int(any(row["answer"].startswith(("refused", "other")) for row in table))


if __name__ == "__main__":
    sys.exit(main())
