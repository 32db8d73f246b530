"""``oneword microworld codebook``: rows for the landed autoencoder's latents."""

from __future__ import annotations

from collections.abc import Sequence

from oneword.cli import options, screen
from oneword.cli.arguments import CodebookArguments
from oneword.microworld import weights
from oneword.microworld.making import codebook


def run(arguments: CodebookArguments, _words: Sequence[str]) -> int:
    """Make the codebook, and say how much of a picture it keeps."""
    with screen.counting("encoding") as show:
        path = codebook.make(arguments.model, seed=arguments.seed, on_picture=show)
    found = weights.card(arguments.model)["codebook"]
    of = found["psnr_db"]
    options.tell(
        f"{found['rows']} codes from {found['pictures']} pictures are in {path}. Unseen pictures "
        f"are reconstructed with a PSNR of {of['quantised']:.1f} dB; the autoencoder alone "
        f"reaches {of['autoencoder']:.1f} dB."
    )
    return 0
