"""Training and cross-validation of one recipe; knows nothing of search."""
