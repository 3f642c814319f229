"""Z→bytes coders. One file each; found by the registry."""
