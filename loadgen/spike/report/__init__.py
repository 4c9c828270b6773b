"""A run's report: one HTML file with its verdict, figures and plots, made of its summary."""
