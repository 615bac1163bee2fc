"""What is saved with a model by the arguments that made it: schedules, objectives, weightings."""


class Configured:
    """Saved by what `get_config` returns, and made again from it. Register what derives from it."""

    def get_config(self):
        """Return the arguments that make an equal one."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Make it again from what `get_config` returned."""
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{name}={value}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"
