"""docs/own_experiment.md works as it stands, from an empty folder; .ci/package asks the same of the wheel."""

import pytest
import smoke_runner


def test_the_script_of_the_page_is_short():
    assert len([line for line in smoke_runner.STEADY.splitlines() if line]) <= 45


@pytest.mark.slow
@pytest.mark.parametrize(
    "check", [smoke_runner.check_a_method_of_ones_own, smoke_runner.check_a_package_of_experiments]
)
def test_an_experiment_of_ones_own_is_run_and_opened(tmp_path, check):
    check(tmp_path)
