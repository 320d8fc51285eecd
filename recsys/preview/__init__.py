"""What would change? Recent requests replayed through the real pipeline under the active and the draft policy, paired.

`study` what is replayed and its tasks · `variants` a policy with one control less, or weaker and stronger · `shown` one
page boiled down · `resample` intervals without chance · `offpolicy` what the log itself can say · `tally` sums as
results come in · `report` the figures. Everything here is predicted by the model, not caused: viewers who see other
pages will act, and be remembered, otherwise.
"""
