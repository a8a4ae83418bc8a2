"""What every part of the configuration shares: frozen, and unknown keys refused."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A config node. Its fields' docstrings are the only text about them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
