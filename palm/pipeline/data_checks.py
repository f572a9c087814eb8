"""What can be seen to be wrong with the section `data` of a configuration before anything is read."""

import dataclasses

from palm.data import personalllm
from palm.data.planted import check_world
from palm.pipeline.config import ConfigError, DataConfig
from palm.pipeline.data_stages import PLANTED


def check_data(data: DataConfig) -> None:
    """See that the source and what is asked of it go together.

    Raises:
        ConfigError: they do not; the message names the key.
    """
    if not data.source:
        raise ConfigError(
            f"data.source: expected a file of pairs, a data set's id on the Hub, or {PLANTED!r} for the embedded world; got nothing"
        )
    if data.source == PLANTED:
        try:
            check_world(**dataclasses.asdict(data.planted))
        except ValueError as error:
            raise ConfigError(f"data.planted.{error}") from error
    if data.draw.users and data.source == PLANTED:
        raise ConfigError("data.draw.users: expected a source of scored responses, got 'planted', which has users of its own")
    if data.draw.users and (data.columns or data.drop_invalid):
        raise ConfigError("data.columns, data.drop_invalid: expected neither with data.draw.users: scored responses have a schema")
    if data.source == personalllm.SOURCE and not data.draw.users:
        raise ConfigError(f"data.draw.users: expected how many users to draw over the scores of {data.source}, got 0")
