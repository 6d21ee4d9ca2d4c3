"""Objects that the whole process shares."""
