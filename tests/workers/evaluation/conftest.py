from tests.support.evaluation import base, folder, pool, resident  # noqa: F401  (fixtures)
from tests.support.threads import one_thread  # noqa: F401  (a fixture)
