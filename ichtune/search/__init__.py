"""Search over recipes; the only room that speaks Ray and Optuna."""
