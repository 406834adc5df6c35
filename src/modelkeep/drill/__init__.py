"""Recovery as numbers: objectives, measures, and what they come to."""
