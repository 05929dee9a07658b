"""A safety world that is made in under a minute, for tests."""

from app.demo.safety_world.language import Language
from app.demo.safety_world.world import Effort

LANGUAGE = Language(0, dangerous_things=24, harmless_things=48)
EFFORT = Effort(base_steps=300, chat_steps=100, adapter_steps=60)
