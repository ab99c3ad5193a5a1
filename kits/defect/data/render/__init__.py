"""Metal parts under a camera: surface, light, damage, lens and sensor; truth in millimetres."""
