"""Names that the trials, the scheduler and the searcher must agree on."""

#: What trials report and the scheduler judges by: the metric on the held-out fold, in nats.
METRIC = "val_weighted_log_loss"
#: The unit of a trial's progress; not Ray's own iteration count, which restarts with an actor.
TIME_ATTR = "epoch"
