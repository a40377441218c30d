"""ichtune schema: the grammar of search spaces for editors."""

from collections.abc import Mapping, Sequence

from ichtune.cli.options import QuietOption


def schema(quiet: QuietOption = False) -> None:
    """Write the JSON Schema of search spaces, by which editors complete and check them.

    It is shipped as search_spaces/space.schema.json; a space whose first line is
    `# yaml-language-server: $schema=space.schema.json` is checked by it.

    Example: ichtune schema > space.schema.json
    """
    from ichtune.cli.console import note, result
    from ichtune.space.json_schema import schema_text, space_schema

    result(schema_text(space_schema(closed_names(), suggested_names())).removesuffix("\n"))
    note("next: ichtune search --space mine.yaml --dry-run", quiet)


def closed_names() -> Mapping[str, Sequence[str]]:
    """Return for each key that names an entry of a table the names in it; there are no others."""
    from ichtune.search.schedulers import SCHEDULERS
    from ichtune.search.searchers import SEARCHERS
    from ichtune.training.losses import LOSSES
    from ichtune.training.lr_schedules import LR_SCHEDULES
    from ichtune.training.optimizers import OPTIMIZERS
    from ichtune.training.tta import VIEWS

    tables: dict[str, Mapping[str, object]] = {
        "algorithm": SEARCHERS,
        "early_stop": SCHEDULERS,
        "loss": LOSSES,
        "optimizer": OPTIMIZERS,
        "lr_schedule": LR_SCHEDULES,
        "tta": VIEWS,
    }
    return {key: tuple(table) for key, table in tables.items()}


def suggested_names() -> Mapping[str, Sequence[str]]:
    """Return names for keys that may name something else as well, as any network of timm."""
    from ichtune.data.augment import AUGMENTATIONS
    from ichtune.models.architectures import ARCHITECTURES

    return {"architecture": tuple(ARCHITECTURES), "augmentation": tuple(AUGMENTATIONS)}
