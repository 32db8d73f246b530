"""An encoder that maps pictures of a thing to its word at once.

Gal et al. 2022, arXiv:2208.01618, section 6, name it as future work: "learning an encoder to
directly map a set of images to their textual embedding".
"""
