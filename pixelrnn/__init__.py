"""What the notes add to helpers.py, a folder for each subject."""
