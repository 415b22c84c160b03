"""Sentences of the synthetic corpus: original English sentences of 3 to 14 words.

The words carry little emotion, so a model has to recognise emotion from the voice. Together the sentences contain every
English phoneme in many contexts, with many bilabials, labiodentals and rounded vowels, which show best on the lips.
"""

from importlib.resources import files

SENTENCES = tuple(files(__package__).joinpath("sentences.txt").read_text(encoding="utf-8").splitlines())
