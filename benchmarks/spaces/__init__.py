"""Published search spaces, spelled out as graphs."""
