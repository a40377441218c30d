"""Proof that nothing straddles folds, or train and test."""
