"""All targets, in the order in which they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.avro_records import BARE, FRAMED
from fuzz.avro_schemas import AVRO_SCHEMA
from fuzz.configurations import CONFIG_SHOW, CONFIGURATION, ONE_SETTING
from fuzz.dead_letters import DEAD_LETTERS, HEADERS
from fuzz.json_records import JSON, TEXT
from fuzz.short_texts import LOG_LINE, METADATA, MOMENT, START

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fuzz.target import Target

TARGETS: Mapping[str, Target] = {
    one.name: one
    for one in (
        JSON,
        TEXT,
        BARE,
        FRAMED,
        AVRO_SCHEMA,
        DEAD_LETTERS,
        HEADERS,
        CONFIGURATION,
        ONE_SETTING,
        CONFIG_SHOW,
        START,
        MOMENT,
        METADATA,
        LOG_LINE,
    )
}
