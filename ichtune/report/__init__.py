"""What people read in the end: submission, scores, the HTML page."""
