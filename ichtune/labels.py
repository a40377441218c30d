"""The six labels, their one order, and the weights that the competition's metric gives them.

Source: RSNA Intracranial Hemorrhage Detection (2019), evaluation page: ``any`` counts twice.
"""

SUBTYPES: tuple[str, ...] = (
    "epidural",
    "intraparenchymal",
    "intraventricular",
    "subarachnoid",
    "subdural",
)
ANY = "any"
LABELS: tuple[str, ...] = (ANY, *SUBTYPES)
N_LABELS = len(LABELS)
METRIC_WEIGHTS: tuple[float, ...] = (2.0, 1.0, 1.0, 1.0, 1.0, 1.0)
