"""R→R transforms: rotations and selections of coordinates. One file each; found by the registry."""
