"""Whether a completion is right: by its text, its value, its steps, its tests, or a judge's word."""
