"""A network for devices without Python: an object file, a header, an example, and a manifest of them."""
