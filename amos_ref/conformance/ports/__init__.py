"""How the judge drives somebody's code: one file a kind of port."""
