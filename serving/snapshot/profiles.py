"""The built-in profiles of the engine, and a policy reader that resolves them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from recsys.guidance.policy.inheritance import resolve_profiles
from recsys.guidance.policy.policy import Policy, parse_policy
from recsys.guidance.policy.profiles import Profile, parse_profile


@cache
def ready_profiles() -> Mapping[str, Profile]:
    """Return the profiles by name, sorted by name. They are YAML files of the package, read once per process."""
    folder = files("recsys.guidance.policy.profiles")
    profiles = [parse_profile(file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".yaml")]
    return {profile.name: profile for profile in sorted(profiles, key=lambda profile: profile.name)}


def read_policy(text: str, stored: bool = False) -> Policy:
    """Return a policy from JSON or YAML text, with its profiles resolved. Raises PolicyError.

    stored  the text was accepted by this or an older version (`recsys.domain.fields.STORED`)
    """
    return resolve_profiles(parse_policy(text, stored), ready_profiles())
