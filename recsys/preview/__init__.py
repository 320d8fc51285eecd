"""Preview of a draft policy: recent requests replayed through the real pipeline under the active and the draft policy.

`study` defines the requests and tasks, `ablations` the variants of a policy, `page_summary` the figures of one page,
`aggregate` the sums over results, `bootstrap` the intervals, `offpolicy` the estimates from the log, and `report` the
output. All figures are predictions of the model, not causal effects: viewers who see other pages act differently.
"""
