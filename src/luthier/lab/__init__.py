"""The textbook's claims, re-run on real data: one module per experiment, and what all of them share."""
