"""What the synthetic speakers say: original English sentences of 3 to 14 words.

The words carry little emotion of their own, so that emotion has to be heard in the voice. Between them the
sentences hold every English phoneme in many contexts, with extra bilabials, labiodentals and rounded vowels.
"""

from importlib.resources import files

SENTENCES = tuple(files(__package__).joinpath("sentences.txt").read_text(encoding="utf-8").splitlines())
