"""Deep ensembles under attack, by number of members."""
