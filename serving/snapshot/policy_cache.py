"""The policies in force, parsed and compiled; keeps the last good one of each outlet when a new one cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from features.control.rows import PublishedPolicy
from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding, PolicyError
from recsys.domain.regions import ancestry
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.guidance.policy.policy import Policy
from recsys.messages import Message, as_message, message
from serving.snapshot.profiles import read_policy

log = logging.getLogger("mainstay.serving")

_CompileCache = dict[tuple[tuple[str, int], ...], CompiledPolicy]


class PolicyCache:
    """Every outlet's own policy, and for each outlet the compiled sum of its own and its ancestors'.

    faults  outlet -> why its newest policy is not the one in service
    closed  outlets that never had a usable policy although one was published: nothing but editorial pages there
    """

    def __init__(self) -> None:
        self.faults: dict[str, Message] = {}
        self.closed: set[str] = set()
        self._own: dict[str, Policy] = {}
        self._unreadable: dict[str, Message] = {}
        self._good: dict[str, tuple[Policy, ...]] = {}

    def put(self, published: PublishedPolicy) -> None:
        """Take a policy that was put in force; one that cannot be read leaves the last in service."""
        try:
            policy = read_policy(published.text)
        except Exception as error:  # whatever is wrong with it, guidance fails closed
            self._unreadable[published.outlet] = message(
                "policy_version_unusable", version=published.version, problem=_problem(error)
            )
            log.error("policy of %s, version %s cannot be read: %s", published.outlet, published.version, error)
            return
        self._unreadable.pop(published.outlet, None)
        said = {"outlet": published.outlet, "version": published.version}
        self._own[published.outlet] = policy.model_copy(update=said)

    def own_policy(self, outlet: str) -> Policy | None:
        """What the outlet itself says, if anything."""
        return self._own.get(outlet)

    def chain(self, outlet: str) -> tuple[Policy, ...]:
        """The policies that hold for an outlet, root first."""
        return tuple(self._own[code] for code in ancestry(outlet) if code in self._own)

    def compiled(self, outlets: Iterable[str], catalog: Catalog) -> Mapping[str, CompiledPolicy]:
        """The compiled policy of each outlet over this catalogue; outlets under the same policies share one."""
        done: _CompileCache = {}
        hopeless: set[str] = set()
        answer: dict[str, CompiledPolicy] = {}
        self.faults = dict(self._unreadable)
        for outlet in outlets:
            chain = self.chain(outlet)
            try:
                answer[outlet] = _compile(chain, catalog, done)
                self._good[outlet] = chain
            except Exception as error:  # also what no check foresaw: a page must never be the first to find it
                self._fault(outlet, error, "the last good one stays")
                answer[outlet] = self._last_good(outlet, catalog, done, hopeless)
        self.closed = hopeless | {o for o in answer if any(self._never_good(code) for code in ancestry(o))}
        return answer

    def _last_good(self, outlet: str, catalog: Catalog, done: _CompileCache, hopeless: set[str]) -> CompiledPolicy:
        """The last policy that could be used, over this catalogue; where it cannot any more, editorial pages only."""
        try:
            return _compile(self._good.get(outlet, ()), catalog, done)
        except Exception as error:
            self._fault(outlet, error, "nor does the last good one fit the catalogue: editorial pages answer")
            hopeless.add(outlet)
            return _compile((), catalog, done)

    def _fault(self, outlet: str, error: Exception, so: str) -> None:
        fault = message("policy_not_in_service", problem=_problem(error))
        self.faults.setdefault(outlet, fault)
        log.error("policy of %s cannot be compiled, %s: %s", outlet, so, fault)

    def _never_good(self, outlet: str) -> bool:
        """Whether something was published for this outlet and nothing of it could ever be used."""
        said = outlet in self._own or outlet in self._unreadable
        used = any(policy.outlet == outlet for policy in self._good.get(outlet, ()))
        return outlet in self.faults and said and not used


def _problem(error: Exception) -> list[Message]:
    """What is wrong, as parts of a message."""
    if not isinstance(error, PolicyError):
        return [as_message(f"{type(error).__name__}: {error}")]
    findings = (message("finding_at", where=f.where, finding=as_message(f.text)) for f in error.findings)
    return [error.text, *findings]


def _compile(chain: tuple[Policy, ...], catalog: Catalog, done: _CompileCache) -> CompiledPolicy:
    """Compiled and tried out. Raises PolicyError, and whatever making bounds raises."""
    key = tuple((policy.outlet, policy.version) for policy in chain)
    if key not in done:
        policy = compile_policy(chain, catalog)
        policy.smoke_test()
        done[key] = policy
    return done[key]


def check(chain: Sequence[Policy], catalog: Catalog) -> None:
    """Raises PolicyError when pages could not be made under the policies of this line."""
    try:
        compile_policy(chain, catalog).smoke_test()
    except PolicyError:
        raise
    except Exception as error:
        wrong = message("policy_makes_no_page", problem=f"{type(error).__name__}: {error}")
        raise PolicyError(message("policy_unusable"), [Finding("", wrong)]) from error
