"""``oneword microworld codebook``: rows for the landed autoencoder's latents."""

from __future__ import annotations

from collections.abc import Sequence

from oneword.cli import options, screen
from oneword.cli.arguments import CodebookArguments
from oneword.config.model import CARD, EMBEDDED, is_embedded
from oneword.errors import ConfigError
from oneword.microworld import weights
from oneword.microworld.making import codebook


def run(arguments: CodebookArguments, _words: Sequence[str]) -> int:
    """Make the codebook, and say how much of a picture it keeps."""
    name = str(arguments.model)
    if not is_embedded(name):
        raise ConfigError(
            f"The embedded model must be {' or '.join(EMBEDDED)}, or the folder of one with a "
            f"{CARD}, got {name}."
        )
    with screen.counting("encoding") as show:
        path = codebook.make(name, seed=arguments.seed, on_picture=show)
    found = weights.card(name)["codebook"]
    of = found["psnr_db"]
    options.tell(
        f"{found['rows']} codes from {found['pictures']} pictures are in {path}. Unseen pictures "
        f"are reconstructed with a PSNR of {of['quantised']:.1f} dB; the autoencoder alone "
        f"reaches {of['autoencoder']:.1f} dB."
    )
    return 0
