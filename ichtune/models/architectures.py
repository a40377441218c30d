"""ARCHITECTURES: networks written here, beside every network that timm knows by name."""

from collections.abc import Callable

from torch import nn

from ichtune.models.tiny_convnet import TinyConvNet

#: Builders called with (in_chans, num_classes, drop_rate). Any other name is looked up in timm.
ARCHITECTURES: dict[str, Callable[[int, int, float], nn.Module]] = {
    "tiny_convnet": lambda in_chans, num_classes, drop_rate: TinyConvNet(in_chans, num_classes, 8, drop_rate),
    "small_convnet": lambda in_chans, num_classes, drop_rate: TinyConvNet(in_chans, num_classes, 16, drop_rate),
}
