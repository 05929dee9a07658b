"""What jobs are of, and what they must give: as where faults are tested one by one."""

from tests.faults.conftest import undisturbed as undisturbed
from tests.faults.conftest import world as world
