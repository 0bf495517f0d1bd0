"""The errors that a caller may want to catch. Each message names the value, the rule and the next move."""


class CurriculumError(Exception):
    """Root of every error that this library raises on purpose.

    >>> from curriculum_sampler import Stage
    >>> try:
    ...     Stage("easy", {"easy": 1}, steps=0)
    ... except CurriculumError as error:
    ...     print(error)
    Stage 'easy': got steps=0, but it is a whole number above 0. Correct it.
    """


class ArgumentError(CurriculumError, ValueError):
    """A value given by the caller breaks a rule. Nothing was changed.

    >>> issubclass(ArgumentError, ValueError)
    True
    """


class StateMismatchError(CurriculumError, ValueError):
    """A saved state cannot be honoured here: continuing would change the order of samples.

    >>> from curriculum_sampler import MixtureSampler, Stage, StageSchedule
    >>> plan = StageSchedule([Stage("easy", {"x": 1}, steps=9)]).plan({"x": 50}, batch_size=4)
    >>> MixtureSampler(plan, seed=18).load_state_dict(MixtureSampler(plan, seed=17).state_dict())
    Traceback (most recent call last):
    curriculum_sampler.errors.StateMismatchError: Sample order would differ: the state was made with seed 17, ...
    """


class StorageError(CurriculumError, OSError):
    """Bytes could not be read or written: the place, the attempt and the next move are named.

    >>> from curriculum_sampler import MemoryStorage
    >>> MemoryStorage("demo").stat("absent.tar")
    Traceback (most recent call last):
    curriculum_sampler.errors.AbsentError: memory://demo/absent.tar does not exist. Check the name, or write it first.
    >>> issubclass(StorageError, OSError)
    True
    """


class AbsentError(StorageError):
    """An object that should be there is not, or ends too early; the store itself was reached."""


class ShardError(CurriculumError):
    """A shard, its index or a sample in it is not what the manifest promises.

    >>> from curriculum_sampler import Manifest, open_storage
    >>> open_storage("memory://damaged").write("manifest.json", b"{")
    >>> Manifest.load("memory://damaged")
    Traceback (most recent call last):
    curriculum_sampler.errors.ShardError: memory://damaged/manifest.json is not JSON (...). Write or index the data set again.
    """


class BadSampleError(ShardError):
    """One sample cannot be used: damaged, undecodable, or in a shard that is. Its neighbours may be fine."""


class MissingExtraError(CurriculumError, ImportError):
    """An optional package is needed; the message holds the command that installs it.

    >>> from curriculum_sampler.extras import missing
    >>> print(missing("boto3", "s3"))
    This needs boto3, which is not installed. Run: pip install "curriculum-sampler[s3]"
    """
