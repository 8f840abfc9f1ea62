"""Files of the kinds that people have: each frame carries its number, and the sound its time."""
