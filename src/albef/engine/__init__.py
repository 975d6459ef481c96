"""A model directory for users, in three parts: preparing inputs, the loaded model, and the methods that users call."""

from albef.data.images import ImageInput as ImageInput
from albef.engine.engine import Engine as Engine
from albef.engine.engine import Grounding as Grounding
from albef.engine.loaded import IMAGES_AT_ONCE as IMAGES_AT_ONCE
from albef.engine.loaded import TEXTS_AT_ONCE as TEXTS_AT_ONCE
from albef.engine.loaded import choose_device as choose_device
from albef.engine.loaded import log_odds as log_odds
from albef.engine.preparing import made_ahead as made_ahead
