"""The errors that a caller may want to catch. Each message names the value, the rule and the next move."""


class CurriculumError(Exception):
    """Root of every error that this library raises on purpose."""


class ArgumentError(CurriculumError, ValueError):
    """A value given by the caller breaks a rule. Nothing was changed."""


class StateMismatchError(CurriculumError, ValueError):
    """A saved state cannot be honoured here: continuing would change the order of samples."""


class StorageError(CurriculumError, OSError):
    """Bytes could not be read or written: the place, the attempt and the next move are named."""


class AbsentError(StorageError):
    """An object that should be there is not, or ends too early; the store itself was reached."""


class ShardError(CurriculumError):
    """A shard, its index or a sample in it is not what the manifest promises."""


class BadSampleError(ShardError):
    """One sample cannot be used: damaged, undecodable, or in a shard that is. Its neighbours may be fine."""


class MissingExtraError(CurriculumError, ImportError):
    """An optional package is needed; the message holds the command that installs it."""
