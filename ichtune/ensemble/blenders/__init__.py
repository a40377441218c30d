"""Blenders: every way of combining members into one, and the one that chooses among them."""
