import pytest

pytest.register_assert_rewrite("tests.support")  # so that an assertion of a helper that fails shows its values
