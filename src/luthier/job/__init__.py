"""The pipelines that join the rooms, and the run folders they write."""
