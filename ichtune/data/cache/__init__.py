"""The HU cache: slices resized or cropped, packed into shards, built in parallel, read by row."""
