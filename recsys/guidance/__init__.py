"""Do we stand for it? Editors' policies, compiled to bounds on a page, solved, and reported in a receipt.

`policy` what editors say · `inherit` parents and children · `compile` policy x catalogue -> `bounds` of one page ·
`solver` the best page under them · `receipt` what it kept, moved and cost · `verify` the same, recomputed · `lint`.
"""
