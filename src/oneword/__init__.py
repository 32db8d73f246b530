"""oneword: teach a frozen text-to-image model one new word from three to five pictures.

The public names are those of ``__init__.pyi``; each is loaded when it is first used, so that
``import oneword`` takes no time.
"""

from __future__ import annotations

import lazy_loader

from oneword._version import __version__ as __version__


__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
