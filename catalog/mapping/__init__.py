"""The map of a space: places in the plane for unit vectors. Pure maths, arrays in and arrays out."""
