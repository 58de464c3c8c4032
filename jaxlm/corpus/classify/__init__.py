"""Models that judge text: hashed linear classifiers, n-gram models, and other people's."""
