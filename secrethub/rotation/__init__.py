"""When secrets are rotated, and in which steps. Pure: no IO, no clock."""
