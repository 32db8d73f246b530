"""To be imported first: garbage is not looked for while libraries and tests are imported.

What they leave stays to the end, a million objects, and every full look through them takes half a
second.
"""

from __future__ import annotations

import gc


gc.disable()


def look() -> None:
    """Look for garbage from now on, not too often, and only among what is made from now on."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()
