"""What a recipe's names and numbers must be, checked before any time is spent."""

from collections.abc import Callable

from ichtune.data.augment import find_augmentation
from ichtune.models.create import check_architecture
from ichtune.models.network import create_network
from ichtune.recipe import Recipe
from ichtune.training.device_augment import check_augmentation
from ichtune.training.losses import find_loss
from ichtune.training.lr_schedules import find_lr_schedule
from ichtune.training.optimizers import check_optimizer, find_optimizer
from ichtune.training.tta import find_views

#: For each recipe key that names an entry of a table, what raises ``ConfigError`` for a name that is not there.
NAME_CHECKS: dict[str, Callable[[str], object]] = {
    "architecture": check_architecture,
    "loss": find_loss,
    "optimizer": find_optimizer,
    "lr_schedule": find_lr_schedule,
    "augmentation": find_augmentation,
    "tta": find_views,
}


def check_recipe(recipe: Recipe) -> None:
    """Raise ``ConfigError`` now for a name that no table knows, and for keys that do not go together."""
    for key, check in NAME_CHECKS.items():
        check(getattr(recipe, key))
    check_optimizer(recipe)
    check_augmentation(recipe)


def check_weights(recipe: Recipe) -> None:
    """Build the recipe's pretrained network once, so that weights that are not there are missed before time is spent.

    Raises:
        DataError: they are neither in the hub cache nor at the path; the message names what can be done.
        ConfigError: the network cannot be built.
    """
    if recipe.pretrained is not False:
        create_network(recipe)
