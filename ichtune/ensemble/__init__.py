"""Predictions in, Predictions out: blenders, cross-fitted scores and the ladder, without torch or Ray."""
