"""Scores: what predictions of unseen patients are worth, and how sure that is."""
