"""Networks: ours, and timm's by name."""
