"""The four applications: their data, held-out designs, networks and the methods that they must beat."""
