"""What attention does: gates of any network watched, covered, removed, and tested on pictures with known answers."""
