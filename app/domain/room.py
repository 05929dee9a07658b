"""Fair shares of the deliveries that one process has under way: a slow receiver, or a tenant with
many, holds up its own and nobody else's."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Room:
    """Counts deliveries under way against their bounds."""

    most: int = 32
    of_tenant: int = 8
    of_endpoint: int = 2
    tenants: Counter[str] = field(default_factory=Counter)
    endpoints: Counter[str] = field(default_factory=Counter)

    @property
    def free(self) -> int:
        return self.most - self.tenants.total()

    @property
    def full_tenants(self) -> list[str]:
        return [name for name, count in self.tenants.items() if count >= self.of_tenant]

    @property
    def full_endpoints(self) -> list[str]:
        return [name for name, count in self.endpoints.items() if count >= self.of_endpoint]

    def take(self, tenant: str, endpoint: str) -> bool:
        """Whether there is room for one more; then it is counted."""
        is_full = (
            self.free <= 0
            or self.tenants[tenant] >= self.of_tenant
            or self.endpoints[endpoint] >= self.of_endpoint
        )
        if is_full:
            return False
        self.tenants[tenant] += 1
        self.endpoints[endpoint] += 1
        return True

    def give_back(self, tenant: str, endpoint: str) -> None:
        self.tenants -= Counter([tenant])  # which forgets those that are at zero
        self.endpoints -= Counter([endpoint])

    def copy(self) -> "Room":
        own = (self.most, self.of_tenant, self.of_endpoint)
        return Room(*own, self.tenants.copy(), self.endpoints.copy())
