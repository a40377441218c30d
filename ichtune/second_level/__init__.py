"""The second level: models that learn from other runs' out-of-fold predictions, slices in the order of their series."""
