"""Networks: architectures, losses, files with their cards, and the names they are known by."""
