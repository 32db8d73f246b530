"""What the embedded model's world holds, as plain data and as drawings."""
