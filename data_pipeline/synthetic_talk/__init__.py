"""Emotional speech with known facial motion, made from nothing: no recording and no licence is needed."""
