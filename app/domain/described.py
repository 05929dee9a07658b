"""Reports say of themselves what their members mean."""

from typing import ClassVar


class Described:
    """A dataclass whose fields' docstrings are their descriptions in the JSON Schema. The name of
    the attribute is pydantic's, which reads it where schemas are made."""

    __pydantic_config__: ClassVar[dict[str, bool]] = {"use_attribute_docstrings": True}
