"""Models beside helpers.GenModel, how each is trained, and how they are stored."""
