"""A room's report: one HTML file with plots, decisions, delay chains, costs and answers, all from the log."""
