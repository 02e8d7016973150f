"""WaveNet: raw audio, one sample after the other, each from all that a stack of dilated convolutions sees.

>>> settings = SETTINGS["small"]
>>> settings.receptive_field, settings.milliseconds
(2048, 128.0)
"""

from faltung.models.wavenet.causality import Causality, causality
from faltung.models.wavenet.compose import compose, network, upsampling
from faltung.models.wavenet.generate import expected, generate
from faltung.models.wavenet.model import WaveNet
from faltung.models.wavenet.mulaw import decode, encode
from faltung.models.wavenet.settings import SETTINGS, Context, Settings, find_settings

__all__ = [
    "SETTINGS",
    "Causality",
    "Context",
    "Settings",
    "WaveNet",
    "causality",
    "compose",
    "decode",
    "encode",
    "expected",
    "find_settings",
    "generate",
    "network",
    "upsampling",
]
