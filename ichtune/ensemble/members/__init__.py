"""Members: predictions of runs and of foreign tables, joined by image_id and checked before any blend."""
