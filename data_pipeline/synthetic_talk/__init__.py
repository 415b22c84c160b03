"""Synthetic corpus of emotional speech with known facial motion; it needs no recordings and no licence."""
