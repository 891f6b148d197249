"""Hardware-aware search: spaces of networks, limits that hold before any training, and who is looked at next."""
