"""No training: the word is what an encoder makes from the pictures."""

from __future__ import annotations

from oneword.training.extensions.captions import words
from oneword.training.parts import Form, rows_of_initializer


FORM = Form(rows=rows_of_initializer, words=words)
"""An encoder's rows, which do not change.

Source:
    Gal et al. 2022, arXiv:2208.01618, section 6, where it is named as future work.
"""
