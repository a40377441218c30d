"""Calibration and post-processing: steps after the blend, each applied only where unseen patients say that it helps."""
