"""Do we stand for it? Editors' policies, compiled to bounds on a page, solved, and reported in a receipt.

`policy` contains the schema of policies and their inheritance, `compilation` turns policies and the catalog into
constraints of a page, `solver` finds the best page under them, `receipt` reports and verifies the outcome, and `lint`
finds problems of a policy.
"""
