"""What helpers.py stands on, and what checks and shows the series. It imports nothing else of the project."""
