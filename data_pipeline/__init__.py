"""Datasets of speech with facial motion: how they are built, found and fed to training and evaluation."""
