"""ARCHITECTURES: networks written here, beside every network that timm knows by name."""

from collections.abc import Callable
from functools import partial

from ichtune.models.backbone import Backbone
from ichtune.models.tiny_convnet import TinyConvNet
from ichtune.models.xresnet import XResNet

#: Builders called with (in_chans, num_classes, drop_rate). Any other name is looked up in timm.
ARCHITECTURES: dict[str, Callable[[int, int, float], Backbone]] = {
    "tiny_convnet": lambda in_chans, num_classes, drop_rate: TinyConvNet(in_chans, num_classes, 8, drop_rate),
    "small_convnet": lambda in_chans, num_classes, drop_rate: TinyConvNet(in_chans, num_classes, 16, drop_rate),
    "xresnet50": XResNet,
    "xresnet50_attention": partial(XResNet, attention=True),
    "xresnet50_attention_sym": partial(XResNet, attention=True, symmetric=True),
}
