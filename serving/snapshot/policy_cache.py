"""Cache of compiled policies. If a new policy cannot be used, the last good policy of the outlet stays in service."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from features.control.rows import PublishedPolicy
from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding, PolicyError
from recsys.domain.regions import ancestry, within
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.guidance.policy.policy import Policy
from recsys.messages import Message, as_message, message
from serving.snapshot.profiles import read_policy

log = logging.getLogger("mainstay.serving")

_CompileCache = dict[tuple[tuple[str, int], ...], CompiledPolicy]


class PolicyCache:
    """The own policy of each outlet, and its compiled combination with those of the ancestors.

    faults  outlet -> reason why its newest policy is not in service
    closed  outlets with a published policy that never had a usable one; they get editorial pages only
    """

    def __init__(self) -> None:
        self.faults: dict[str, Message] = {}
        self.closed: set[str] = set()
        self._own: dict[str, Policy] = {}
        self._invalid: dict[str, Message] = {}
        self._last_usable: dict[str, tuple[Policy, ...]] = {}

    def put(self, published: PublishedPolicy) -> None:
        """Add a published policy. If it cannot be read, the previous policy stays in service."""
        try:
            policy = read_policy(published.text, stored=True)
        except Exception as error:  # guidance fails closed for any fault
            self._invalid[published.outlet] = message(
                "policy_version_unusable", version=published.version, problem=_problem(error)
            )
            log.error("policy of %s: version %s cannot be read: %s", published.outlet, published.version, error)
            return
        self._invalid.pop(published.outlet, None)
        identity = {"outlet": published.outlet, "version": published.version}
        self._own[published.outlet] = policy.model_copy(update=identity)

    def own_policy(self, outlet: str) -> Policy | None:
        """Return the own policy of the outlet, or None."""
        return self._own.get(outlet)

    def below(self, outlet: str) -> tuple[str, ...]:
        """Return the outlets below an outlet that have a policy, the one with most controls first."""
        codes = [code for code in self._own if code != outlet and within(code, outlet)]
        return tuple(sorted(codes, key=lambda code: (-len(self._own[code].controls), code)))

    def chain(self, outlet: str) -> tuple[Policy, ...]:
        """Return the policies that apply to an outlet, root first."""
        return tuple(self._own[code] for code in ancestry(outlet) if code in self._own)

    def compiled(self, outlets: Iterable[str], catalog: Catalog) -> Mapping[str, CompiledPolicy]:
        """Return the compiled policy of each outlet for this catalog; outlets with the same policies share it."""
        cache: _CompileCache = {}
        unusable: set[str] = set()
        compiled: dict[str, CompiledPolicy] = {}
        self.faults = dict(self._invalid)
        for outlet in outlets:
            chain = self.chain(outlet)
            try:
                compiled[outlet] = _compile(chain, catalog, cache)
                self._last_usable[outlet] = chain
            except Exception as error:  # also unexpected faults, which must not first occur on a page
                self._fault(outlet, error, "the last good version stays in service")
                compiled[outlet] = self._last_good(outlet, catalog, cache, unusable)
        self.closed = unusable | {o for o in compiled if any(self._never_good(code) for code in ancestry(o))}
        return compiled

    def _last_good(self, outlet: str, catalog: Catalog, cache: _CompileCache, unusable: set[str]) -> CompiledPolicy:
        """Return the last good policy for this catalog. If it cannot be used either, add the outlet to `unusable`."""
        try:
            return _compile(self._last_usable.get(outlet, ()), catalog, cache)
        except Exception as error:
            self._fault(outlet, error, "and the last good version does not fit the catalog; serving editorial pages")
            unusable.add(outlet)
            return _compile((), catalog, cache)

    def _fault(self, outlet: str, error: Exception, consequence: str) -> None:
        fault = message("policy_not_in_service", problem=_problem(error))
        self.faults.setdefault(outlet, fault)
        log.error("policy of %s cannot be compiled; %s: %s", outlet, consequence, fault)

    def _never_good(self, outlet: str) -> bool:
        """Return whether a policy was published for this outlet but none was ever usable."""
        is_published = outlet in self._own or outlet in self._invalid
        was_used = any(policy.outlet == outlet for policy in self._last_usable.get(outlet, ()))
        return outlet in self.faults and is_published and not was_used


def _problem(error: Exception) -> list[Message]:
    """Return an error as parts of a message."""
    if not isinstance(error, PolicyError):
        return [as_message(f"{type(error).__name__}: {error}")]
    findings = (message("finding_at", where=f.where, finding=as_message(f.text)) for f in error.findings)
    return [error.text, *findings]


def _compile(chain: tuple[Policy, ...], catalog: Catalog, cache: _CompileCache) -> CompiledPolicy:
    """Return the compiled policy after a smoke test. Raises PolicyError and any error of the smoke test."""
    key = tuple((policy.outlet, policy.version) for policy in chain)
    if key not in cache:
        policy = compile_policy(chain, catalog)
        policy.smoke_test()
        cache[key] = policy
    return cache[key]


def check(chain: Sequence[Policy], catalog: Catalog) -> None:
    """Raise PolicyError if no page can be made under these policies, which are a policy and its ancestors."""
    try:
        compile_policy(chain, catalog).smoke_test()
    except PolicyError:
        raise
    except Exception as error:
        problem = message("policy_makes_no_page", problem=f"{type(error).__name__}: {error}")
        raise PolicyError(message("policy_unusable"), [Finding("", problem)]) from error
