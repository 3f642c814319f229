"""R→Z and R→bytes quantizers. One file each; found by the registry."""
