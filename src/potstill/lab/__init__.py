"""Experiments that come with the library, each runnable from a clone."""
