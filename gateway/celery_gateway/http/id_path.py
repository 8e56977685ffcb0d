"""Ids in the paths of endpoints: any text, also with slashes and line breaks (``%2F``, ``%0A``).

Celery does not restrict the ids of tasks, and the names of nodes. Starlette's ``path`` has no line breaks.
"""

from typing import Final

from starlette.convertors import PathConvertor, register_url_convertor

_NAME: Final = "celery_gateway_id"


class _IdConvertor(PathConvertor):
    """Converts an id, which is the text itself."""

    regex = r"(?s:.*)"


register_url_convertor(_NAME, _IdConvertor())


def id_path(parameter: str) -> str:
    """Return the part of a route's path that is an id, with the name of its parameter."""
    return f"{{{parameter}:{_NAME}}}"
